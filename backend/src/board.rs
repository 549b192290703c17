//! What is so at the moment, for whoever asks: what was done, and what does not work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::metrics;

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Where jobs come from.
    Redis,
    /// Where they go.
    Database,
}

/// Counters and troubles. The lock is held for a look only.
#[derive(Debug, Default)]
pub struct Board {
    committed: AtomicU64,
    dead: AtomicU64,
    /// The tables are as this program wants them.
    prepared: AtomicBool,
    redis: AtomicBool,
    database: AtomicBool,
    troubles: Mutex<BTreeMap<String, String>>,
    refused: Mutex<Option<RefusedEdit>>,
}

/// An edit of the settings that is not in force.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RefusedEdit {
    /// When it was looked at last.
    pub at: Timestamp,
    /// Each reason, in one sentence.
    pub reasons: Vec<String>,
    /// What needs a restart.
    pub restart: Vec<String>,
}

/// What the board says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Said {
    /// Jobs that the database has.
    pub committed: u64,
    /// Jobs that are dead letters.
    pub dead: u64,
    /// What does not work, and why.
    pub troubles: BTreeMap<String, String>,
}

impl Board {
    /// So many jobs are committed, and so many are dead letters.
    pub fn done(&self, committed: usize, dead: usize) {
        self.committed.fetch_add(committed as u64, Ordering::Relaxed);
        self.dead.fetch_add(dead as u64, Ordering::Relaxed);
    }

    /// The settings file holds an edit that is refused, or none any more.
    pub fn refused(&self, edit: Option<RefusedEdit>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = edit;
    }

    /// The edit that is refused.
    #[must_use]
    pub fn refused_edit(&self) -> Option<RefusedEdit> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something does not work, or works again. True: that is news.
    pub fn trouble(&self, part: &str, why: Option<&str>) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let news = match why {
            Some(why) => troubles.insert(part.to_owned(), why.to_owned()).is_none(),
            None => troubles.remove(part).is_some(),
        };
        metrics::troubles(troubles.len());
        news
    }

    /// Whether a server answered when it was asked last.
    pub fn reached(&self, server: Server, up: bool) {
        let (state, name) = match server {
            Server::Redis => (&self.redis, "redis"),
            Server::Database => (&self.database, "database"),
        };
        state.store(up, Ordering::Relaxed);
        metrics::connected(name, up);
    }

    /// The tables are as this program wants them.
    pub fn prepared(&self) {
        self.prepared.store(true, Ordering::Relaxed);
    }

    /// Whether they are.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Relaxed)
    }

    /// Why this process does not do all of its work; empty: it does. Without the servers' words: everybody may ask.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (good, reason) in [
            (&self.redis, "Redis does not answer, or was not asked yet"),
            (&self.database, "the database does not answer, or was not asked yet"),
            (&self.prepared, "the tables are not looked at yet"),
        ] {
            if !good.load(Ordering::Relaxed) {
                reasons.push(reason.to_owned());
            }
        }
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.extend(troubles.keys().map(|part| format!("{part} does not work; /api/status says why")));
        reasons
    }

    /// All of it.
    pub fn said(&self) -> Said {
        Said {
            committed: self.committed.load(Ordering::Relaxed),
            dead: self.dead.load(Ordering::Relaxed),
            troubles: self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// What people see of a part that each list has.
#[must_use]
pub fn of_list(part: &str, list: &str) -> String {
    format!("{part} ({list})")
}

/// Waits longer each time, and tells the log once when a trouble begins and once when it is over.
pub struct Patience<'a> {
    board: &'a Board,
    part: String,
    backoff: sluicegate_core::backoff::Backoff,
}

impl<'a> Patience<'a> {
    /// For a part, by the name that people see.
    #[must_use]
    pub fn new(board: &'a Board, part: &str) -> Self {
        Self { board, part: part.to_owned(), backoff: sluicegate_core::backoff::Backoff::for_servers() }
    }

    /// For a part that each list has: where it works for one, it may not for another.
    #[must_use]
    pub fn with_list(board: &'a Board, part: &str, list: &str) -> Self {
        Self::new(board, &of_list(part, list))
    }

    /// It works.
    pub fn good(&mut self) {
        self.backoff.reset();
        if self.board.trouble(&self.part, None) {
            tracing::info!(part = self.part, "it works again");
        }
    }

    /// It does not: how long to wait before the next try. For ever, since nothing is given up while a server is away.
    pub fn bad(&mut self, why: &impl std::fmt::Display) -> std::time::Duration {
        let why = why.to_string();
        if self.board.trouble(&self.part, Some(&why)) {
            tracing::warn!(part = self.part, reason = why, "it does not work; trying again");
        }
        self.backoff.next(crate::clock::chance())
    }
}
