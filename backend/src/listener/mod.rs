//! Jobs from a list into the database, each once.
//!
//! - [`lease`]: keeps this instance's lease; what instances without one left is taken over.
//! - `take`: moves jobs into the processing list, batch by batch.
//! - `begin`: at a start, or after a lapse: what the database has already leaves the list.
//! - `lane`: commits the jobs of one lane; what the database refuses is found and set aside.
//! - [`run`]: batch after batch.

mod begin;
mod lane;
pub mod lease;
pub mod run;
mod take;

use std::sync::Arc;
use std::time::Duration;

use crate::board::Board;
use crate::database::Database;
use crate::domain::job::Source;
use crate::domain::plan::Rules;
use crate::redis::connect::Connector;
use crate::redis::lists::ListKeys;

/// What a listener is made of. Clones share what is shared.
#[derive(Clone)]
pub struct Parts {
    /// Where jobs come from.
    pub redis: Connector,
    /// Where they go.
    pub database: Database,
    /// What is so at the moment.
    pub board: Arc<Board>,
    /// Who this is, among several.
    pub instance: String,
    /// The list, as the settings call it.
    pub list: String,
    /// Its keys.
    pub keys: ListKeys,
    /// What its entries are.
    pub source: Source,
    /// How jobs are taken.
    pub rules: Rules,
    /// The most jobs of a batch.
    pub batch: usize,
    /// Transactions at once.
    pub lanes: u32,
    /// How often a job that the database refuses is tried.
    pub attempts: u32,
    /// Of one machine, kind and code one alert is told in this time.
    pub window: Duration,
    /// Dead letters: the whole key, and how many are kept.
    pub dead_letters: (String, u64),
}

impl Parts {
    /// What the database calls an instance's part in a list.
    #[must_use]
    pub fn name(&self, instance: &str) -> String {
        format!("{instance}@{}", self.keys.list)
    }
}
