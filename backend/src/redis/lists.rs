//! A list that this program takes from: jobs are moved into this listener's processing list, stand there until the database has them, and
//! leave it batch by batch, from the front.

use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;

use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::script::Script;

/// How long one blocking move may wait in the server.
const BLOCK: Duration = Duration::from_secs(2);
/// A server that is silent for longer than a blocking move lasts is away.
const SILENCE: Duration = Duration::from_secs(7);
/// The first that are asked for without waiting.
const FIRST: usize = 8;
/// Put in the place of a job before it is taken off: no JSON is this.
const TAKEN_OFF: &str = "\0taken off";

/// Takes the first so many entries off, as the batch behind ARGV[1]; done once however often it is asked for. 0: another batch was settled
/// there, so it is not this process's list any more. LTRIM comes first: it needs no memory, and what comes after a write in a script is done
/// without any. KEYS: processing list, settled; ARGV: the batch before, this batch, entries.
const SETTLE: &str = r"
local settled = redis.call('GET', KEYS[2])
if settled == ARGV[2] then return 1 end
if settled ~= ARGV[1] then return 0 end
redis.call('LTRIM', KEYS[1], ARGV[3], -1)
redis.call('SET', KEYS[2], ARGV[2])
return 1
";
/// Takes the entries at some places off, where nothing was settled since those were found. 0: something was.
/// KEYS: processing list, settled; ARGV: settled then (or empty), settled now, mark, places.
const MEND: &str = r"
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
for i = 4, #ARGV do redis.call('LSET', KEYS[1], ARGV[i], ARGV[3]) end
redis.call('LREM', KEYS[1], 0, ARGV[3])
redis.call('SET', KEYS[2], ARGV[2])
return 1
";
/// The same for a listener without a lease; the rest goes back to the head of the list, in its order, all of it at once, since the next part
/// would go before this one. -1: it has a lease; -2: something was settled since.
/// KEYS: lease, processing list, list, instances, settled; ARGV: name, settled then (or empty), settled now, mark, places.
const TAKE_OVER: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
if (redis.call('GET', KEYS[5]) or '') ~= ARGV[2] then return -2 end
for i = 5, #ARGV do redis.call('LSET', KEYS[2], ARGV[i], ARGV[4]) end
redis.call('LREM', KEYS[2], 0, ARGV[4])
local moved = 0
while redis.call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT') do moved = moved + 1 end
redis.call('SREM', KEYS[4], ARGV[1])
redis.call('SET', KEYS[5], ARGV[3])
return moved
";

/// The keys of a list, prefix included. What is changed in one step must lie in one cluster slot, so the braces hold the list's whole key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListKeys {
    /// The list itself.
    pub list: String,
    /// The names of all instances that take from it.
    pub instances: String,
}

impl ListKeys {
    /// Of a list, by its whole key.
    #[must_use]
    pub fn new(list: String) -> Self {
        Self { instances: format!("{{{list}}}:instances"), list }
    }

    /// What stands under way at an instance.
    #[must_use]
    pub fn processing(&self, instance: &str) -> String {
        format!("{{{}}}:processing:{instance}", self.list)
    }

    /// The number of the last batch that left it.
    #[must_use]
    pub fn settled(&self, instance: &str) -> String {
        format!("{{{}}}:settled:{instance}", self.list)
    }

    /// Its lease.
    #[must_use]
    pub fn lease(&self, instance: &str) -> String {
        format!("{{{}}}:lease:{instance}", self.list)
    }

    /// How often it has started.
    #[must_use]
    pub fn starts(&self, instance: &str) -> String {
        format!("{{{}}}:starts:{instance}", self.list)
    }
}

/// Moves jobs, on a connection of its own: a blocking move holds up whatever shares its connection.
pub struct Taker {
    connector: Connector,
    connection: Option<MultiplexedConnection>,
    list: String,
    processing: String,
    /// How many are asked for at once: more each time, while there are as many. Nothing: the next one is waited for.
    ask: usize,
}

impl Taker {
    /// For an instance.
    #[must_use]
    pub fn new(connector: Connector, keys: &ListKeys, instance: &str) -> Self {
        let processing = keys.processing(instance);
        Self { connector, connection: None, list: keys.list.clone(), processing, ask: FIRST }
    }

    /// Moves up to `most` jobs, oldest first; waits a few seconds for the first one. None may have come.
    ///
    /// # Errors
    /// [`RedisFault`]: jobs may have been moved that nobody was told of. They stand in the processing list.
    ///
    /// # Cancel safety
    /// Dropped, the same.
    pub async fn take(&mut self, most: usize) -> Result<Vec<Bytes>, RedisFault> {
        let taken = self.try_take(most).await;
        if taken.is_err() {
            self.connection = None;
        }
        taken
    }

    async fn try_take(&mut self, most: usize) -> Result<Vec<Bytes>, RedisFault> {
        if self.connection.is_none() {
            self.connection = Some(self.connector.connect_for_blocking().await?);
        }
        let Some(connection) = &mut self.connection else { return Ok(Vec::new()) };
        let mut moved = Vec::new();
        if self.ask == 0 {
            let mut command = redis::cmd("BLMOVE");
            command.arg(&self.list).arg(&self.processing).arg("LEFT").arg("RIGHT").arg(BLOCK.as_secs());
            let first = within(&self.list, command.query_async::<Option<Vec<u8>>>(connection)).await?;
            let Some(first) = first else { return Ok(moved) };
            moved.push(Bytes::from(first));
            self.ask = FIRST;
        }
        while self.ask > 0 && moved.len() < most {
            let asked = self.ask.min(most - moved.len());
            let mut pipeline = redis::pipe();
            for _ in 0..asked {
                pipeline.cmd("LMOVE").arg(&self.list).arg(&self.processing).arg("LEFT").arg("RIGHT");
            }
            let came = within(&self.list, pipeline.query_async::<Vec<Option<Vec<u8>>>>(connection)).await?;
            let before = moved.len();
            moved.extend(came.into_iter().flatten().map(Bytes::from));
            self.ask = if moved.len() - before == asked { (self.ask * 4).min(most) } else { 0 };
        }
        Ok(moved)
    }
}

async fn within<T>(key: &str, answer: impl Future<Output = redis::RedisResult<T>>) -> Result<T, RedisFault> {
    match tokio::time::timeout(SILENCE, answer).await {
        Ok(answer) => answer.map_err(|error| RedisFault::answered(key, &error)),
        Err(_) => Err(RedisFault::Unavailable(format!("no answer within {SILENCE:?}"))),
    }
}

/// What stands in a processing list, and the number of the last batch that left it.
#[derive(Debug, Default)]
pub struct Standing {
    /// As Redis has it; none: it has none.
    pub settled: Option<u64>,
    /// The entries, oldest first.
    pub entries: Vec<Bytes>,
}

/// What became of an attempt to take over.
#[derive(Debug, PartialEq, Eq)]
pub enum TakenOver {
    /// So many went back to the list.
    Moved(usize),
    /// It has a lease, or is at work: it is not to be taken over, or not yet.
    Not,
}

/// Looks at processing lists and takes off them, on a connection of its own.
pub struct Keeper {
    line: Line,
    keys: ListKeys,
    settle: Script,
    mend: Script,
    take_over: Script,
}

impl Keeper {
    /// For a list.
    #[must_use]
    pub fn new(connector: Connector, keys: ListKeys) -> Self {
        Self {
            line: Line::new(connector),
            keys,
            settle: Script::new(SETTLE),
            mend: Script::new(MEND),
            take_over: Script::new(TAKE_OVER),
        }
    }

    /// What stands in an instance's processing list.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn standing(&mut self, instance: &str) -> Result<Standing, RedisFault> {
        let (processing, settled) = (self.keys.processing(instance), self.keys.settled(instance));
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("GET").arg(&settled).cmd("LRANGE").arg(&processing).arg(0).arg(-1);
        let answer = pipeline.query_async::<(Option<u64>, Vec<Vec<u8>>)>(self.line.get().await?).await;
        let (settled, entries) = self.line.heard(&processing, answer)?;
        Ok(Standing { settled, entries: entries.into_iter().map(Bytes::from).collect() })
    }

    /// A batch is committed: its entries, the first so many, leave the list. After an error the same is to be asked for again. False: the list
    /// is not this process's any more.
    ///
    /// # Errors
    /// [`RedisFault`]: it may be done.
    pub async fn settle(&mut self, instance: &str, batch: u64, size: usize) -> Result<bool, RedisFault> {
        let (processing, settled) = (self.keys.processing(instance), self.keys.settled(instance));
        let arguments = [batch.saturating_sub(1), batch, size as u64].map(|number| number.to_string());
        let answer = self.settle.run::<i64>(self.line.get().await?, &[&processing, &settled], &arguments).await;
        Ok(self.line.heard(&processing, answer)? == 1)
    }

    /// What the database has already leaves the list. False: something was settled since `before` was looked up.
    ///
    /// # Errors
    /// [`RedisFault`]: it may be done.
    pub async fn mend(
        &mut self,
        instance: &str,
        before: Option<u64>,
        now: u64,
        places: &[usize],
    ) -> Result<bool, RedisFault> {
        let (processing, settled) = (self.keys.processing(instance), self.keys.settled(instance));
        let mut arguments = vec![number(before), now.to_string(), TAKEN_OFF.to_owned()];
        arguments.extend(places.iter().map(ToString::to_string));
        let answer = self.mend.run::<i64>(self.line.get().await?, &[&processing, &settled], &arguments).await;
        Ok(self.line.heard(&processing, answer)? == 1)
    }

    /// The instances that take from the list, or have.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn instances(&mut self) -> Result<Vec<String>, RedisFault> {
        let instances = redis::cmd("SMEMBERS").arg(&self.keys.instances).query_async(self.line.get().await?).await;
        self.line.heard(&self.keys.instances.clone(), instances)
    }

    /// Whether an instance has a lease.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn is_leased(&mut self, instance: &str) -> Result<bool, RedisFault> {
        let lease = self.keys.lease(instance);
        let answer = redis::cmd("EXISTS").arg(&lease).query_async(self.line.get().await?).await;
        self.line.heard(&lease, answer)
    }

    /// What stands in the processing list of an instance without a lease goes back to the head of the list, but what the database has.
    ///
    /// # Errors
    /// [`RedisFault`]: it may be done.
    pub async fn take_over(
        &mut self,
        instance: &str,
        before: Option<u64>,
        now: u64,
        places: &[usize],
    ) -> Result<TakenOver, RedisFault> {
        let (lease, processing) = (self.keys.lease(instance), self.keys.processing(instance));
        let settled = self.keys.settled(instance);
        let keys = [lease.as_str(), &processing, &self.keys.list, &self.keys.instances, &settled];
        let mut arguments = vec![instance.to_owned(), number(before), now.to_string(), TAKEN_OFF.to_owned()];
        arguments.extend(places.iter().map(ToString::to_string));
        let answer = self.take_over.run::<i64>(self.line.get().await?, &keys, &arguments).await;
        Ok(usize::try_from(self.line.heard(&processing, answer)?).map_or(TakenOver::Not, TakenOver::Moved))
    }

    /// The length of the list, and its oldest entry.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn waiting(&mut self) -> Result<(u64, Option<Bytes>), RedisFault> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("LLEN").arg(&self.keys.list).cmd("LINDEX").arg(&self.keys.list).arg(0);
        let answer = pipeline.query_async::<(u64, Option<Vec<u8>>)>(self.line.get().await?).await;
        let (length, oldest) = self.line.heard(&self.keys.list.clone(), answer)?;
        Ok((length, oldest.map(Bytes::from)))
    }
}

fn number(settled: Option<u64>) -> String {
    settled.map_or_else(String::new, |settled| settled.to_string())
}
