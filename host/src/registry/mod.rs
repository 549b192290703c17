//! Which build of each plugin there is: found → verified → compiled → checked → rehearsed, then proposed to the gateway,
//! which alone makes it live. A build that fails at any step changes nothing. The one before is kept as the fallback.
//!
//! - [`load`]: one file through all steps.
//! - `run`: what is done about each plugin, one thing after another.
//! - `folder`: what outlives a restart.
//! - [`history`]: what changed.
//! - [`desk`]: what others ask.

pub mod desk;
mod folder;
pub mod history;
pub mod load;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use indexmap::IndexMap;
use sluicegate_core::settings::Settings;
use sluicegate_core::trust::{KeyId, Trust};
use tokio::sync::oneshot;

use crate::sandbox::{Generation, Refusal, World};

pub use run::Registry;

/// A build that passed every step before it is live. Dropped, it was not taken: what is live stays so.
pub struct Proposal {
    /// It.
    pub generation: Arc<Generation>,
    /// Where it is from.
    pub source: Source,
    /// Whose signature it has.
    pub signed_by: Option<KeyId>,
    pub(super) live: oneshot::Sender<()>,
}

impl Proposal {
    /// New messages are handled with it.
    pub fn is_live(self) {
        // The registry may have come to its end.
        let _ = self.live.send(());
    }
}

/// Tries a build on real messages, after its samples and before it is proposed.
pub trait Rehearsal: Send + Sync {
    /// Takes as long as it takes: not for a thread that polls.
    ///
    /// # Errors
    /// [`Refusal`] at `rehearsed`, where the build does worse than the live one.
    fn rehearse(&self, build: &Arc<Generation>) -> Result<(), Refusal>;
}

/// Where a build is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The plugin's own file.
    File,
    /// What was kept.
    Fallback,
}

impl Source {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Fallback => "fallback",
        }
    }
}

/// A plugin as the settings name it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The settings' name for it.
    pub name: String,
    /// Its file, settings and limits.
    pub plugin: sluicegate_core::settings::Plugin,
    /// Whose builds are taken; none: anybody's.
    pub trust: Option<Arc<Trust>>,
    /// The world that its place in the settings needs.
    pub world: Option<World>,
    /// What the live build calls itself: a build of another plugin does not take its place.
    pub before: Option<String>,
}

/// Every plugin that the settings name.
#[must_use]
pub fn wanted(settings: &Settings) -> Vec<Wanted> {
    let handler = |name: &String| settings.routes.iter().any(|route| route.handlers.contains(name));
    let plugins: &IndexMap<_, _> = &settings.plugins;
    let trust = Arc::new(settings.trust.clone());
    plugins
        .iter()
        .map(|(name, plugin)| Wanted {
            name: name.clone(),
            plugin: plugin.clone(),
            trust: Some(trust.clone()),
            world: if settings.commands.validator.as_ref() == Some(name) {
                Some(World::CommandValidator)
            } else {
                handler(name).then_some(World::TopicHandler)
            },
            before: None,
        })
        .collect()
}
