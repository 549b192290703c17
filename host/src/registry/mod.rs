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
use sluicegate_core::lifecycle::Identity;
use sluicegate_core::settings::Settings;
use sluicegate_core::tried::Tried;
use sluicegate_core::trust::{KeyId, Trust};
use tokio::sync::oneshot;

use crate::sandbox::{Generation, Refusal, World};

pub use run::Registry;

/// A build that passed every step before, and what it is to be now. Dropped, it was not taken: what serves goes on.
pub struct Proposal {
    /// It.
    pub generation: Arc<Generation>,
    /// What it is to be.
    pub place: Place,
    /// Where it is from.
    pub source: Source,
    /// Whose signature it has.
    pub signed_by: Option<KeyId>,
    pub(super) taken: oneshot::Sender<()>,
}

impl Proposal {
    /// It is what it was to be, for every new message.
    pub fn is_taken(self) {
        // The registry may have come to its end.
        let _ = self.taken.send(());
    }
}

/// What a build is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// All new messages are handled with it.
    Live,
    /// Those of some machines are.
    Canary,
    /// It was a canary, and none is handled with it any more.
    Withdrawn,
}

/// Tries a build on real messages, after its samples and before it is proposed.
pub trait Rehearsal: Send + Sync {
    /// Takes as long as it takes: not for a thread that polls.
    ///
    /// # Errors
    /// [`Refusal`] at `rehearsed`, where the build does worse than the live one.
    fn rehearse(&self, build: &Arc<Generation>) -> Result<(), Refusal>;

    /// The last real messages or commands that this plugin was given. It takes as long as what stands before it in its chains: not for a
    /// thread that polls.
    ///
    /// # Errors
    /// [`Refusal`], where the system gives no event loop.
    fn messages(&self, plugin: &str) -> Result<Vec<Tried>, Refusal>;
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
#[derive(Debug, Clone, PartialEq)]
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

impl Wanted {
    /// Whether the settings revoke a build of it.
    fn revokes(&self, build: Identity) -> bool {
        self.trust.as_ref().is_some_and(|trust| trust.revokes(build))
    }
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
