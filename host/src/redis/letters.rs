//! The list of dead letters, for whoever looks at it: page by page, from the oldest.

use bytes::Bytes;
use redis::Pipeline;

use super::connect::{Connector, RedisFault};
use super::line::Line;

/// Reads and edits the list on a connection of its own.
pub struct Letters {
    line: Line,
    list: String,
    commands: String,
}

impl Letters {
    /// `list` is the whole key of the dead letters, `commands` of the list that commands are taken from.
    #[must_use]
    pub fn new(connector: Connector, list: String, commands: String) -> Self {
        Self { line: Line::new(connector), list, commands }
    }

    /// How many there are.
    ///
    /// # Errors
    /// [`RedisFault`], where there is no answer or it is a refusal.
    pub async fn length(&mut self) -> Result<u64, RedisFault> {
        let length = redis::cmd("LLEN").arg(&self.list).query_async(self.line.get().await?).await;
        self.line.heard(&self.list, length)
    }

    /// So many entries from this place on, the oldest being 0.
    ///
    /// # Errors
    /// [`RedisFault`], where there is no answer or it is a refusal.
    pub async fn page(&mut self, from: u64, count: u64) -> Result<Vec<Bytes>, RedisFault> {
        let last = from.saturating_add(count).saturating_sub(1);
        let page = redis::cmd("LRANGE").arg(&self.list).arg(from).arg(last).query_async(self.line.get().await?).await;
        self.line.heard(&self.list, page)
    }

    /// Takes entries off the list; gives back how many stood there.
    ///
    /// # Errors
    /// [`RedisFault`]: any of them may be gone; taking them off again does no harm.
    pub async fn remove(&mut self, entries: &[Bytes]) -> Result<u64, RedisFault> {
        let mut pipeline = Pipeline::new();
        for entry in entries {
            pipeline.cmd("LREM").arg(&self.list).arg(1).arg(entry.as_ref());
        }
        if pipeline.is_empty() {
            return Ok(0);
        }
        let removed = pipeline.query_async::<Vec<u64>>(self.line.get().await?).await;
        Ok(self.line.heard(&self.list, removed)?.into_iter().sum())
    }

    /// Appends a command to the list that commands are taken from.
    ///
    /// # Errors
    /// [`RedisFault`]: it may have been appended.
    pub async fn command(&mut self, command: &[u8]) -> Result<(), RedisFault> {
        let pushed = redis::cmd("RPUSH").arg(&self.commands).arg(command).exec_async(self.line.get().await?).await;
        self.line.heard(&self.commands, pushed)
    }
}
