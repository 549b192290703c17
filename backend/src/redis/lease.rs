//! Leases: who may take what stands in a processing list. Every step is one script whose keys lie in one cluster slot.

use sluicegate_core::lease::scripts::{RELEASE, RENEW, START, SUCCEED};
use sluicegate_core::lease::{Answer, life_in_millis};

use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::lists::ListKeys;
use super::script::Script;

/// Takes the lease under another number, where no newer process has it: from then on nothing is moved that was asked for under the number before. A negative
/// number: it had run out, and others may have taken over; 0: a newer process has it. DEL comes first, as in the other scripts: it needs no memory.
/// KEYS: lease, starts, instances; ARGV: number, life in ms, name.
const ANEW: &str = r"
local latest = redis.call('GET', KEYS[2])
if latest and tonumber(latest) > tonumber(ARGV[1]) then return 0 end
local held = redis.call('GET', KEYS[1]) == ARGV[1]
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1])
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], number, 'PX', ARGV[2])
redis.call('SADD', KEYS[3], ARGV[3])
return held and number or -number
";

/// The lease of one instance, on a connection of its own.
pub struct Leases {
    line: Line,
    keys: ListKeys,
    instance: String,
    start: Script,
    renew: Script,
    anew: Script,
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
            anew: Script::new(ANEW),
            succeed: Script::new(SUCCEED),
            release: Script::new(RELEASE),
            number: None,
        }
    }

    /// Takes the lease the first time, then renews it.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn renew(&mut self) -> Result<Answer, RedisFault> {
        let (lease, starts) = (self.keys.lease(&self.instance), self.keys.starts(&self.instance));
        let keys = [lease.as_str(), &starts, &self.keys.instances];
        let (life, name) = (life_in_millis().to_string(), &self.instance);
        let Some(number) = self.number else {
            let number = self.start.run(self.line.get().await?, &keys, &[&life, name]).await;
            self.number = Some(self.line.heard(&lease, number)?);
            return Ok(Answer::Held);
        };
        let answer = self.renew.run::<i64>(self.line.get().await?, &keys[..2], &[&number.to_string(), &life]).await;
        Ok(match self.line.heard(&lease, answer)? {
            0 => Answer::Superseded,
            1 => Answer::Held,
            _ if self.take_again(number).await? => Answer::Lapsed,
            _ => Answer::Superseded,
        })
    }

    /// Takes the lease under another number; [`Answer::Held`]: it had it until now.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn anew(&mut self) -> Result<Answer, RedisFault> {
        let Some(number) = self.number else { return self.renew().await };
        let (lease, starts) = (self.keys.lease(&self.instance), self.keys.starts(&self.instance));
        let keys = [lease.as_str(), &starts, &self.keys.instances];
        let arguments = [&number.to_string(), &life_in_millis().to_string(), &self.instance];
        let answer = self.anew.run::<i64>(self.line.get().await?, &keys, &arguments).await;
        let number = self.line.heard(&lease, answer)?;
        if number == 0 {
            return Ok(Answer::Superseded);
        }
        self.number = Some(number.unsigned_abs());
        Ok(if number > 0 { Answer::Held } else { Answer::Lapsed })
    }

    /// The number that this process has had last; none: it never had one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// Takes the lease again after a newer process of the same name has had it, where nobody has it any more. True: this one has it.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn succeed(&mut self) -> Result<bool, RedisFault> {
        // Where Redis lost its data, the number above its own may be the newer one's.
        self.take_again(0).await
    }

    /// Takes the lease again, under a number above this one.
    async fn take_again(&mut self, before: u64) -> Result<bool, RedisFault> {
        let (lease, starts) = (self.keys.lease(&self.instance), self.keys.starts(&self.instance));
        let keys = [lease.as_str(), &starts, &self.keys.instances];
        let (life, before) = (life_in_millis().to_string(), before.to_string());
        let number = self.succeed.run::<u64>(self.line.get().await?, &keys, &[&life, &self.instance, &before]).await;
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
