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
/// How long until the next look where the server does not let anybody wait.
const BETWEEN: Duration = Duration::from_millis(200);
/// A server that is silent for longer than a blocking move lasts is away.
const SILENCE: Duration = Duration::from_secs(7);
/// Whoever has got so many bytes of jobs asks for no more in the same step: a job may have a megabyte, and a batch is in memory several times over. So
/// one step brings less than this and one job more, and a listener, which has three batches, a few times as much.
pub const ENOUGH: usize = 4 << 20;
/// The most entries of one look at a list.
const PAGE: usize = 500;
/// Put in the place of a job before it is taken off: no JSON is this.
const TAKEN_OFF: &str = "\0taken off";

/// Moves jobs, oldest first, where the lease has this number: whoever took it anew cut off in that step what others of the name had on its way, be it in
/// a socket's buffer. LTRIM takes nothing off; it stands there because it needs no memory, and what comes after a write is done without any: a server over
/// its limit could never be emptied else. Nil: it has another, or has run out. KEYS: lease, processing list, list; ARGV: number, the most, bytes that are enough.
const TAKE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
redis.call('LTRIM', KEYS[2], 0, -1)
local moved = 0
local bytes = 0
local job = ''
while job and moved < tonumber(ARGV[2]) and bytes < tonumber(ARGV[3]) do
  job = redis.call('LMOVE', KEYS[3], KEYS[2], 'LEFT', 'RIGHT')
  if job then
    moved = moved + 1
    bytes = bytes + #job
  end
end
if moved == 0 then return redis.call('LRANGE', KEYS[2], 1, 0) end
return redis.call('LRANGE', KEYS[2], 0 - moved, 0 - 1)
";
/// Entries from a place on, up to a number of them or of bytes. KEYS: list; ARGV: place, the most, bytes that are enough.
const READ: &str = r"
local first = tonumber(ARGV[1])
local count = 0
local bytes = 0
local entry = ''
while entry and count < tonumber(ARGV[2]) and bytes < tonumber(ARGV[3]) do
  entry = redis.call('LINDEX', KEYS[1], first + count)
  if entry then
    count = count + 1
    bytes = bytes + #entry
  end
end
if count == 0 then return redis.call('LRANGE', KEYS[1], 1, 0) end
return redis.call('LRANGE', KEYS[1], first, first + count - 1)
";
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
/// Takes the entries at some places off, where nothing was settled since those were found, and the lease has this number: nobody took anything over
/// since it has. LTRIM: as above. 0: something was settled; -1: the lease has another number.
/// KEYS: processing list, settled, lease; ARGV: settled then (or empty), settled now, mark, number, places.
const MEND: &str = r"
if redis.call('GET', KEYS[3]) ~= ARGV[4] then return -1 end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
redis.call('LTRIM', KEYS[1], 0, -1)
for i = 5, #ARGV do redis.call('LSET', KEYS[1], ARGV[i], ARGV[3]) end
redis.call('LREM', KEYS[1], 0, ARGV[3])
redis.call('SET', KEYS[2], ARGV[2])
return 1
";
/// The same for a listener without a lease; the rest goes back to the head of the list, in its order, all of it at once, since the next part
/// would go before this one. -1: it has a lease, or has had one since it was looked at; -2: something was settled since.
/// KEYS: lease, processing list, list, instances, settled, starts; ARGV: name, settled then (or empty), settled now, mark, starts then (or
/// empty), places.
const TAKE_OVER: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 or (redis.call('GET', KEYS[6]) or '') ~= ARGV[5] then return -1 end
if (redis.call('GET', KEYS[5]) or '') ~= ARGV[2] then return -2 end
redis.call('LTRIM', KEYS[2], 0, -1)
for i = 6, #ARGV do redis.call('LSET', KEYS[2], ARGV[i], ARGV[4]) end
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

/// Moves jobs under one number of the lease, on a connection of its own: a blocking wait holds up whatever shares its connection.
pub struct Taker {
    connector: Connector,
    connection: Option<MultiplexedConnection>,
    take: Script,
    list: String,
    processing: String,
    lease: String,
    number: u64,
}

/// What came of an attempt to take.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Jobs; none may have come.
    Jobs(Vec<Bytes>),
    /// The lease has another number, or has run out: nothing is moved, now or later.
    NotHeld,
}

impl Taker {
    /// For an instance whose lease has a number.
    #[must_use]
    pub fn new(connector: Connector, keys: &ListKeys, instance: &str, number: u64) -> Self {
        Self {
            connector,
            connection: None,
            take: Script::new(TAKE),
            list: keys.list.clone(),
            processing: keys.processing(instance),
            lease: keys.lease(instance),
            number,
        }
    }

    /// Moves up to `most` jobs, or [`ENOUGH`] bytes of them, oldest first; waits a few seconds for the first one.
    ///
    /// # Errors
    /// [`RedisFault`]: jobs may have been moved that nobody was told of, or may yet be, until the lease has another number. They stand in the
    /// processing list.
    ///
    /// # Cancel safety
    /// Dropped, the same.
    pub async fn take(&mut self, most: usize) -> Result<Taken, RedisFault> {
        let taken = self.try_take(most).await;
        if taken.is_err() {
            self.connection = None;
        }
        taken
    }

    async fn try_take(&mut self, most: usize) -> Result<Taken, RedisFault> {
        let taken = self.ask(most).await?;
        if taken != Taken::Jobs(Vec::new()) {
            return Ok(taken);
        }
        self.wait().await?;
        self.ask(most).await
    }

    async fn ask(&mut self, most: usize) -> Result<Taken, RedisFault> {
        let keys = [self.lease.as_str(), &self.processing, &self.list];
        let arguments = [self.number.to_string(), most.to_string(), ENOUGH.to_string()];
        let connection = connected(&self.connector, &mut self.connection).await?;
        let taken = self.take.run::<Option<Vec<Vec<u8>>>>(connection, &keys, &arguments);
        Ok(match within(&self.list, taken).await? {
            Some(jobs) => Taken::Jobs(jobs.into_iter().map(Bytes::from).collect()),
            None => Taken::NotHeld,
        })
    }

    /// Waits until something stands in the list, or for a while. A move from the list's head to the list's head leaves it as it is, so nothing is lost
    /// by an answer that nobody hears; and the next that waits is woken as by a push.
    async fn wait(&mut self) -> Result<(), RedisFault> {
        let mut command = redis::cmd("BLMOVE");
        command.arg(&self.list).arg(&self.list).arg("LEFT").arg("LEFT").arg(BLOCK.as_secs());
        let connection = connected(&self.connector, &mut self.connection).await?;
        match within(&self.list, command.query_async::<Option<Vec<u8>>>(connection)).await {
            // A wait that moves is refused where memory is used up; taking is not.
            Err(RedisFault::Refused { answer, .. }) if answer.starts_with("OOM") => {
                tokio::time::sleep(BETWEEN).await;
                Ok(())
            }
            answer => answer.map(drop),
        }
    }
}

async fn connected<'c>(
    connector: &Connector,
    connection: &'c mut Option<MultiplexedConnection>,
) -> Result<&'c mut MultiplexedConnection, RedisFault> {
    let made = match connection.take() {
        Some(made) => made,
        None => connector.connect_for_blocking().await?,
    };
    Ok(connection.insert(made))
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
    /// Whose each entry is, oldest first.
    pub machines: Vec<String>,
}

/// What became of an attempt to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// What the database has is off the list.
    Done,
    /// Something was settled since the list was read: it is to be read again.
    Settled,
    /// The lease has another number, or has run out: the list is another's.
    NotHeld,
}

/// How often an instance has had a lease: the same, and it has had none in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starts(Option<u64>);

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
    read: Script,
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
            read: Script::new(READ),
            settle: Script::new(SETTLE),
            mend: Script::new(MEND),
            take_over: Script::new(TAKE_OVER),
        }
    }

    /// What stands in an instance's processing list; `machine` says whose an entry is. It is read page by page, and is one state of the list only where
    /// nobody moves anything, and what is done next finds nothing settled since.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn standing(
        &mut self,
        instance: &str,
        machine: impl Fn(&[u8]) -> String,
    ) -> Result<Standing, RedisFault> {
        let key = self.keys.settled(instance);
        let settled = redis::cmd("GET").arg(&key).query_async::<Option<u64>>(self.line.get().await?).await;
        let settled = self.line.heard(&key, settled)?;
        let mut machines = Vec::new();
        loop {
            let page = self.entries(instance, machines.len(), PAGE).await?;
            if page.is_empty() {
                return Ok(Standing { settled, machines });
            }
            machines.extend(page.iter().map(|entry| machine(entry)));
        }
    }

    /// Up to `most` entries of an instance's processing list, or [`ENOUGH`] bytes of them, from a place on. None: there are no more.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn entries(&mut self, instance: &str, from: usize, most: usize) -> Result<Vec<Bytes>, RedisFault> {
        let processing = self.keys.processing(instance);
        let arguments = [from, most, ENOUGH];
        let page = self.read.run::<Vec<Vec<u8>>>(self.line.get().await?, &[&processing], &arguments).await;
        Ok(self.line.heard(&processing, page)?.into_iter().map(Bytes::from).collect())
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

    /// What the database has already leaves the list, where `before` is the number that was looked up with it, and the lease has `number`.
    ///
    /// # Errors
    /// [`RedisFault`]: it may be done.
    pub async fn mend(
        &mut self,
        instance: &str,
        number: u64,
        before: Option<u64>,
        now: u64,
        places: &[usize],
    ) -> Result<Mended, RedisFault> {
        let (processing, settled) = (self.keys.processing(instance), self.keys.settled(instance));
        let keys = [processing.as_str(), &settled, &self.keys.lease(instance)];
        let mut arguments = vec![text(before), now.to_string(), TAKEN_OFF.to_owned(), number.to_string()];
        arguments.extend(places.iter().map(ToString::to_string));
        let answer = self.mend.run::<i64>(self.line.get().await?, &keys, &arguments).await;
        Ok(match self.line.heard(&processing, answer)? {
            1 => Mended::Done,
            0 => Mended::Settled,
            _ => Mended::NotHeld,
        })
    }

    /// The instances that take from the list, or have.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn instances(&mut self) -> Result<Vec<String>, RedisFault> {
        let instances = redis::cmd("SMEMBERS").arg(&self.keys.instances).query_async(self.line.get().await?).await;
        self.line.heard(&self.keys.instances.clone(), instances)
    }

    /// Whether nothing stands in the list, nor in any instance's processing list.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn is_empty(&mut self) -> Result<bool, RedisFault> {
        let instances = self.instances().await?;
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("LLEN").arg(&self.keys.list);
        for instance in &instances {
            pipeline.cmd("LLEN").arg(self.keys.processing(instance));
        }
        let lengths = pipeline.query_async::<Vec<u64>>(self.line.get().await?).await;
        Ok(self.line.heard(&self.keys.list.clone(), lengths)?.iter().all(|length| *length == 0))
    }

    /// How often an instance without a lease has had one; none: it has one.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn unleased(&mut self, instance: &str) -> Result<Option<Starts>, RedisFault> {
        let (lease, starts) = (self.keys.lease(instance), self.keys.starts(instance));
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("EXISTS").arg(&lease).cmd("GET").arg(&starts);
        let answer = pipeline.query_async::<(bool, Option<u64>)>(self.line.get().await?).await;
        let (leased, starts) = self.line.heard(&lease, answer)?;
        Ok((!leased).then_some(Starts(starts)))
    }

    /// What stands in the processing list of an instance without a lease goes back to the head of the list, but what the database has.
    ///
    /// # Errors
    /// [`RedisFault`]: it may be done.
    pub async fn take_over(
        &mut self,
        instance: &str,
        starts: Starts,
        before: Option<u64>,
        now: u64,
        places: &[usize],
    ) -> Result<TakenOver, RedisFault> {
        let (lease, processing) = (self.keys.lease(instance), self.keys.processing(instance));
        let (settled, count) = (self.keys.settled(instance), self.keys.starts(instance));
        let keys = [lease.as_str(), &processing, &self.keys.list, &self.keys.instances, &settled, &count];
        let mut arguments =
            vec![instance.to_owned(), text(before), now.to_string(), TAKEN_OFF.to_owned(), text(starts.0)];
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

fn text(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}
