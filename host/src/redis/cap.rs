//! A list that is kept to its newest entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::aio::ConnectionLike;

use crate::telemetry::metrics;

/// How long a list may become. Clones change together.
#[derive(Debug, Clone)]
pub struct Most(Arc<AtomicU64>);

impl Most {
    /// So many entries.
    #[must_use]
    pub fn new(entries: u64) -> Self {
        Self(Arc::new(AtomicU64::new(entries)))
    }

    /// So many from now on; what is too many by then goes with the next push.
    pub fn set(&self, entries: u64) {
        self.0.store(entries, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps the list of dead letters so long.
#[derive(Debug)]
pub(super) struct Cap {
    most: Most,
    /// It was longer, and the log says so.
    full: bool,
}

impl Cap {
    pub(super) fn new(most: Most) -> Self {
        Self { most, full: false }
    }

    /// The list has this length now: the oldest dead letters go, and are counted. Where that fails the next push does it.
    pub(super) async fn keep(&mut self, connection: &mut impl ConnectionLike, list: &str, length: u64) {
        let most = self.most.get();
        let letters = length.saturating_sub(most);
        if letters == 0 {
            self.full = false;
            return;
        }
        let first = -i64::try_from(most).unwrap_or(i64::MAX);
        match redis::cmd("LTRIM").arg(list).arg(first).arg(-1).exec_async(connection).await {
            Ok(()) => {
                metrics::trimmed(letters);
                if !std::mem::replace(&mut self.full, true) {
                    tracing::warn!(letters, "the oldest dead letters go: there are more than queues.dead_letters_max");
                }
            }
            Err(error) => tracing::debug!(%error, "cannot trim the dead letters"),
        }
    }
}
