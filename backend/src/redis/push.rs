//! What this program appends to lists: dead letters, and commands for the gateway.

use super::connect::{Connector, RedisFault};
use super::line::Line;

/// Appends, on a connection of its own.
pub struct Pusher {
    line: Line,
    list: String,
    /// The newest so many are kept; none: all.
    most: Option<u64>,
    /// It was longer, and the log says so.
    full: bool,
}

impl Pusher {
    /// To a list, by its whole key, which is kept to its newest `most` entries.
    #[must_use]
    pub fn new(connector: Connector, list: String, most: Option<u64>) -> Self {
        Self { line: Line::new(connector), list, most, full: false }
    }

    /// Appends entries, all or none.
    ///
    /// # Errors
    /// [`RedisFault::Refused`]: none is appended; [`RedisFault::Unavailable`]: they may be.
    pub async fn push(&mut self, entries: &[impl redis::ToSingleRedisArg + Sync]) -> Result<(), RedisFault> {
        if entries.is_empty() {
            return Ok(());
        }
        let length = redis::cmd("RPUSH").arg(&self.list).arg(entries).query_async::<u64>(self.line.get().await?).await;
        let length = self.line.heard(&self.list, length)?;
        let Some(most) = self.most else { return Ok(()) };
        if length <= most {
            self.full = false;
            return Ok(());
        }
        let first = -i64::try_from(most).unwrap_or(i64::MAX);
        let trimmed = redis::cmd("LTRIM").arg(&self.list).arg(first).arg(-1).exec_async(self.line.get().await?).await;
        // They are appended; where this fails the next push does it.
        if let Err(fault) = self.line.heard(&self.list, trimmed) {
            tracing::debug!(%fault, "cannot trim the dead letters");
        } else if !std::mem::replace(&mut self.full, true) {
            tracing::warn!("the oldest dead letters go: there are more than queues.dead_letters_max");
        }
        Ok(())
    }
}
