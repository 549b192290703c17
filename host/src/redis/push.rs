//! Jobs and dead letters: many in one round trip.

use std::sync::Arc;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;

use super::connect::{Connector, RedisFault};

/// One entry for one list.
#[derive(Debug, Clone)]
pub struct Push {
    /// The list's whole key.
    pub key: Arc<str>,
    /// What is appended.
    pub value: Bytes,
}

/// Pushes on a connection of its own.
pub struct Pusher {
    connector: Connector,
    connection: Option<MultiplexedConnection>,
    dead_letters: Arc<str>,
    dead_letters_max: u64,
}

impl Pusher {
    /// `dead_letters` is the list that is kept to its newest `dead_letters_max` entries.
    #[must_use]
    pub fn new(connector: Connector, dead_letters: Arc<str>, dead_letters_max: u64) -> Self {
        Self { connector, connection: None, dead_letters, dead_letters_max }
    }

    /// Makes the connection, where there is none.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn connect(&mut self) -> Result<(), RedisFault> {
        if self.connection.is_none() {
            self.connection = Some(self.connector.connect().await?);
        }
        Ok(())
    }

    /// Appends all of them: one RPUSH for each list, entries of one list in their order.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`]: some of them may have been appended all the same; the caller pushes all again (at least
    /// once).
    ///
    /// # Cancel safety
    /// Dropped, any of them may have been appended.
    pub async fn push(&mut self, pushes: &[&Push]) -> Result<(), RedisFault> {
        self.connect().await?;
        let pipeline = self.pipeline(pushes);
        self.execute(&pipeline).await
    }

    /// Takes commands off the processing list, one entry each.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`], as in [`Self::push`].
    pub async fn settle(&mut self, dead: &[&Push], processing: &str, done: &[Bytes]) -> Result<(), RedisFault> {
        self.connect().await?;
        // The dead letters first: a command leaves the processing list only when its outcome stands somewhere.
        let mut pipeline = self.pipeline(dead);
        for raw in done {
            pipeline.cmd("LREM").arg(processing).arg(1).arg(raw.as_ref()).ignore();
        }
        self.execute(&pipeline).await
    }

    /// The length of a list.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn length(&mut self, key: &str) -> Result<u64, RedisFault> {
        self.connect().await?;
        let Some(connection) = &mut self.connection else { return Ok(0) };
        let result = redis::cmd("LLEN").arg(key).query_async::<u64>(connection).await;
        self.keep(result)
    }

    fn pipeline(&self, pushes: &[&Push]) -> redis::Pipeline {
        let mut by_key: Vec<(&str, redis::Cmd)> = Vec::new();
        for push in pushes {
            let index = by_key.iter().position(|(key, _)| **key == *push.key).unwrap_or_else(|| {
                let mut command = redis::cmd("RPUSH");
                command.arg(&*push.key);
                by_key.push((&push.key, command));
                by_key.len() - 1
            });
            by_key[index].1.arg(push.value.as_ref());
        }
        let mut pipeline = redis::pipe();
        for (key, command) in by_key {
            pipeline.add_command(command).ignore();
            if key == &*self.dead_letters {
                let first = -i64::try_from(self.dead_letters_max).unwrap_or(i64::MAX);
                pipeline.cmd("LTRIM").arg(key).arg(first).arg(-1).ignore();
            }
        }
        pipeline
    }

    async fn execute(&mut self, pipeline: &redis::Pipeline) -> Result<(), RedisFault> {
        if pipeline.is_empty() {
            return Ok(());
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let result = pipeline.query_async::<()>(connection).await;
        self.keep(result)
    }

    /// After any error the connection is made anew: what is still under way on it belongs to nobody.
    fn keep<T>(&mut self, result: Result<T, redis::RedisError>) -> Result<T, RedisFault> {
        if result.is_err() {
            self.connection = None;
        }
        Ok(result?)
    }
}
