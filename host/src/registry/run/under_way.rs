//! A build in a plugin's file, from `found` to `live`. One at a time; it is given up where something else is wanted meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Step;
use tokio::task::{Id, JoinError};
use tokio_util::sync::CancellationToken;

use super::{Ended, Registry, Seen, blocking, build, panicked};
use crate::registry::history::{What, Who};
use crate::registry::load::{self, File, Loaded};
use crate::registry::{Place, Source};
use crate::sandbox::Refusal;
use crate::telemetry::board::{Board, Candidate};
use crate::telemetry::clock;

/// How the steps of a build ended, this one's or that of one that was given up.
pub(super) type Joined = Result<(Id, Result<Loaded, Refusal>), JoinError>;

/// A build that is on its way.
pub(super) struct UnderWay {
    index: usize,
    pub(super) file: Arc<File>,
    who: Who,
    place: Place,
    /// Nothing was live, and what is kept was brought up beside it.
    resumed: bool,
    progress: Progress,
    /// Whoever takes it there.
    steps: Id,
    /// Stops them.
    given_up: CancellationToken,
}

/// What people are told of a build on its way, until it is over.
#[derive(Clone)]
pub(super) struct Progress {
    board: Arc<Board>,
    plugin: String,
    digest: Digest,
    over: Arc<Mutex<bool>>,
}

impl Progress {
    pub(super) fn new(board: Arc<Board>, plugin: &str, digest: Digest) -> Self {
        let progress = Self { board, plugin: plugin.to_owned(), digest, over: Arc::default() };
        progress.at(Step::Found);
        progress
    }

    /// It is at this step; of one that was given up nobody is told.
    pub(super) fn at(&self, step: Step) {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if !*over {
            let candidate = Candidate { digest: self.digest.to_string(), step: step.name(), since: clock::now() };
            self.board.plugin_candidate(&self.plugin, Some(candidate));
        }
    }

    pub(super) fn over(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.board.plugin_candidate(&self.plugin, None);
    }
}

impl Registry {
    /// This plugin's file is to be looked at. What is under way of it goes on where the file still holds that.
    pub(super) async fn queue(&mut self, index: usize, who: Who) {
        let Some(name) = self.plugins.get(index).map(|plugin| plugin.wanted.name.clone()) else { return };
        if let Some(UnderWay { index: at, file, .. }) = &self.under_way
            && *at == index
        {
            let (path, seen) = (self.plugins[index].wanted.plugin.path.clone(), Seen::of(file));
            let read = blocking(move || load::read(&path)).await;
            match read {
                Some(Ok(file)) if Seen::of(&file) != seen => drop(self.give_up()),
                _ => return,
            }
        }
        if !self.waiting.iter().any(|(waiting, _)| *waiting == name) {
            self.waiting.push_back((name, who));
        }
    }

    /// Looks at the next file, where nothing is under way.
    pub(super) async fn begin_next(&mut self) {
        while self.under_way.is_none()
            && let Some((name, who)) = self.waiting.pop_front()
        {
            // The settings may not name it any more.
            if let Some(index) = self.plugins.iter().position(|plugin| plugin.wanted.name == name) {
                self.look(index, who).await;
            }
        }
    }

    pub(super) fn begin(&mut self, index: usize, file: Arc<File>, who: Who, resumed: bool) {
        let watched = &self.plugins[index];
        let (wanted, number) = (watched.wanted.clone(), watched.number + 1);
        tracing::debug!(plugin = wanted.name, digest = %file.digest, "a build was found");
        let progress = Progress::new(self.board.clone(), &wanted.name, file.digest);
        let given_up = CancellationToken::new();
        let sandbox = self.sandbox.clone().until(given_up.clone());
        let at = progress.clone();
        let steps = self.steps(sandbox, wanted, file.clone(), number, true, move |step| at.at(step));
        let steps = self.steps.spawn_blocking(steps).id();
        let place = self.place(index);
        self.under_way = Some(UnderWay { index, file, who, place, resumed, progress, steps, given_up });
    }

    /// Something is to be done with this plugin: what is under way of it is looked at again afterwards.
    pub(super) fn give_way(&mut self, plugin: &str) {
        let same = |under_way: &UnderWay| self.plugins[under_way.index].wanted.name == plugin;
        if self.under_way.as_ref().is_some_and(same)
            && let Some(given_up) = self.give_up()
        {
            self.waiting.push_front(given_up);
        }
    }

    /// What is under way is not wanted any more: whose it is, and who wanted it.
    pub(super) fn give_up(&mut self) -> Option<(String, Who)> {
        let UnderWay { index, who, progress, given_up, .. } = self.under_way.take()?;
        given_up.cancel();
        progress.over();
        Some((self.plugins[index].wanted.name.clone(), who))
    }

    /// The steps of a build came to their end: it goes live, or not.
    pub(super) async fn ended(&mut self, joined: Joined) {
        let (id, loaded) = match joined {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "the plugin registry's work panicked");
                (error.id(), Err(panicked()))
            }
        };
        // Another one was given up.
        let Some(UnderWay { index, file, who, place, resumed, progress, .. }) =
            self.under_way.take_if(|under_way| under_way.steps == id)
        else {
            return;
        };
        match self.propose_if_good(loaded, Source::File, place, &progress).await {
            Ended::Taken(loaded) if place == Place::Canary => self.begun(index, file, loaded, who).await,
            Ended::Taken(Loaded { generation, .. }) => {
                self.release(index, who, "a newer build took its place").await;
                self.changed(index, What::Load, Some(file.digest), who, Step::Live, None);
                self.builds(index).took(build(&file, &generation));
                self.lives(index, file, &generation);
                // The file held another build since.
                self.plugins[index].refused = None;
                self.note(index, None);
                self.save().await;
            }
            Ended::Refused(refusal) => {
                self.refused(index, Some(&file), &refusal, who);
                if self.plugins[index].live.is_some() && (resumed || who == Who::Start) {
                    self.note(index, Some(&refusal.problem.to_string()));
                }
            }
            Ended::NotTaken => {}
        }
    }
}
