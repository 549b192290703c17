//! What became of commands: many in one round trip; and the lengths of lists.

use bytes::Bytes;
use sluicegate_core::keys::Keys;

use super::claim::{Claims, SENT};
use super::connect::{Connector, RedisFault};
use super::wire::Wire;

/// The newest so many results of commands are kept: a list that nobody reads must not fill Redis.
const MAX_RESULTS: i64 = 100_000;

/// What became of one command.
#[derive(Debug, Clone, Default)]
pub struct Settlement {
    /// It leaves the processing list; none: it stays.
    pub done: Option<Bytes>,
    /// Its `message_id`, and whether it was sent.
    pub id: Option<(String, bool)>,
    /// Its dead letter.
    pub dead: Option<Bytes>,
    /// For the list of results.
    pub result: Option<Bytes>,
}

/// Pushes on a connection of its own.
pub struct Pusher {
    connector: Connector,
    connection: Option<Wire>,
    keys: Keys,
    dead_letters_max: u64,
}

impl Pusher {
    /// The list of dead letters is kept to its newest `dead_letters_max` entries.
    #[must_use]
    pub fn new(connector: Connector, keys: Keys, dead_letters_max: u64) -> Self {
        Self { connector, connection: None, keys, dead_letters_max }
    }

    async fn connection(&mut self) -> Result<&mut Wire, RedisFault> {
        if self.connection.is_none() {
            self.connection = Some(self.connector.connect().await?);
        }
        self.connection.as_mut().ok_or_else(|| RedisFault::Unavailable("no connection".to_owned()))
    }

    /// Writes down what became of commands, and takes them off the processing list: one entry each. What is written is taken out of
    /// `settlements`, so that it is not written again where a later step fails and all is done again.
    ///
    /// # Errors
    /// [`RedisFault`]: some of it may be done; the caller does the rest again (at least once).
    ///
    /// # Cancel safety
    /// Dropped, any of it may be done.
    pub async fn settle(&mut self, settlements: &mut [Settlement], claims: &Claims) -> Result<(), RedisFault> {
        // A command leaves the processing list only when all that is to be known of it stands somewhere.
        let dead: Vec<&[u8]> = settlements.iter().filter_map(|one| one.dead.as_deref()).collect();
        if !dead.is_empty() {
            let most = i64::try_from(self.dead_letters_max).unwrap_or(i64::MAX);
            let pipeline = append(&self.keys.dead_letters, &dead, most);
            self.execute(&pipeline).await?;
            settlements.iter_mut().for_each(|one| one.dead = None);
        }
        let results: Vec<&[u8]> = settlements.iter().filter_map(|one| one.result.as_deref()).collect();
        if let Some(list) = self.keys.results.clone().filter(|_| !results.is_empty()) {
            let pipeline = append(&list, &results, MAX_RESULTS);
            match self.execute(&pipeline).await {
                Err(fault @ RedisFault::Refused { .. }) => {
                    tracing::warn!(%fault, "what became of commands cannot be told (queues.command_results)");
                }
                other => other?,
            }
            settlements.iter_mut().for_each(|one| one.result = None);
        }
        let mut pipeline = redis::pipe();
        for one in &*settlements {
            if let Some(((key, millis), sent)) = one.id.as_ref().and_then(|(id, sent)| Some((claims.key(id)?, *sent))) {
                if sent {
                    pipeline.cmd("SET").arg(key).arg(SENT).arg("PX").arg(millis).ignore();
                } else {
                    // The back end may push it again, mended.
                    pipeline.cmd("DEL").arg(key).ignore();
                }
            }
            if let Some(raw) = &one.done {
                pipeline.cmd("LREM").arg(&self.keys.processing).arg(1).arg(raw.as_ref()).ignore();
            }
        }
        self.execute(&pipeline).await
    }

    /// The length of a list.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn length(&mut self, key: &str) -> Result<u64, RedisFault> {
        let result = redis::cmd("LLEN").arg(key).query_async::<u64>(self.connection().await?).await;
        self.keep(result)
    }

    /// What the server that has a list does when it is full (`maxmemory-policy`); none: it does not say.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn eviction_policy(&mut self, key: &str) -> Result<Option<String>, RedisFault> {
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let result = self.connection().await?.at::<String>(key, info).await;
        let memory = self.keep(result)?;
        let policy = memory.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
        Ok(policy.map(|policy| policy.trim().to_owned()))
    }

    async fn execute(&mut self, pipeline: &redis::Pipeline) -> Result<(), RedisFault> {
        if pipeline.is_empty() {
            return Ok(());
        }
        match pipeline.query_async::<()>(self.connection().await?).await {
            Err(error) if error.code().is_some() => Err(RedisFault::answered("commands", &error)),
            result => self.keep(result),
        }
    }

    /// After any error the connection is made anew: what is still under way on it belongs to nobody.
    fn keep<T>(&mut self, result: Result<T, redis::RedisError>) -> Result<T, RedisFault> {
        if result.is_err() {
            self.connection = None;
        }
        Ok(result?)
    }
}

/// Appends to a list, and keeps it to its newest entries.
fn append(list: &str, entries: &[&[u8]], most: i64) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("RPUSH").arg(list).arg(entries).ignore();
    pipeline.cmd("LTRIM").arg(list).arg(-most).arg(-1).ignore();
    pipeline
}
