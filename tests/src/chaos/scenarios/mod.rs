//! The faults, by what they happen to.

use std::pin::Pin;

use super::outcome::Outcome;
use super::stage::Trial;

mod broker;
mod commands;
mod gateway;
mod redis;
mod spool;
mod system;

/// A scenario under way. It stays on its thread.
pub type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// A fault, and how to make it.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Whether its short run is one of the ordinary tests.
    pub quick: bool,
    /// Makes it.
    pub play: fn(Trial) -> Running,
}

/// All of them, in the order in which they are run.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [gateway::all(), redis::all(), broker::all(), spool::all(), system::all(), commands::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// One scenario. Short runs of quick ones take a few seconds.
macro_rules! scenario {
    ($name:literal, $play:path, quick) => {
        $crate::chaos::scenarios::Scenario { name: $name, quick: true, play: |trial| Box::pin($play(trial)) }
    };
    ($name:literal, $play:path) => {
        $crate::chaos::scenarios::Scenario { name: $name, quick: false, play: |trial| Box::pin($play(trial)) }
    };
}
use scenario;
