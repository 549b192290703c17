//! What outlives a restart: read at the start, written down after each change.

use std::collections::HashMap;
use std::sync::Arc;

use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Step;

use super::{Registry, blocking};
use crate::registry::folder::{Folder, FolderError};
use crate::registry::history::{Change, Outcome, What, Who};
use crate::registry::load::{self, File};
use crate::sandbox::{Problem, Refusal};
use crate::telemetry::board::Kept;
use crate::telemetry::causes::with_causes;
use crate::telemetry::clock;

/// Raised while a build could not be kept.
const UNKEPT: &str = "a plugin's fallback is not kept";

/// Where builds are that are kept. Cheap to clone.
#[derive(Clone)]
pub(super) struct Keeper {
    /// Those that may not be written yet.
    files: HashMap<Digest, Arc<File>>,
    folder: Option<Folder>,
}

impl Keeper {
    /// A build that is kept; none: there is no folder, or reading it panicked.
    pub(super) async fn kept(&self, digest: Digest) -> Option<Result<Arc<File>, Refusal>> {
        if let Some(file) = self.files.get(&digest) {
            return Some(Ok(file.clone()));
        }
        let path = self.folder.as_ref()?.file(digest);
        let read = blocking(move || {
            let file = load::read_kept(&path)?;
            if file.digest != digest {
                let problem = Problem::File { path: path.display().to_string(), reason: "it is damaged".to_owned() };
                return Err(Refusal { step: Step::Found, problem });
            }
            Ok(Arc::new(file))
        });
        read.await
    }
}

impl Registry {
    pub(super) fn keeper(&self) -> Keeper {
        Keeper { files: self.files.clone(), folder: self.folder.clone() }
    }

    /// Reads what an earlier run left.
    pub(super) async fn restore(&mut self) {
        let Some(folder) = self.folder.clone() else { return };
        let read = blocking(move || match folder.read() {
            // What was damaged is out of the way now.
            Err(error @ FolderError::Damaged { .. }) => (folder.read().ok(), Some(error)),
            Err(error) => (None, Some(error)),
            Ok(read) => (Some(read), None),
        });
        let Some((read, error)) = read.await else { return };
        if let Some(error) = error {
            if matches!(error, FolderError::Foreign { .. }) {
                self.folder = None;
            }
            self.unkept(Some(&with_causes(&error)));
        }
        if let Some((index, changes)) = read {
            self.index = index;
            self.orders.history.restore(changes);
        }
        self.only_named(Who::Start);
        for index in 0..self.plugins.len() {
            let live = self.builds(index).live.as_ref().map(|build| build.name.clone());
            self.plugins[index].wanted.before = live;
            self.show(index);
        }
    }

    /// What the settings name no more needs no fallback.
    pub(super) fn only_named(&mut self, who: Who) {
        let named = |name: &String| self.plugins.iter().any(|plugin| plugin.wanted.name == *name);
        let gone: Vec<String> = self.index.plugins.keys().filter(|name| !named(name)).cloned().collect();
        for name in gone {
            // One that never was live leaves nothing.
            if self.live(&name).is_some() {
                self.tell(name.clone(), What::Remove, None, who, Outcome::Removed, Step::Live, None);
                self.unsaved = true;
            }
            self.index.plugins.shift_remove(&name);
        }
    }

    /// Writes to the folder what is so now; what could not be written is tried again at the next look.
    pub(super) async fn save(&mut self) {
        let kept = self.index.kept();
        self.files.retain(|digest, _| kept.contains(digest));
        let Some(folder) = self.folder.clone() else { return };
        let (index, files) = (self.index.clone(), self.files.values().cloned().collect::<Vec<_>>());
        let history = self.orders.history.all();
        let saved = blocking(move || folder.save(&index, &files, &history)).await;
        self.unsaved = !matches!(saved, Some(Ok(())));
        match saved {
            Some(Ok(())) => {
                // They stand on the disk: what is live is compiled, and the file is read again where it is needed.
                self.files.clear();
                self.unkept(None);
            }
            Some(Err(error)) => self.unkept(Some(&with_causes(&error))),
            None => {}
        }
    }

    fn unkept(&self, reason: Option<&str>) {
        let text =
            reason.map(|reason| format!("{reason}; a restart, or a rollback after one, has no build to go back to"));
        if self.board.notice(UNKEPT, text.as_deref())
            && let Some(text) = text
        {
            tracing::error!("{text}");
        }
    }

    /// Writes into the history what went live (no problem), or did not. To be called before the index is changed.
    pub(super) fn changed(
        &self,
        index: usize,
        what: What,
        to: Option<Digest>,
        who: Who,
        step: Step,
        problem: Option<&Problem>,
    ) {
        let name = &self.plugins[index].wanted.name;
        // A start that finds what was live before changes nothing.
        if problem.is_none() && self.live(name) == to {
            return;
        }
        let outcome = if problem.is_none() { Outcome::Live } else { Outcome::Refused };
        self.tell(name.clone(), what, to, who, outcome, step, problem.map(Problem::to_string));
    }

    /// The build of a plugin that is live, or was before the last end.
    fn live(&self, name: &str) -> Option<Digest> {
        self.index.plugins.get(name).and_then(|builds| builds.live.as_ref()).map(|build| build.digest)
    }

    /// Writes a change of a plugin's live build into the history. To be called before the index is changed.
    #[expect(clippy::too_many_arguments, reason = "they are the change, a field each")]
    pub(super) fn tell(
        &self,
        plugin: String,
        what: What,
        to: Option<Digest>,
        who: Who,
        outcome: Outcome,
        step: Step,
        reason: Option<String>,
    ) {
        let from = self.live(&plugin);
        self.orders.history.add(Change { at: clock::now(), plugin, what, from, to, outcome, step, reason, who });
    }

    /// Tells the board what is kept and what is not tried again.
    pub(super) fn show(&mut self, index: usize) {
        let builds = self.builds(index).clone();
        // One that is revoked stays on the disk, and nobody can go back to it while it is.
        let wanted = &self.plugins[index].wanted;
        let fallback = builds
            .fallback
            .filter(|build| !wanted.revokes(build.identity()))
            .map(|build| Kept { version: build.version, digest: build.digest.to_string() });
        let rejected = builds.rejected.iter().map(Digest::to_string).collect();
        self.board.plugin_builds(&self.plugins[index].wanted.name, fallback, rejected);
    }
}
