//! Which settings are in force, and how to ask for those of the file.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::Serialize;
use sluicegate_core::settings::difference::{Change, What};
use sluicegate_core::settings::table::Applies;
use sluicegate_core::settings::{Effective, table};
use tokio::sync::{mpsc, oneshot};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The start.
    Start,
    /// The file, which changed.
    File,
    /// SIGHUP.
    Signal,
    /// The admin server.
    Api,
}

/// Somebody asks for the settings of the file.
pub struct Asked {
    /// Who.
    pub by: By,
    /// Where what becomes of it is told.
    pub answer: Option<oneshot::Sender<Answer>>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Answer {
    /// The file says what is in force.
    Unchanged {
        /// The number of the settings in force.
        number: u64,
    },
    /// It is in force now.
    Applied {
        /// The number of the settings in force.
        number: u64,
        /// What changed.
        changes: Vec<Change>,
        /// Why the broker has not confirmed the subscriptions of the routes; none: it has, or they are as they were.
        #[serde(skip_serializing_if = "Option::is_none")]
        unconfirmed: Option<String>,
    },
    /// What was in force stays so.
    Refused(Refused),
}

/// Why an edit is not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Each reason, in one sentence, with the place in the file where there is one.
    pub reasons: Vec<String>,
    /// The keys that need a restart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
}

impl Refused {
    /// For these reasons.
    #[must_use]
    pub fn because(reasons: Vec<String>) -> Self {
        Self { reasons, restart: Vec::new() }
    }

    /// Where a part of it needs a restart.
    #[must_use]
    pub fn restart(changes: &[Change]) -> Option<Self> {
        let changed = |change: &&Change| change.applies == Applies::Restart && change.what != What::MayHaveChanged;
        let restart: Vec<String> = changes.iter().filter(changed).map(|change| change.key.clone()).collect();
        if restart.is_empty() {
            return None;
        }
        let keys = restart.join(", ");
        let reason = format!("needs a restart: {keys}; restart the gateway, or take that back to apply the rest");
        Some(Self { reasons: vec![reason], restart })
    }
}

/// The settings in force.
#[derive(Debug, Clone, Serialize)]
pub struct InForce {
    /// 1 for those of the start, and one more with each change.
    pub number: u64,
    /// Since when.
    pub since: Timestamp,
    /// Who asked for them.
    pub by: By,
    /// The file that they are from; none: there is none.
    pub file: Option<String>,
    /// Each key, its value (secrets masked) and where that came from.
    pub keys: Vec<Effective>,
}

impl InForce {
    /// How a change of a key applies.
    #[must_use]
    pub fn applies(key: &str) -> Applies {
        table::at(key).map_or(Applies::Live, |key| key.applies)
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    asks: mpsc::Sender<Asked>,
    in_force: Arc<ArcSwap<InForce>>,
}

impl Desk {
    /// `asks` go to [`super::propose::Proposer`].
    #[must_use]
    pub fn new(asks: mpsc::Sender<Asked>, in_force: Arc<ArcSwap<InForce>>) -> Self {
        Self { asks, in_force }
    }

    /// The settings in force.
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Asks for those of the file, and waits for what becomes of it; none: the gateway ends.
    pub async fn reload(&self) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Asked { by: By::Api, answer: Some(answer) }).await.ok()?;
        answered.await.ok()
    }

    /// Asks without waiting. Where others wait already, the file is read after this all the same.
    pub fn ask(&self, by: By) {
        let _ = self.asks.try_send(Asked { by, answer: None });
    }
}
