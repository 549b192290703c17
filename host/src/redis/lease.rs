//! Leases: who may send the commands of a processing list. Every step is one script whose keys lie in one cluster slot.

use sluicegate_core::keys::Keys;
use sluicegate_core::lease::scripts::{RELEASE, RENEW, START, SUCCEED};
use sluicegate_core::lease::{Answer, life_in_millis};

use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::script::Script;

/// Moves what stands in the processing list of an instance without a lease back to the head of the commands, in its order: all of it at
/// once, since the next part would go before this one. Two takers are two scripts, one after the other: each entry moves once.
/// -1: it has a lease. KEYS: lease, its processing list, commands, instances; ARGV: name.
const TAKE_OVER: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
local moved = 0
while redis.call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT') do moved = moved + 1 end
redis.call('SREM', KEYS[4], ARGV[1])
return moved
";

/// The lease of one instance, on a connection of its own.
pub struct Leases {
    line: Line,
    keys: Keys,
    instance: String,
    start: Script,
    renew: Script,
    succeed: Script,
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
            line: Line::new(connector),
            keys,
            instance: instance.to_owned(),
            start: Script::new(START),
            renew: Script::new(RENEW),
            succeed: Script::new(SUCCEED),
            release: Script::new(RELEASE),
            take_over: Script::new(TAKE_OVER),
            number: None,
        }
    }

    /// Takes the lease the first time, then renews it.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn renew(&mut self) -> Result<Answer, RedisFault> {
        if !self.line.has_scripts() {
            return Ok(Answer::Held);
        }
        let (lease, starts) = self.keys_of(&self.instance);
        let keys = [lease.as_str(), &starts, &self.keys.instances];
        let (life, name) = (life_in_millis().to_string(), &self.instance);
        if let Some(number) = self.number {
            let answer = self.renew.run::<i64>(self.line.get().await?, &keys[..2], &[&number.to_string(), &life]).await;
            return Ok(match self.line.heard(&lease, answer)? {
                0 => Answer::Superseded,
                1 => Answer::Held,
                _ if self.take_again(number).await? => Answer::Lapsed,
                _ => Answer::Superseded,
            });
        }
        let number = self.start.run(self.line.get().await?, &keys, &[&life, name]).await;
        self.number = Some(self.line.heard(&lease, number)?);
        Ok(Answer::Held)
    }

    /// Takes the lease again after a newer process of the same name has had it, where nobody has it any more. True: this one has it.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn succeed(&mut self) -> Result<bool, RedisFault> {
        // Where Redis lost its data, the number above its own may be the newer one's.
        self.take_again(0).await
    }

    /// Takes the lease again, under a number above this one.
    async fn take_again(&mut self, before: u64) -> Result<bool, RedisFault> {
        let (lease, starts) = self.keys_of(&self.instance);
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
    /// [`RedisFault::Unavailable`].
    pub async fn release(&mut self) -> Result<(), RedisFault> {
        let Some(number) = self.number else { return Ok(()) };
        let (lease, _) = self.keys_of(&self.instance);
        let released = self.release.run::<i64>(self.line.get().await?, &[&lease], &[number]).await;
        self.line.heard(&lease, released).map(|_| ())
    }

    /// Takes over what stands in the processing lists of instances whose lease ran out: it goes back to the head of the commands.
    /// How many, and of whom.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn take_over(&mut self) -> Result<Vec<(String, usize)>, RedisFault> {
        if !self.line.has_scripts() {
            return Ok(Vec::new());
        }
        let mut taken = Vec::new();
        let list = &self.keys.instances;
        let instances = redis::cmd("SMEMBERS").arg(list).query_async::<Vec<String>>(self.line.get().await?).await;
        for instance in self.line.heard(list, instances)?.into_iter().filter(|instance| *instance != self.instance) {
            let (lease, _) = self.keys_of(&instance);
            let processing = format!("{}{instance}", self.keys.processings);
            let keys = [lease.as_str(), &processing, &self.keys.outgoing, &self.keys.instances];
            let moved = self.take_over.run::<i64>(self.line.get().await?, &keys, &[&instance]).await;
            if let Some(moved) = usize::try_from(self.line.heard(&lease, moved)?).ok().filter(|moved| *moved > 0) {
                taken.push((instance, moved));
            }
        }
        Ok(taken)
    }

    fn keys_of(&self, instance: &str) -> (String, String) {
        (format!("{}{instance}", self.keys.leases), format!("{}{instance}", self.keys.starts))
    }
}
