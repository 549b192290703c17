//! Leases: who may send the commands of a processing list. Every step is one script whose keys lie in one cluster slot.

use sluicegate_core::keys::Keys;
use sluicegate_core::lease::{Answer, LIFE};

use super::connect::{Connector, RedisFault};
use super::script::Script;
use super::wire::Wire;

/// The most commands that one step takes over.
const MOST: usize = 500;

/// Takes the lease, whoever had it: of two processes with one name the newer wins.
/// KEYS: lease, starts, instances; ARGV: life in ms, name.
const START: &str = r"
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], number, 'PX', ARGV[1])
redis.call('SADD', KEYS[3], ARGV[2])
return number
";
/// 1: held for another life (a change of the time to live works when memory is used up); 2: it had run out, and is held again;
/// 0: a newer process has it. KEYS: lease, starts; ARGV: number, life in ms.
const RENEW: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
local latest = redis.call('GET', KEYS[2])
if latest and tonumber(latest) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 2
";
/// Gives the lease back, where it is still held. KEYS: lease; ARGV: number.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
";
/// Moves what stands in the processing list of an instance without a lease back to the head of the commands, in its order. Two takers
/// are two scripts, one after the other: each entry moves once. -1: it has a lease.
/// KEYS: lease, its processing list, commands, instances; ARGV: name, most.
const TAKE_OVER: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
local moved = 0
while moved < tonumber(ARGV[2]) and redis.call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT') do moved = moved + 1 end
if moved < tonumber(ARGV[2]) then redis.call('SREM', KEYS[4], ARGV[1]) end
return moved
";

/// The lease of one instance, on a connection of its own.
pub struct Leases {
    connector: Connector,
    connection: Option<Wire>,
    keys: Keys,
    instance: String,
    start: Script,
    renew: Script,
    release: Script,
    take_over: Script,
    /// Of this process, once it has one.
    number: Option<u64>,
}

impl Leases {
    /// For an instance.
    #[must_use]
    pub fn new(connector: Connector, keys: Keys, instance: &str) -> Self {
        Self {
            connector,
            connection: None,
            keys,
            instance: instance.to_owned(),
            start: Script::new(START),
            renew: Script::new(RENEW),
            release: Script::new(RELEASE),
            take_over: Script::new(TAKE_OVER),
            number: None,
        }
    }

    async fn connection(&mut self) -> Result<&mut Wire, RedisFault> {
        if self.connection.is_none() {
            self.connection = Some(self.connector.connect().await?);
        }
        self.connection.as_mut().ok_or_else(|| RedisFault::Unavailable("no connection".to_owned()))
    }

    /// Takes the lease the first time, then renews it.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn renew(&mut self) -> Result<Answer, RedisFault> {
        if !self.connector.has_scripts() {
            return Ok(Answer::Held);
        }
        let result = self.try_renew().await;
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn try_renew(&mut self) -> Result<Answer, RedisFault> {
        let (lease, starts) = self.keys_of(&self.instance);
        let life = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX).to_string();
        if let Some(number) = self.number {
            let (script, number) = (self.renew.clone(), number.to_string());
            let answer: i64 = script.run(self.connection().await?, &[&lease, &starts], &[&number, &life]).await?;
            return Ok(match answer {
                1 => Answer::Held,
                2 => Answer::Lapsed,
                _ => Answer::Superseded,
            });
        }
        let (script, instances, name) = (self.start.clone(), self.keys.instances.clone(), self.instance.clone());
        let keys = [lease.as_str(), &starts, &instances];
        self.number = Some(script.run(self.connection().await?, &keys, &[&life, &name]).await?);
        Ok(Answer::Held)
    }

    /// Gives the lease back: others need not wait for its end.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn release(&mut self) -> Result<(), RedisFault> {
        let Some(number) = self.number else { return Ok(()) };
        let (lease, _) = self.keys_of(&self.instance);
        let script = self.release.clone();
        let _: i64 = script.run(self.connection().await?, &[&lease], &[&number.to_string()]).await?;
        Ok(())
    }

    /// Takes over what stands in the processing lists of instances whose lease ran out: it goes back to the head of the commands.
    /// How many, and of whom.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn take_over(&mut self) -> Result<Vec<(String, usize)>, RedisFault> {
        if !self.connector.has_scripts() {
            return Ok(Vec::new());
        }
        let result = self.try_take_over().await;
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn try_take_over(&mut self) -> Result<Vec<(String, usize)>, RedisFault> {
        let mut taken = Vec::new();
        let mut ask = redis::cmd("SMEMBERS");
        ask.arg(&self.keys.instances);
        let instances: Vec<String> = ask.query_async(self.connection().await?).await?;
        let own = self.instance.clone();
        for instance in instances.into_iter().filter(|instance| *instance != own) {
            let (lease, _) = self.keys_of(&instance);
            let processing = format!("{}{instance}", self.keys.processings);
            let (script, outgoing) = (self.take_over.clone(), self.keys.outgoing.clone());
            let instances = self.keys.instances.clone();
            let keys = [lease.as_str(), &processing, &outgoing, &instances];
            let most = MOST.to_string();
            let moved: i64 = script.run(self.connection().await?, &keys, &[&instance, &most]).await?;
            if let Some(moved) = usize::try_from(moved).ok().filter(|moved| *moved > 0) {
                taken.push((instance, moved));
            }
        }
        Ok(taken)
    }

    fn keys_of(&self, instance: &str) -> (String, String) {
        (format!("{}{instance}", self.keys.leases), format!("{}{instance}", self.keys.starts))
    }
}
