//! What others ask of the registry: which builds there are, what changed, and to go back to the build before.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Step;
use sluicegate_core::settings::Settings;
use sluicegate_core::tried::Tried;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::history::History;
use super::run::blocking;
use super::{Proposal, Rehearsal, Wanted, wanted};
use crate::telemetry::board::{Board, NamedPlugin};

/// Orders that wait while another one is done; beyond it the desk says that it is busy.
const ORDERS: usize = 8;

/// Why an order was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// There is no such plugin.
    #[error("the settings have no plugin `{}`; {known}", name.escape_debug())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// No build is kept.
    #[error(
        "plugin `{0}` has no build to go back to: one is kept when another one takes its place, and a rollback uses it up"
    )]
    NoFallback(String),
    /// The build that was to go serves no more.
    #[error("another build of plugin `{0}` serves by now")]
    Overtaken(String),
    /// No build serves some machines before it serves all.
    #[error(
        "plugin `{0}` has no canary: a new build is one where the settings say so (plugins.NAME.canary), until its time is over"
    )]
    NoCanary(String),
    /// The build that was kept cannot be live any more.
    #[error("the build before, {digest}, was refused, and the live one goes on: not {step}: {reason}")]
    Refused {
        /// The build.
        digest: Digest,
        /// The step.
        step: Step,
        /// Why.
        reason: String,
    },
    /// Too many orders.
    #[error("the plugin registry is busy; try again when `sluicegate plugin list` shows no candidate")]
    Busy,
    /// The gateway ends.
    #[error("the gateway is shutting down")]
    Stopping,
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RolledBack {
    /// The plugin.
    pub plugin: String,
    /// What was live, and is not tried again until the file holds another build.
    pub from: Digest,
    /// What is live.
    pub to: Digest,
    /// Its version.
    pub version: String,
    /// Its number since the gateway started.
    pub generation: u64,
    /// Whether what was live for some machines alone was withdrawn, and the live build served on.
    pub canary: bool,
}

/// What became of a canary that is live now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Promoted {
    /// The plugin.
    pub plugin: String,
    /// What was live.
    pub from: Digest,
    /// What is live.
    pub to: Digest,
    /// Its version.
    pub version: String,
    /// Its number since the gateway started.
    pub generation: u64,
}

/// Why the gateway itself goes back to the build before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worse {
    /// The generation that is worse, live or a canary; where it is neither by now, nothing is done.
    pub generation: u64,
    /// In which way.
    pub reason: String,
}

/// An order to the registry.
pub(super) enum Order {
    /// The build before is to go live again.
    Rollback {
        /// Of this plugin.
        plugin: String,
        /// What the gateway itself has against the live build.
        because: Option<Worse>,
        /// How it went.
        done: oneshot::Sender<Result<RolledBack, DeskError>>,
    },
    /// The canary is to be live.
    Promote {
        /// Of this plugin.
        plugin: String,
        /// The generation that the gateway itself found good; where another one is the canary by now, nothing is done.
        found_good: Option<u64>,
        /// How it went.
        done: oneshot::Sender<Result<Promoted, DeskError>>,
    },
    /// Other settings are to be in force: what they need is to be loaded.
    Settings {
        /// Every plugin that they name.
        wanted: Vec<Wanted>,
        /// What came of it.
        answer: oneshot::Sender<Ordered>,
    },
}

/// What an order of other settings came to; or why not, a sentence for each plugin.
pub type Ordered = Result<Ready, Vec<String>>;

/// What other settings need is loaded. Dropped, they were not taken: what is live stays so.
pub struct Ready {
    /// The builds that are new.
    pub builds: Vec<Proposal>,
    pub(super) taken: oneshot::Sender<()>,
}

impl Ready {
    /// The settings are in force: the registry looks after their plugins and no others. Gives the builds that are live now.
    #[must_use]
    pub fn taken(self) -> Vec<Proposal> {
        // The registry may have come to its end.
        let _ = self.taken.send(());
        self.builds
    }
}

/// What the registry works on: orders, what others see of it, and what builds are tried on.
pub struct Orders {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) history: Arc<History>,
    pub(super) rehearsal: Option<Arc<dyn Rehearsal>>,
}

/// Asks the registry.
#[derive(Clone)]
pub struct Desk {
    board: Arc<Board>,
    history: Arc<History>,
    orders: mpsc::Sender<Order>,
    rehearsal: Option<Arc<dyn Rehearsal>>,
    /// Guests run for whoever asks for messages: for one at a time.
    telling: Arc<Semaphore>,
}

/// A desk, and what is ordered at it. `rehearsal`: builds are tried on real messages, too.
#[must_use]
pub fn desk(board: Arc<Board>, rehearsal: Option<Arc<dyn Rehearsal>>) -> (Desk, Orders) {
    let (sender, orders) = mpsc::channel(ORDERS);
    let history = Arc::new(History::default());
    let told = Orders { orders, history: history.clone(), rehearsal: rehearsal.clone() };
    (Desk { board, history, orders: sender, rehearsal, telling: Arc::new(Semaphore::new(1)) }, told)
}

impl Desk {
    /// Every plugin.
    #[must_use]
    pub fn plugins(&self) -> Vec<NamedPlugin> {
        self.board.plugins()
    }

    /// One of them.
    ///
    /// # Errors
    /// [`DeskError::Unknown`]
    pub fn plugin(&self, name: &str) -> Result<NamedPlugin, DeskError> {
        let plugins = self.board.plugins();
        let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let known =
            if names.is_empty() { "they have none".to_owned() } else { format!("they have {}", names.join(", ")) };
        let unknown = || DeskError::Unknown { name: name.to_owned(), known };
        plugins.iter().find(|plugin| plugin.name == name).cloned().ok_or_else(unknown)
    }

    /// What the last build that was tried on real messages made of them.
    #[must_use]
    pub fn rehearsed(&self, name: &str) -> Option<Arc<Value>> {
        self.board.rehearsed(name)
    }

    /// The last real messages or commands that a plugin was given, for another build to be tried on. The registry has no part in it, which may be
    /// compiling, or has a rollback to do.
    ///
    /// # Errors
    /// [`DeskError`]
    pub async fn messages(&self, name: &str) -> Result<Vec<Tried>, DeskError> {
        self.plugin(name)?;
        let Some(rehearsal) = self.rehearsal.clone() else { return Ok(Vec::new()) };
        let place = self.telling.clone().acquire_owned().await.map_err(|_| DeskError::Stopping)?;
        let plugin = name.to_owned();
        let told = blocking(move || {
            // Whoever stops waiting does not end it.
            let _place = place;
            rehearsal.messages(&plugin)
        });
        Ok(told.await.and_then(Result::ok).unwrap_or_default())
    }

    /// What changed.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Loads what other settings need and is not loaded yet; the answer comes once all of it is, or is refused.
    ///
    /// # Errors
    /// [`DeskError`]: nothing changes.
    pub fn order(&self, settings: &Settings) -> Result<oneshot::Receiver<Ordered>, DeskError> {
        let (answer, answered) = oneshot::channel();
        self.send(Order::Settings { wanted: wanted(settings), answer })?;
        Ok(answered)
    }

    fn send(&self, order: Order) -> Result<(), DeskError> {
        self.orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => DeskError::Busy,
            mpsc::error::TrySendError::Closed(_) => DeskError::Stopping,
        })
    }

    /// Makes a plugin's canary live, and waits until it is. `found_good`: the gateway itself wants it of this generation.
    ///
    /// # Errors
    /// [`DeskError`]: nothing changed.
    pub async fn promote(&self, name: &str, found_good: Option<u64>) -> Result<Promoted, DeskError> {
        self.plugin(name)?;
        let (done, answer) = oneshot::channel();
        self.send(Order::Promote { plugin: name.to_owned(), found_good, done })?;
        answer.await.unwrap_or(Err(DeskError::Stopping))
    }

    /// Makes the build before live again, or withdraws the canary where there is one, and waits until that is so.
    ///
    /// # Errors
    /// [`DeskError`]: nothing changed.
    pub async fn roll_back(&self, name: &str, because: Option<Worse>) -> Result<RolledBack, DeskError> {
        self.plugin(name)?;
        let (done, answer) = oneshot::channel();
        self.send(Order::Rollback { plugin: name.to_owned(), because, done })?;
        answer.await.unwrap_or(Err(DeskError::Stopping))
    }
}
