//! Leases: who may take what stands in a processing list. Every step is one script whose keys lie in one cluster slot.

use sluicegate_core::lease::{Answer, LIFE};

use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::lists::ListKeys;
use super::script::Script;

/// Takes the lease, whoever had it: of two processes with one name the newer wins. DEL comes first: what comes after a write that needs
/// no memory is done when memory is used up. KEYS: lease, starts, instances; ARGV: life in ms, name.
const START: &str = r"
redis.call('DEL', KEYS[1])
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], number, 'PX', ARGV[1])
redis.call('SADD', KEYS[3], ARGV[2])
return number
";
/// 1: held for another life (a change of the time to live works when memory is used up); a negative number: it had run out, and is held
/// again under that one, since others may have taken over, and forgotten the instance; 0: a newer process has it. DEL comes first, as
/// above. KEYS: lease, starts, instances; ARGV: number, life in ms, name.
const RENEW: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
local latest = redis.call('GET', KEYS[2])
if latest and tonumber(latest) > tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1])
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], number, 'PX', ARGV[2])
redis.call('SADD', KEYS[3], ARGV[3])
return -number
";
/// Takes the lease again after a newer process of the same name has had it, where nobody has it any more. 0: somebody has.
/// KEYS: lease, starts, instances; ARGV: life in ms, name.
const SUCCEED: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('DEL', KEYS[1])
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], number, 'PX', ARGV[1])
redis.call('SADD', KEYS[3], ARGV[2])
return number
";
/// Gives the lease back, where it is still held. KEYS: lease; ARGV: number.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
";

/// The lease of one instance, on a connection of its own.
pub struct Leases {
    line: Line,
    keys: ListKeys,
    instance: String,
    start: Script,
    renew: Script,
    succeed: Script,
    release: Script,
    /// Of this process, once it has one.
    number: Option<u64>,
}

impl Leases {
    /// For an instance.
    #[must_use]
    pub fn new(connector: Connector, keys: ListKeys, instance: &str) -> Self {
        Self {
            line: Line::new(connector),
            keys,
            instance: instance.to_owned(),
            start: Script::new(START),
            renew: Script::new(RENEW),
            succeed: Script::new(SUCCEED),
            release: Script::new(RELEASE),
            number: None,
        }
    }

    fn life() -> String {
        u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX).to_string()
    }

    /// Takes the lease the first time, then renews it.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn renew(&mut self) -> Result<Answer, RedisFault> {
        let (lease, starts) = (self.keys.lease(&self.instance), self.keys.starts(&self.instance));
        let keys = [lease.as_str(), &starts, &self.keys.instances];
        let (life, name) = (Self::life(), &self.instance);
        let Some(number) = self.number else {
            let number = self.start.run(self.line.get().await?, &keys, &[&life, name]).await;
            self.number = Some(self.line.heard(&lease, number)?);
            return Ok(Answer::Held);
        };
        let answer = self.renew.run::<i64>(self.line.get().await?, &keys, &[&number.to_string(), &life, name]).await;
        Ok(match self.line.heard(&lease, answer)? {
            0 => Answer::Superseded,
            number if number < 0 => {
                self.number = Some(number.unsigned_abs());
                Answer::Lapsed
            }
            _ => Answer::Held,
        })
    }

    /// Takes the lease again after a newer process of the same name has had it, where that one has it no more. True: this one has it.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn succeed(&mut self) -> Result<bool, RedisFault> {
        let (lease, starts) = (self.keys.lease(&self.instance), self.keys.starts(&self.instance));
        let keys = [lease.as_str(), &starts, &self.keys.instances];
        let number = self.succeed.run::<u64>(self.line.get().await?, &keys, &[&Self::life(), &self.instance]).await;
        let number = self.line.heard(&lease, number)?;
        if number > 0 {
            self.number = Some(number);
        }
        Ok(number > 0)
    }

    /// Gives the lease back: others need not wait for its end.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn release(&mut self) -> Result<(), RedisFault> {
        let Some(number) = self.number else { return Ok(()) };
        let lease = self.keys.lease(&self.instance);
        let released = self.release.run::<i64>(self.line.get().await?, &[&lease], &[number]).await;
        self.line.heard(&lease, released).map(drop)
    }
}
