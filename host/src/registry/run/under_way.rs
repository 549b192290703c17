//! A build in a plugin's file, from `found` to `live`. One at a time; it is given up where something else is wanted meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Step;
use tokio::task::{Id, JoinError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::making::{self, panicked};
use super::{Ended, Registry, Seen, blocking, build};
use crate::registry::history::{What, Who};
use crate::registry::load::{self, File, Loaded};
use crate::registry::{Place, Source};
use crate::sandbox::compiled::Claim;
use crate::sandbox::{Problem, Refusal};
use crate::telemetry::board::{Board, Candidate};
use crate::telemetry::clock;

/// How the steps of a build ended, this one's or that of one that was given up.
pub(super) type Joined = Result<(Id, Result<Loaded, Refusal>), JoinError>;

/// A build that is on its way.
pub(super) struct UnderWay {
    /// Its plugin's.
    pub(super) name: String,
    file: Arc<File>,
    who: Who,
    progress: Progress,
    /// Whoever takes it there.
    task: Id,
    /// Stops that.
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
    /// This plugin's file is to be looked at.
    pub(super) fn wait(&mut self, index: usize, who: Who) {
        let name = &self.plugins[index].wanted.name;
        match self.waiting.iter_mut().find(|(waiting, _)| waiting == name) {
            Some((_, before)) => *before = who,
            None => self.waiting.push_back((name.clone(), who)),
        }
    }

    /// This plugin's file, or its signature, may be another. What is under way of it goes on where it is not.
    pub(super) async fn file_changed(&mut self, index: usize) {
        let Some(plugin) = self.plugins.get(index) else { return };
        if let Some(under_way) = self.under_way.as_ref().filter(|under_way| under_way.name == plugin.wanted.name) {
            let (path, seen) = (plugin.wanted.plugin.path.clone(), Seen::of(&under_way.file));
            let read = blocking(move || load::read(&path)).await;
            if !matches!(read, Some(Ok(file)) if Seen::of(&file) != seen) {
                return;
            }
            self.give_up();
        }
        self.wait(index, Who::File);
    }

    /// Looks at the next file, where nothing is under way.
    pub(super) async fn begin_next(&mut self) {
        while self.under_way.is_none()
            && self.ordering.is_none()
            && let Some((name, who)) = self.waiting.pop_front()
        {
            // The settings may not name it any more.
            let Some(index) = self.index_of(&name) else { continue };
            self.look(index, who).await;
            if self.under_way.is_none() {
                self.fall_back_once(index, None).await;
            }
        }
    }

    pub(super) fn begin(&mut self, index: usize, file: Arc<File>, who: Who) {
        let watched = &self.plugins[index];
        let (wanted, number) = (watched.wanted.clone(), watched.number + 1);
        let (name, digest) = (wanted.name.clone(), file.digest);
        tracing::debug!(plugin = name, %digest, "a build was found");
        let progress = Progress::new(self.board.clone(), &name, digest);
        let (claim, at) = (Claim::default(), progress.clone());
        let given_up = claim.given_up.clone();
        let order = making::Order { wanted, file: file.clone(), number, tried: true };
        let task = self.tasks.spawn_blocking(self.maker.steps(order, claim, move |step| at.at(step))).id();
        self.under_way = Some(UnderWay { name, file, who, progress, task, given_up });
    }

    /// Something was done with a plugin: what was begun before is begun anew.
    pub(super) fn done(&mut self, plugin: &str, done: bool) {
        if !done {
            return;
        }
        if self.under_way.as_ref().is_some_and(|under_way| under_way.name == plugin) {
            let given_up = self.give_up();
            self.waiting.extend(given_up);
        }
        self.order_anew();
    }

    /// What is under way is not wanted any more: whose it is, and who wanted it.
    pub(super) fn give_up(&mut self) -> Option<(String, Who)> {
        let UnderWay { name, who, progress, given_up, .. } = self.under_way.take()?;
        given_up.cancel();
        progress.over();
        Some((name, who))
    }

    /// When what is under way is late: nothing is live of its plugin, and another build is kept that was.
    pub(super) fn late(&self) -> Option<Instant> {
        let under_way = self.under_way.as_ref()?;
        let watched = &self.plugins[self.index_of(&under_way.name)?];
        let kept = self.index.plugins.get(&under_way.name)?.live.as_ref()?.digest;
        let late = watched.live.is_none() && !watched.fell_back && kept != under_way.file.digest;
        late.then_some(self.patience)
    }

    /// What is kept serves until the build that is under way is ready, which others do not wait for.
    pub(super) async fn is_late(&mut self) {
        let Some((name, who)) = self.give_up() else { return };
        let Some(index) = self.index_of(&name) else { return };
        self.fall_back_once(index, Some("the build in its file was not ready in time, and is made ready now")).await;
        if self.plugins[index].live.is_some() {
            self.waiting.push_back((name, who));
        } else {
            self.waiting.push_front((name, who));
        }
    }

    /// Where nothing is live of this plugin and what is kept was not tried yet, that is brought up.
    async fn fall_back_once(&mut self, index: usize, why: Option<&str>) {
        let watched = &mut self.plugins[index];
        if watched.live.is_none() && !std::mem::replace(&mut watched.fell_back, true) {
            self.fall_back(index, why).await;
        }
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
        let Some(UnderWay { name, file, who, progress, .. }) = self.under_way.take_if(|under_way| under_way.task == id)
        else {
            return;
        };
        let Some(index) = self.index_of(&name) else { return progress.over() };
        if matches!(&loaded, Err(refusal) if refusal.problem == Problem::GivenUp) {
            // Something more urgent was compiled in its place.
            progress.over();
            return self.waiting.push_front((name, who));
        }
        let place = self.place(index);
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
                if self.plugins[index].noted {
                    self.note(index, Some(&refusal.problem.to_string()));
                }
                self.fall_back_once(index, None).await;
            }
            Ended::NotTaken => {}
        }
        self.order_anew();
    }
}
