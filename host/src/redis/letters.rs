//! The list of dead letters, for whoever looks at it: page by page, from the oldest.

use bytes::Bytes;
use redis::{FromRedisValue, Pipeline, RedisResult};

use super::connect::{Connector, RedisFault};
use super::wire::Wire;

/// Reads and edits the list on a connection of its own.
pub struct Letters {
    connector: Connector,
    connection: Option<Wire>,
    list: String,
    commands: String,
}

impl Letters {
    /// `list` is the whole key of the dead letters, `commands` of the list that commands are taken from.
    #[must_use]
    pub fn new(connector: Connector, list: String, commands: String) -> Self {
        Self { connector, connection: None, list, commands }
    }

    /// How many there are.
    ///
    /// # Errors
    /// [`RedisFault`], where there is no answer or it is a refusal.
    pub async fn length(&mut self) -> Result<u64, RedisFault> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("LLEN").arg(&self.list);
        self.execute::<(u64,)>(&pipeline).await.map(|(length,)| length)
    }

    /// So many entries from this place on, the oldest being 0.
    ///
    /// # Errors
    /// [`RedisFault`], where there is no answer or it is a refusal.
    pub async fn page(&mut self, from: u64, count: u64) -> Result<Vec<Bytes>, RedisFault> {
        let mut pipeline = redis::pipe();
        let last = from.saturating_add(count).saturating_sub(1);
        pipeline.cmd("LRANGE").arg(&self.list).arg(from).arg(last);
        self.execute::<(Vec<Bytes>,)>(&pipeline).await.map(|(entries,)| entries)
    }

    /// Takes entries off the list; gives back how many stood there.
    ///
    /// # Errors
    /// [`RedisFault`]: any of them may be gone; taking them off again does no harm.
    pub async fn remove(&mut self, entries: &[Bytes]) -> Result<u64, RedisFault> {
        let mut pipeline = redis::pipe();
        for entry in entries {
            pipeline.cmd("LREM").arg(&self.list).arg(1).arg(entry.as_ref());
        }
        if pipeline.is_empty() {
            return Ok(0);
        }
        self.execute::<Vec<u64>>(&pipeline).await.map(|removed| removed.into_iter().sum())
    }

    /// Appends a command to the list that commands are taken from.
    ///
    /// # Errors
    /// [`RedisFault`]: it may have been appended.
    pub async fn command(&mut self, command: &[u8]) -> Result<(), RedisFault> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("RPUSH").arg(&self.commands).arg(command);
        self.execute::<(u64,)>(&pipeline).await.map(|_| ())
    }

    async fn execute<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, RedisFault> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connector.connect().await?,
        };
        let result: RedisResult<T> = pipeline.query_async(&mut connection).await;
        match result {
            Ok(value) => {
                self.connection = Some(connection);
                Ok(value)
            }
            Err(error) if error.code().is_some() => {
                self.connection = Some(connection);
                Err(RedisFault::answered(&self.list, &error))
            }
            Err(error) => Err(error.into()),
        }
    }
}
