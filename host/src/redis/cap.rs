//! A list that is kept to its newest entries.

use redis::aio::ConnectionLike;

use crate::telemetry::metrics;

/// How long the list of dead letters may become.
#[derive(Debug)]
pub(super) struct Cap {
    most: u64,
    /// It was longer, and the log says so.
    full: bool,
}

impl Cap {
    pub(super) fn new(most: u64) -> Self {
        Self { most, full: false }
    }

    /// The list has this length now: the oldest dead letters go, and are counted. Where that fails the next push does it.
    pub(super) async fn keep(&mut self, connection: &mut impl ConnectionLike, list: &str, length: u64) {
        let letters = length.saturating_sub(self.most);
        if letters == 0 {
            self.full = false;
            return;
        }
        let first = -i64::try_from(self.most).unwrap_or(i64::MAX);
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
