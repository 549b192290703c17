//! A build that serves some machines before it serves all: how it begins, and how it ends. The gateway judges it (`gateway/canary`).
//!
//! It is in memory alone: after a restart what was live serves, and the build in the plugin's file begins anew.

use std::sync::Arc;

use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Step;

use super::{Ended, Registry, Seen, blocking, build};
use crate::registry::desk::{DeskError, Promoted, RolledBack};
use crate::registry::history::{Outcome, What, Who};
use crate::registry::load::{self, File, Loaded};
use crate::registry::{Place, Source};
use crate::telemetry::board::{CanaryBuild, Refused};
use crate::telemetry::{clock, metrics};

/// A build that serves some machines.
pub(super) struct Canary {
    /// What it will be kept as.
    pub(super) file: Arc<File>,
    pub(super) loaded: Loaded,
}

impl Registry {
    /// What a new build in the plugin's file is to be first: a canary, where the settings say so and there is one to compare it with.
    pub(super) fn place(&self, index: usize) -> Place {
        let watched = &self.plugins[index];
        if watched.live.is_some() && watched.wanted.plugin.canary.is_some() { Place::Canary } else { Place::Live }
    }

    /// Nothing is live yet, and this new build is to be a canary: what was live before the gateway's last end goes on.
    pub(super) async fn resume(&mut self, index: usize, new: Digest) {
        let watched = &self.plugins[index];
        if watched.live.is_some() || watched.wanted.plugin.canary.is_none() {
            return;
        }
        let Some(kept) = self.builds(index).live.clone().filter(|kept| kept.digest != new) else { return };
        let Some(Ok(file)) = self.kept(kept.digest).await else { return };
        match self.bring_back(index, &file).await {
            Ended::Taken(Loaded { generation, .. }) => {
                self.lives(index, file, &generation);
                // Said where the new one is refused.
                self.plugins[index].noted = true;
            }
            Ended::Refused(refusal) => {
                let plugin = &self.plugins[index].wanted.name;
                tracing::warn!(plugin, digest = %kept.digest, %refusal, "what was live before is refused now; the new build is no canary, since there is nothing beside it");
            }
            Ended::NotTaken => {}
        }
    }

    /// A build serves some machines, in the place of a canary that there was.
    pub(super) async fn begun(&mut self, index: usize, file: Arc<File>, loaded: Loaded, who: Who) {
        if self.plugins[index].canary.is_some() {
            self.forget(index, who, "a newer build took its place");
        }
        let generation = &loaded.generation;
        let name = &self.plugins[index].wanted.name;
        metrics::reload(name, Step::Canary.name(), "begun");
        let canary = CanaryBuild::new(generation.version(), &file.digest.to_string(), generation.number());
        self.board.plugin_canary(name, Some(canary));
        self.canaried(index, file.digest, who, Outcome::Canary, None);
        let watched = &mut self.plugins[index];
        watched.number = generation.number();
        watched.canary = Some(Canary { file, loaded });
        watched.refused = None;
        self.save().await;
    }

    /// The canary is live for all. `found_good`: the gateway itself wants that of this generation.
    pub(super) async fn promote(&mut self, name: &str, found_good: Option<u64>) -> Result<Promoted, DeskError> {
        let none = || DeskError::NoCanary(name.to_owned());
        let index = self.plugins.iter().position(|plugin| plugin.wanted.name == name).ok_or_else(none)?;
        let from = self.builds(index).live.as_ref().map(|live| live.digest).ok_or_else(none)?;
        let canary = self.plugins[index].canary.take().ok_or_else(none)?;
        let to = canary.file.digest;
        if found_good.is_some_and(|good| good != canary.loaded.generation.number()) {
            self.plugins[index].canary = Some(canary);
            return Err(none());
        }
        if !self.propose(&canary.loaded, Source::File, Place::Live).await {
            self.plugins[index].canary = Some(canary);
            return Err(DeskError::Stopping);
        }
        let who = if found_good.is_some() { Who::Canary } else { Who::Api };
        metrics::reload(name, Step::Canary.name(), "passed");
        self.changed(index, What::Load, Some(to), who, Step::Live, None);
        let Canary { file, loaded: Loaded { generation, .. } } = canary;
        self.builds(index).took(build(&file, &generation));
        self.lives(index, file, &generation);
        self.board.plugin_canary(name, None);
        self.note(index, None);
        self.save().await;
        let version = generation.version().to_owned();
        Ok(Promoted { plugin: name.to_owned(), from, to, version, generation: generation.number() })
    }

    /// The canary serves nobody any more, and is not tried again until the file holds another build. `worse`: than the live build, in the
    /// gateway's eyes; else somebody asked for it.
    pub(super) async fn withdraw(&mut self, index: usize, worse: Option<String>) -> Result<RolledBack, DeskError> {
        let name = self.plugins[index].wanted.name.clone();
        let none = || DeskError::NoCanary(name.clone());
        let live = self.builds(index).live.clone().ok_or_else(none)?;
        let canary = self.plugins[index].canary.take().ok_or_else(none)?;
        let from = canary.file.digest;
        if !self.propose(&canary.loaded, Source::File, Place::Withdrawn).await {
            self.plugins[index].canary = Some(canary);
            return Err(DeskError::Stopping);
        }
        let who = if worse.is_some() { Who::Canary } else { Who::Api };
        let reason = worse.unwrap_or_else(|| "somebody asked for it".to_owned());
        self.canaried(index, from, who, Outcome::Withdrawn, Some(&reason));
        self.builds(index).withdrew(canary.file.identity());
        let refused = Refused {
            digest: Some(from.to_string()),
            step: Step::Canary.name(),
            reason: reason.clone(),
            at: clock::now(),
        };
        self.board.plugin_refused(&name, refused);
        self.board.plugin_canary(&name, None);
        tracing::warn!(plugin = name, digest = %from, step = %Step::Canary, reason, "a canary was withdrawn; the live build serves all, and the file is not tried again until it holds another build");
        self.show(index);
        self.save().await;
        let generation = self.plugins[index].serves;
        Ok(RolledBack { plugin: name, from, to: live.digest, version: live.version, generation, canary: true })
    }

    /// The canary, where there is one, serves nobody any more: another build is wanted. It may come again.
    pub(super) async fn release(&mut self, index: usize, who: Who, reason: &str) {
        let Some(canary) = &self.plugins[index].canary else { return };
        // Not taken: the gateway comes to its end.
        if self.propose(&canary.loaded, Source::File, Place::Withdrawn).await {
            self.forget(index, who, reason);
            self.unsaved = true;
        }
    }

    /// The gateway has another build in its place already.
    pub(super) fn forget(&mut self, index: usize, who: Who, reason: &str) {
        let Some(canary) = self.plugins[index].canary.take() else { return };
        let plugin = &self.plugins[index].wanted.name;
        tracing::info!(plugin, digest = %canary.file.digest, step = %Step::Canary, reason, "a canary ended");
        metrics::reload(plugin, Step::Canary.name(), "replaced");
        self.board.plugin_canary(plugin, None);
        self.canaried(index, canary.file.digest, who, Outcome::Withdrawn, Some(reason));
    }

    /// What lies beside the file changed: where it is good, the canary is kept with it once it is live.
    pub(super) async fn signature_of_canary(&mut self, index: usize, file: Arc<File>) {
        let watched = &self.plugins[index];
        if watched.canary.as_ref().is_some_and(|canary| Seen::of(&canary.file) == Seen::of(&file)) {
            return;
        }
        let (wanted, signed) = (watched.wanted.clone(), file.clone());
        if matches!(blocking(move || load::signer(&wanted, &signed)).await, Some(Ok(_)))
            && let Some(canary) = &mut self.plugins[index].canary
        {
            canary.file = file;
        }
    }

    fn canaried(&self, index: usize, to: Digest, who: Who, outcome: Outcome, reason: Option<&str>) {
        let plugin = self.plugins[index].wanted.name.clone();
        self.tell(plugin, What::Load, Some(to), who, outcome, Step::Canary, reason.map(str::to_owned));
    }
}
