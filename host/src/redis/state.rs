//! Plugins' state: on one connection of its own, which all calls share; what a call changes is changed in one step.
//!
//! A connection belongs to the runtime that made it, and calls run on the lanes': so a task of the gateway's makes it and looks after it,
//! and calls take a copy of its handle.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::pending;
use redis::{Cmd, RedisError, RedisResult, Value};
use sluicegate_core::keys::{Keys, StateKeys};
use sluicegate_core::state::{Change, Committed, Write};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{Connector, Link, RedisFault};
use super::script::Script;
use super::wire::Wire;

/// How long a call's changes may take: the message's acknowledgement waits for it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes a call's changes, where all that it was told is still so. A script does not roll back: everything is looked at before anything is
/// written, and the first write needs memory, so that one that there is none for is refused before anything is done.
///
/// The index has each key with the time at which it goes. A key may go before that (evicted, deleted by hand): those that a call touches leave the
/// index with it, and where there are too many, a hundred others are looked at, from a place that the clock chooses, so that each has its turn.
///
/// KEYS: the index, then the keys. ARGV: how many keys there may be; then five for each key: whether it was seen (`n` no, `a` absent, `v`
/// with the value that follows), that value, what is to be done (`n` nothing, `s` set, `k` set for as long as it has to live, `d` delete),
/// the value, the time to live in ms (0: none). 1: done; 0: changed meanwhile; -1: too many keys.
const COMMIT: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local new, gone, left = 0, {}, 0
-- A key that is not there any more, and is counted as one that is.
local function mark(key)
  local score = redis.call('ZSCORE', KEYS[1], key)
  if not gone[key] and score and (score == 'inf' or tonumber(score) > now) then
    gone[key] = true
    left = left + 1
  end
end
local function leave()
  for key in pairs(gone) do redis.call('ZREM', KEYS[1], key) end
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
end
for i = 2, #KEYS do
  local at = 5 * i - 8
  local is = redis.call('GET', KEYS[i])
  local seen = ARGV[at]
  if (seen == 'a' and is) or (seen == 'v' and is ~= ARGV[at + 1]) then return 0 end
  local write = ARGV[at + 2]
  if (write == 's' or write == 'k') and not is then new = new + 1 end
  if write == 'd' and is then new = new - 1 end
  if not is then mark(KEYS[i]) end
end
if new > 0 then
  local all = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
  local most = tonumber(ARGV[1]) - new
  if all > 0 and all - left > most then
    local from = tonumber(time[2]) % math.max(all - 99, 1)
    for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'LIMIT', from, 100)) do
      if redis.call('EXISTS', key) == 0 then mark(key) end
    end
  end
  if all - left > most then
    leave()
    return -1
  end
end
for i = 2, #KEYS do
  local at = 5 * i - 8
  local write, life = ARGV[at + 2], tonumber(ARGV[at + 4])
  if write == 's' and life > 0 then
    redis.call('SET', KEYS[i], ARGV[at + 3], 'PX', life)
  elseif write == 's' then
    redis.call('SET', KEYS[i], ARGV[at + 3])
  elseif write == 'k' then
    redis.call('SET', KEYS[i], ARGV[at + 3], 'KEEPTTL')
  end
  if write == 's' or write == 'k' then
    -- Within its last millisecond it has 0 to live, and goes; without a time to live it has -1.
    life = redis.call('PTTL', KEYS[i])
    redis.call('ZADD', KEYS[1], life < 0 and '+inf' or string.format('%.0f', now + life), KEYS[i])
    gone[KEYS[i]] = nil
  end
end
for i = 2, #KEYS do
  if ARGV[5 * i - 6] == 'd' then
    redis.call('DEL', KEYS[i])
    gone[KEYS[i]] = true
  end
end
leave()
return 1
";

/// The connection, as calls find it.
#[derive(Clone)]
enum Standing {
    /// Nobody needed it yet.
    Unneeded,
    Up(u64, Wire),
    Down(String),
}

/// What calls ask. Cheap to clone.
#[derive(Clone)]
pub struct States(Arc<Shared>);

struct Shared {
    keys: Keys,
    script: Option<Script>,
    /// Without scripts: one at a time.
    one: Semaphore,
    standing: watch::Receiver<Standing>,
    /// Somebody needs a connection.
    needed: Notify,
    /// What somebody met on a connection.
    trouble: watch::Sender<Trouble>,
}

/// What somebody met on the connection of this number; 0: nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Trouble {
    number: u64,
    /// It is of no use any more; else there was no answer in the little time that a call has.
    certain: bool,
}

impl Trouble {
    const NONE: Self = Self { number: 0, certain: false };
}

/// Makes the connection and looks after it.
pub struct Keeper {
    states: States,
    connector: Connector,
    standing: watch::Sender<Standing>,
    link: Link,
    trouble: watch::Receiver<Trouble>,
}

/// Prepares both; nothing is connected before a call needs it.
#[must_use]
pub fn prepare(connector: Connector, keys: Keys, link: Link) -> (States, Keeper) {
    let (standing, receiver) = watch::channel(Standing::Unneeded);
    let (trouble, told) = watch::channel(Trouble::NONE);
    let script = connector.has_scripts().then(|| Script::new(COMMIT));
    let shared = Shared { keys, script, one: Semaphore::new(1), standing: receiver, needed: Notify::new(), trouble };
    let states = States(Arc::new(shared));
    let keeper = Keeper { states: states.clone(), connector, standing, link, trouble: told };
    (states, keeper)
}

impl Keeper {
    /// Keeps the connection, once one was needed, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        self.states.0.needed.notified().await;
        for number in 1.. {
            let wire = loop {
                match self.connector.connect().await {
                    Ok(wire) => break wire,
                    Err(fault) => self.down(&fault).await,
                }
            };
            self.link.up();
            self.standing.send_replace(Standing::Up(number, wire.clone()));
            let fault = self.until_broken(number, wire).await;
            self.down(&fault).await;
        }
    }

    async fn down(&mut self, fault: &RedisFault) {
        let delay = self.link.down(fault);
        self.standing.send_replace(Standing::Down(fault.to_string()));
        sleep(delay).await;
    }

    /// Where somebody got no answer in time it is asked once more, with all the time that a connection has: a slow answer is no outage.
    async fn until_broken(&mut self, number: u64, mut wire: Wire) -> RedisFault {
        let key = self.states.0.keys.state("").index();
        loop {
            let Ok(trouble) = self.trouble.wait_for(|trouble| trouble.number == number).await.map(|trouble| *trouble)
            else {
                // Invariant: this task holds the other end too.
                return pending().await;
            };
            if trouble.certain {
                return RedisFault::Unavailable("the connection broke".to_owned());
            }
            if let Err(error) = redis::cmd("EXISTS").arg(&key).query_async::<u64>(&mut wire).await {
                return RedisFault::answered(&key, &error);
            }
            self.states.0.trouble.send_if_modified(|now| {
                let same = *now == trouble;
                if same {
                    *now = Trouble::NONE;
                }
                same
            });
        }
    }
}

impl States {
    /// The value of a plugin's key.
    ///
    /// # Errors
    /// [`RedisFault`], also where there is no answer within this time.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn get(&self, plugin: &str, key: &str, within: Duration) -> Result<Option<Bytes>, RedisFault> {
        let key = self.0.keys.state(plugin).of(key);
        let asked = async {
            let (number, mut wire) = self.wire().await?;
            self.heard(number, &key, redis::cmd("GET").arg(&key).query_async(&mut wire).await)
        };
        match timeout(within, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(self.late("Redis does not answer within the call's time")),
        }
    }

    /// Makes a call's changes in one step, where all that it was told is still so and there are no more than `most` keys then.
    ///
    /// # Errors
    /// [`RedisFault`]: without an answer they may have been made.
    ///
    /// # Cancel safety
    /// Dropped, they may have been made.
    pub async fn commit(&self, plugin: &str, changes: &[Change], most: u64) -> Result<Committed, RedisFault> {
        let keys = self.0.keys.state(plugin);
        let asked = async {
            let (number, mut wire) = self.wire().await?;
            let answer = match &self.0.script {
                Some(script) => by_script(script, &mut wire, &keys, changes, most).await,
                None => self.by_commands(&mut wire, &keys, changes, most).await,
            };
            self.heard(number, &keys.index(), answer)
        };
        match timeout(COMMIT_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(self.late("Redis does not answer in time; what the call keeps may be written")),
        }
    }

    /// There was no answer in time.
    fn late(&self, text: &str) -> RedisFault {
        if let Standing::Up(number, _) = &*self.0.standing.borrow() {
            self.met(Trouble { number: *number, certain: false });
        }
        RedisFault::Unavailable(text.to_owned())
    }

    async fn wire(&self) -> Result<(u64, Wire), RedisFault> {
        let mut standing = self.0.standing.clone();
        loop {
            match &*standing.borrow_and_update() {
                Standing::Up(number, wire) => return Ok((*number, wire.clone())),
                Standing::Down(reason) => return Err(RedisFault::Unavailable(reason.clone())),
                Standing::Unneeded => self.0.needed.notify_one(),
            }
            if standing.changed().await.is_err() {
                return Err(RedisFault::Unavailable("the gateway shuts down".to_owned()));
            }
        }
    }

    fn heard<T>(&self, number: u64, key: &str, answer: RedisResult<T>) -> Result<T, RedisFault> {
        answer.map_err(|error: RedisError| {
            let fault = RedisFault::answered(key, &error);
            if !matches!(fault, RedisFault::Refused { .. }) || fault.is_of_the_server() {
                self.met(Trouble { number, certain: true });
            }
            fault
        })
    }

    fn met(&self, trouble: Trouble) {
        self.0.trouble.send_if_modified(|now| {
            let news = trouble.number > now.number || (trouble.number == now.number && trouble.certain && !now.certain);
            if news {
                *now = trouble;
            }
            news
        });
    }

    /// The server in this process runs no scripts; whoever writes there is this process, and does so one after another.
    async fn by_commands(
        &self,
        wire: &mut Wire,
        keys: &StateKeys,
        changes: &[Change],
        most: u64,
    ) -> RedisResult<Committed> {
        // Invariant: its places are never closed.
        let _one = self.0.one.acquire().await;
        let mut look = redis::pipe();
        for Change { key, .. } in changes {
            look.cmd("GET").arg(keys.of(key));
        }
        let is: Vec<Option<Bytes>> = look.query_async(wire).await?;
        let seen = changes.iter().map(|change| change.seen.as_ref());
        if seen.zip(&is).any(|(seen, is)| seen.is_some_and(|seen| seen != is)) {
            return Ok(Committed::Changed);
        }
        let written = |change: &Change| matches!(change.write, Some(Write::Set(..) | Write::Keep(_)));
        let new = changes.iter().zip(&is).filter(|(change, is)| written(change) && is.is_none()).count();
        if new > 0 {
            // What a prefix holds may mean more to it than itself: then there are fewer keys than there might be.
            let all: Vec<Value> = redis::cmd("KEYS").arg(format!("{}*", keys.of(""))).query_async(wire).await?;
            if (all.len() + new) as u64 > most {
                return Ok(Committed::Full);
            }
        }
        let mut make = redis::pipe();
        make.atomic();
        for Change { key, write, .. } in changes {
            let command = match write {
                Some(Write::Set(value, ttl)) => {
                    let mut set = Cmd::new();
                    set.arg("SET").arg(keys.of(key)).arg(value.as_ref());
                    if let Some(ttl) = ttl {
                        set.arg("PX").arg(millis(*ttl));
                    }
                    set
                }
                Some(Write::Keep(value)) => {
                    let mut set = Cmd::new();
                    set.arg("SET").arg(keys.of(key)).arg(value.as_ref()).arg("KEEPTTL");
                    set
                }
                Some(Write::Delete) => {
                    let mut delete = Cmd::new();
                    delete.arg("DEL").arg(keys.of(key));
                    delete
                }
                None => continue,
            };
            make.add_command(command).ignore();
        }
        make.exec_async(wire).await?;
        Ok(Committed::Done)
    }
}

async fn by_script(
    script: &Script,
    wire: &mut Wire,
    keys: &StateKeys,
    changes: &[Change],
    most: u64,
) -> RedisResult<Committed> {
    let whole: Vec<String> =
        std::iter::once(keys.index()).chain(changes.iter().map(|change| keys.of(&change.key))).collect();
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    let mut arguments: Vec<Bytes> = Vec::with_capacity(1 + 5 * changes.len());
    arguments.push(most.to_string().into());
    for Change { seen, write, .. } in changes {
        let (flag, value) = match seen {
            None => ("n", Bytes::new()),
            Some(None) => ("a", Bytes::new()),
            Some(Some(value)) => ("v", value.clone()),
        };
        arguments.extend([flag.into(), value]);
        let (flag, value, life) = match write {
            None => ("n", Bytes::new(), 0),
            Some(Write::Set(value, ttl)) => ("s", value.clone(), ttl.map_or(0, millis)),
            Some(Write::Keep(value)) => ("k", value.clone(), 0),
            Some(Write::Delete) => ("d", Bytes::new(), 0),
        };
        arguments.extend([flag.into(), value, life.to_string().into()]);
    }
    let arguments: Vec<&[u8]> = arguments.iter().map(Bytes::as_ref).collect();
    let answer: i64 = script.run(wire, &whole, &arguments).await?;
    Ok(match answer {
        1 => Committed::Done,
        0 => Committed::Changed,
        _ => Committed::Full,
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
