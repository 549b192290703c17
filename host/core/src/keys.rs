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

    /// A plugin's state. Of one plugin all keys lie in one cluster slot, since what a call writes is written in one step.
    #[must_use]
    pub fn state(&self, plugin: &str) -> StateKeys {
        StateKeys { tag: format!("{{{}sluicegate:state:{plugin}}}", self.prefix) }
    }
}

/// The keys of one plugin's state. A plugin's name in the settings holds neither braces nor colons, so none of another's begins as its own do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateKeys {
    tag: String,
}

impl StateKeys {
    /// The key of what the plugin calls `key`: escaped, so that whatever stands in it is one line that a terminal shows as it is.
    #[must_use]
    pub fn of(&self, key: &str) -> String {
        let mut whole = format!("{}:key:", self.tag);
        for byte in key.bytes() {
            match byte {
                b'!'..=b'~' if !b"%{}".contains(&byte) => whole.push(char::from(byte)),
                _ => whole.push_str(&format!("%{byte:02X}")),
            }
        }
        whole
    }

    /// The sorted set of the keys that there are, each with when its time is over (milliseconds since 1970).
    #[must_use]
    pub fn index(&self) -> String {
        format!("{}:keys", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_of_a_plugin_leaves_its_own() {
        let own = StateKeys { tag: "{laravel_sluicegate:state:a}".to_owned() };
        for (key, whole) in [
            ("M-1:count", "M-1:count"),
            ("../../mqtt_incoming_jobs", "../../mqtt_incoming_jobs"),
            ("}:keys", "%7D:keys"),
            ("{b}:key:x", "%7Bb%7D:key:x"),
            ("a b\r\nFLUSHALL\0", "a%20b%0D%0AFLUSHALL%00"),
            ("é%", "%C3%A9%25"),
        ] {
            assert_eq!(own.of(key), format!("{{laravel_sluicegate:state:a}}:key:{whole}"));
        }
        assert_eq!(own.index(), "{laravel_sluicegate:state:a}:keys");
        // Escaping is one to one.
        assert_ne!(own.of("%7D"), own.of("}"));
    }
}
