//! Commands: moved from the back end's list into this instance's processing list, where they stand until they are settled.

use std::time::Duration;

use bytes::Bytes;

use super::claim::Claims;
use super::connect::{Connector, RedisFault};
use super::wire::Wire;

/// How long one blocking move may wait in the server.
const BLOCK: Duration = Duration::from_secs(5);
/// A server that is silent for longer than a blocking move lasts is away.
const SILENCE: Duration = Duration::from_secs(10);
/// The most that is moved in one round trip.
const MOST: usize = 256;

/// Pops on a connection of its own: a blocking pop holds up whatever shares its connection.
pub struct Popper {
    connector: Connector,
    connection: Option<Wire>,
    outgoing: String,
    processing: String,
    claims: Claims,
    ask: usize,
}

impl Popper {
    /// From `outgoing` into `processing`: whole keys, which lie in one cluster slot.
    #[must_use]
    pub fn new(connector: Connector, outgoing: String, processing: String, claims: Claims) -> Self {
        Self { connector, connection: None, outgoing, processing, claims, ask: 0 }
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether the last look left commands behind, as far as is known.
    #[must_use]
    pub fn expects_more(&self) -> bool {
        self.ask > 0
    }

    /// What stands in the processing list, oldest first. Makes the connection, where there is none.
    ///
    /// # Errors
    /// [`RedisFault`]: where there is no answer, commands may have been moved.
    pub async fn standing(&mut self) -> Result<Vec<Bytes>, RedisFault> {
        if self.connection.is_none() {
            self.connection = Some(self.connector.connect_for_blocking().await?);
        }
        let Some(connection) = &mut self.connection else { return Ok(Vec::new()) };
        let mut command = redis::cmd("LRANGE");
        command.arg(&self.processing).arg(0).arg(-1);
        let standing = within(&self.processing, command.query_async::<Vec<Vec<u8>>>(connection)).await;
        Ok(self.keep(standing)?.into_iter().map(Bytes::from).collect())
    }

    /// Whether each `message_id` is to be sent, or was sent already; empty ones are always to be sent.
    ///
    /// # Errors
    /// [`RedisFault`]: where there is no answer, commands may have been moved.
    pub async fn claim(&mut self, ids: &[&str]) -> Result<Vec<bool>, RedisFault> {
        let mut free = vec![true; ids.len()];
        let named: Vec<usize> = (0..ids.len()).filter(|index| !ids[*index].is_empty()).collect();
        if named.is_empty() || !self.claims.are_kept() {
            return Ok(free);
        }
        let Some(connection) = &mut self.connection else {
            return Err(RedisFault::Unavailable("no connection".to_owned()));
        };
        let wanted: Vec<&str> = named.iter().map(|index| ids[*index]).collect();
        let claimed = tokio::time::timeout(SILENCE, self.claims.claim(connection, &wanted)).await;
        let claimed = claimed.unwrap_or_else(|_| Err(silent()));
        for (index, claimed) in named.into_iter().zip(self.keep(claimed)?) {
            free[index] = claimed;
        }
        Ok(free)
    }

    /// Moves up to `room` commands, oldest first; waits a few seconds for the first one. None may have come.
    ///
    /// # Errors
    /// [`RedisFault`]: where there is no answer, commands may have been moved.
    ///
    /// # Cancel safety
    /// Dropped, commands may have been moved that nobody was told of: they stand in the processing list.
    pub async fn pop(&mut self, room: usize) -> Result<Vec<Bytes>, RedisFault> {
        let result = self.try_pop(room).await;
        self.keep(result)
    }

    async fn try_pop(&mut self, room: usize) -> Result<Vec<Bytes>, RedisFault> {
        let Some(connection) = &mut self.connection else { return Ok(Vec::new()) };
        if self.ask > 0 {
            let asked = self.ask.min(room);
            let mut pipeline = redis::pipe();
            for _ in 0..asked {
                pipeline.cmd("LMOVE").arg(&self.outgoing).arg(&self.processing).arg("LEFT").arg("RIGHT");
            }
            let moved = within(&self.outgoing, pipeline.query_async::<Vec<Option<Vec<u8>>>>(connection)).await?;
            let moved: Vec<Bytes> = moved.into_iter().flatten().map(Bytes::from).collect();
            self.ask = if moved.len() == asked { (self.ask * 4).min(MOST) } else { 0 };
            if !moved.is_empty() {
                return Ok(moved);
            }
        }
        let mut command = redis::cmd("BLMOVE");
        command.arg(&self.outgoing).arg(&self.processing).arg("LEFT").arg("RIGHT").arg(BLOCK.as_secs());
        let moved = within(&self.outgoing, command.query_async::<Option<Vec<u8>>>(connection)).await?;
        // Where one came, more may stand there: they are asked for without waiting, more each time.
        self.ask = if moved.is_some() { 4 } else { 0 };
        Ok(moved.map(Bytes::from).into_iter().collect())
    }

    fn keep<T>(&mut self, result: Result<T, RedisFault>) -> Result<T, RedisFault> {
        if result.is_err() {
            self.connection = None;
        }
        result
    }
}

/// `key` is the list that an answer that says no is about.
async fn within<T>(key: &str, answer: impl Future<Output = redis::RedisResult<T>>) -> Result<T, RedisFault> {
    match tokio::time::timeout(SILENCE, answer).await {
        Ok(answer) => answer.map_err(|error| RedisFault::answered(key, &error)),
        Err(_) => Err(silent()),
    }
}

fn silent() -> RedisFault {
    RedisFault::Unavailable(format!("no answer within {SILENCE:?}"))
}
