//! Leases: who may take what stands in a processing list. Every step is one script whose keys lie in one cluster slot.

use sluicegate_core::lease::scripts::{RELEASE, RENEW, START, SUCCEED};
use sluicegate_core::lease::{Answer, life_in_millis};

use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::lists::ListKeys;
use super::script::Script;

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
        let number = self
            .succeed
            .run::<u64>(self.line.get().await?, &keys, &[&life_in_millis().to_string(), &self.instance])
            .await;
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
