//! Back to a build that is kept: at a start without a good file, and where somebody asks for it.

use std::sync::Arc;

use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::{Build, Step};

use super::{Ended, Registry, Seen};
use crate::registry::desk::{DeskError, RolledBack, Worse};
use crate::registry::history::{What, Who};
use crate::registry::load::{File, Loaded};
use crate::sandbox::Refusal;
use crate::telemetry::board::Refused;
use crate::telemetry::clock;

impl Registry {
    /// There is no good file at the start, or for this reason none yet: the build that was live before goes live again, or the one before that.
    pub(super) async fn fall_back(&mut self, index: usize, why: Option<&str>) {
        let kept: Vec<Build> = self.builds(index).kept().cloned().collect();
        for (place, kept) in kept.iter().enumerate() {
            let file = match self.kept(kept.digest).await {
                Some(Ok(file)) => file,
                Some(Err(refusal)) => {
                    self.kept_is_refused(index, kept, &refusal);
                    continue;
                }
                None => return,
            };
            // Its file in place was refused, and this is the same.
            if self.plugins[index].refused.as_ref().is_some_and(|refused| refused.seen == Seen::of(&file)) {
                continue;
            }
            match self.bring_back(index, &file).await {
                Ended::Taken(Loaded { generation, .. }) => {
                    if place > 0 {
                        self.changed(index, What::Load, Some(kept.digest), Who::Start, Step::Fallback, None);
                        self.builds(index).fell_back(false);
                    }
                    self.lives(index, file, &generation);
                    let rejected =
                        self.builds(index).rejected.first().map(|digest| format!("{digest} was rolled back"));
                    let refused = || self.board.last_refusal(&self.plugins[index].wanted.name);
                    let why = why.map(str::to_owned).or(rejected).or_else(refused);
                    let why = why.unwrap_or_else(|| "it could not be read".to_owned());
                    self.note(index, Some(&why));
                    return self.save().await;
                }
                Ended::Refused(refusal) => self.kept_is_refused(index, kept, &refusal),
                Ended::NotTaken => return,
            }
        }
    }

    fn kept_is_refused(&self, index: usize, kept: &Build, refusal: &Refusal) {
        let plugin = &self.plugins[index].wanted.name;
        tracing::error!(plugin, digest = %kept.digest, step = %refusal.step, reason = %refusal.problem, "the kept build was refused, too");
        self.changed(index, What::Load, Some(kept.digest), Who::Start, refusal.step, Some(&refusal.problem));
        // The file's own refusal is the one to mend; where it was rolled back, there is none.
        if self.board.last_refusal(plugin).is_none() {
            let refused = Refused {
                digest: Some(kept.digest.to_string()),
                step: refusal.step.name(),
                reason: refusal.problem.to_string(),
                at: clock::now(),
            };
            self.board.plugin_refused(plugin, refused);
        }
    }

    /// `because`: the gateway itself wants it, since this build is worse than the one before.
    pub(super) async fn roll_back(&mut self, name: &str, because: Option<Worse>) -> Result<RolledBack, DeskError> {
        let who = if because.is_some() { Who::Rollback } else { Who::Api };
        let index = self.plugins.iter().position(|plugin| plugin.wanted.name == name);
        let none = || DeskError::NoFallback(name.to_owned());
        let index = index.ok_or_else(none)?;
        let canary = self.plugins[index].canary.as_ref().map(|canary| canary.loaded.generation.number());
        if canary.is_some_and(|canary| because.as_ref().is_none_or(|worse| worse.generation == canary)) {
            return self.withdraw(index, because.map(|worse| worse.reason)).await;
        }
        let builds = self.builds(index).clone();
        let (live, kept) = builds.live.zip(builds.fallback).ok_or_else(none)?;
        if because.as_ref().is_some_and(|worse| worse.generation != self.plugins[index].serves) {
            return Err(DeskError::Overtaken(name.to_owned()));
        }
        let reason = because.map(|worse| worse.reason);
        let ended = match self.kept(kept.digest).await.ok_or(DeskError::Stopping)? {
            Ok(file) => match self.bring_back(index, &file).await {
                Ended::Taken(Loaded { generation, .. }) => Ok((file, generation)),
                Ended::Refused(refusal) => Err(refusal),
                Ended::NotTaken => return Err(DeskError::Stopping),
            },
            Err(refusal) => Err(refusal),
        };
        let (file, generation) = match ended {
            Ok(done) => done,
            Err(refusal) => {
                let (digest, step, reason) = (kept.digest, refusal.step, refusal.problem.to_string());
                tracing::error!(plugin = name, %digest, %step, reason, "a rollback was refused; the live build goes on");
                self.changed(index, What::Rollback, Some(digest), who, step, Some(&refusal.problem));
                return Err(DeskError::Refused { digest, step, reason });
            }
        };
        self.changed(index, What::Rollback, Some(kept.digest), who, Step::Fallback, None);
        if let Some(reason) = &reason {
            self.worse(index, live.digest, reason);
        }
        self.builds(index).fell_back(true);
        self.lives(index, file, &generation);
        tracing::warn!(plugin = name, from = %live.digest, to = %kept.digest, reason, "rolled back; the file is not tried again until it holds another build");
        let why = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        self.note(index, Some(&format!("{} was rolled back{why}", live.digest)));
        self.save().await;
        Ok(RolledBack {
            plugin: name.to_owned(),
            from: live.digest,
            to: kept.digest,
            version: kept.version,
            generation: generation.number(),
            canary: false,
        })
    }

    /// It was live, and did worse than the one before.
    fn worse(&self, index: usize, digest: Digest, reason: &str) {
        let name = &self.plugins[index].wanted.name;
        let refused = Refused {
            digest: Some(digest.to_string()),
            step: Step::Probation.name(),
            reason: reason.to_owned(),
            at: clock::now(),
        };
        self.board.plugin_refused(name, refused);
    }

    /// A build that is kept: in memory where it could not be written yet.
    pub(super) async fn kept(&self, digest: Digest) -> Option<Result<Arc<File>, Refusal>> {
        self.keeper().kept(digest).await
    }

    /// What serves is not what lies in the plugin's file, for this reason.
    pub(super) fn note(&mut self, index: usize, reason: Option<&str>) {
        let name = self.plugins[index].wanted.name.clone();
        self.plugins[index].noted = reason.is_some();
        let live = self.builds(index).live.clone();
        let text = reason.zip(live).map(|(reason, live)| {
            format!(
                "plugin {name} serves with the kept build {} ({}), not with its file: {reason}",
                live.version, live.digest
            )
        });
        if let Some(text) = &text {
            tracing::warn!(plugin = name, "{text}");
        }
        self.board.notice(&kept_notice(&name), text.as_deref());
    }
}

/// The notice that what serves is not what lies in the plugin's file.
pub(super) fn kept_notice(plugin: &str) -> String {
    format!("plugin {plugin} serves with a kept build")
}
