//! Every Redis key, in one place. The prefix is part of the key: it is what the back end's own client puts before all.

use crate::settings::{Queues, Redis};

/// The keys of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
    /// The list of commands.
    pub outgoing: String,
    /// This instance's commands under way. What is moved in one atomic step must lie in one cluster slot, so the braces
    /// hold the list's whole key, prefix included (Redis cluster specification, "hash tags").
    pub processing: String,
    /// The list of dead letters.
    pub dead_letters: String,
}

impl Keys {
    /// From the settings.
    #[must_use]
    pub fn new(redis: &Redis, queues: &Queues, instance: &str) -> Self {
        let prefix = redis.key_prefix.clone();
        let outgoing = format!("{prefix}{}", queues.outgoing);
        Self {
            processing: format!("{{{outgoing}}}:processing:{instance}"),
            dead_letters: format!("{prefix}{}", queues.dead_letters),
            outgoing,
            prefix,
        }
    }

    /// What stands before an idempotency key of a route, where its jobs are pushed once. It lies in the list's cluster slot.
    #[must_use]
    pub fn once(&self, queue: &str, route: &str) -> String {
        format!("{{{}}}:dedupe:{route}:", self.queue(queue))
    }

    /// The key of a list of jobs.
    #[must_use]
    pub fn queue(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
