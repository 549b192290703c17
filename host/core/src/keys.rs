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
    /// Who may take commands: what stands before an instance's name.
    pub leases: String,
    /// How often an instance has started: what stands before its name.
    pub starts: String,
    /// The names of all instances.
    pub instances: String,
    /// Processing lists: what stands before an instance's name.
    pub processings: String,
    /// Commands that were sent: what stands before their `message_id`.
    pub sent: String,
    /// The last step in which this instance took commands off its processing list.
    pub settled: String,
    /// What became of commands, where it is wanted.
    pub results: Option<String>,
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
            leases: format!("{{{outgoing}}}:lease:"),
            starts: format!("{{{outgoing}}}:starts:"),
            instances: format!("{{{outgoing}}}:instances"),
            processings: format!("{{{outgoing}}}:processing:"),
            sent: format!("{{{outgoing}}}:sent:"),
            settled: format!("{{{outgoing}}}:settled:{instance}"),
            results: queues.command_results.as_ref().map(|name| format!("{prefix}{name}")),
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
