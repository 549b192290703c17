//! What another file would change, key by key, and how each change applies. Values are compared as their key's type reads them:
//! `60s` and `1m` are the same.
//!
//! Two sides of one process are compared with their secrets. Where one side was told by another process, a secret is masked, and all
//! that can be said of it is that it may have changed.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::effective::Effective;
use super::table::{self, Applies, Type};
use super::units;

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It has another value.
    Changed,
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// It is masked on one side or both.
    MayHaveChanged,
}

/// One key that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Such as `mqtt.url`, `plugins.acme`, `routes.heartbeat.topic`: a route goes by its name, since its place may change.
    pub key: String,
    /// What became of it.
    pub what: What,
    /// How it applies.
    pub applies: Applies,
    /// As TOML would write it, secrets masked; none: it was not there, or is more than one key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<String>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
}

/// Whether a change of a key is a change of one of its plugin, route, or of nothing else; with its name there.
type Named<'a> = BTreeMap<String, (Applies, &'a Effective)>;

/// Everything that is not as it was: keys in the order of their names, whole plugins and routes that come or go as one.
#[must_use]
pub fn difference(before: &[Effective], after: &[Effective]) -> Vec<Change> {
    let (old, new) = (named(before), named(after));
    let (old_groups, new_groups) = (groups(&old), groups(&new));
    let mut changes: BTreeMap<String, Change> = BTreeMap::new();
    let keys: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
    for key in keys {
        let (old, new) = (old.get(key), new.get(key));
        let Some((applies, _)) = old.or(new) else { continue };
        // A whole plugin or route is told once.
        if let Some(group) = group(key) {
            let what = match (old_groups.contains(&group), new_groups.contains(&group)) {
                (true, false) => Some(What::Removed),
                (false, true) => Some(What::Added),
                _ => None,
            };
            if let Some(what) = what {
                let change = Change { key: group.clone(), what, applies: *applies, before: None, after: None };
                changes.insert(group, change);
                continue;
            }
        }
        let what = match (old, new) {
            (Some((_, old)), Some((_, new))) => match compare(old, new) {
                None => continue,
                Some(what) => what,
            },
            (Some(_), None) => What::Removed,
            (None, _) => What::Added,
        };
        let value = |side: Option<&(Applies, &Effective)>| side.map(|(_, effective)| effective.value.clone());
        let (before, after) = (value(old), value(new));
        changes.insert(key.clone(), Change { key: key.clone(), what, applies: *applies, before, after });
    }
    if let Some(change) = order(before, after) {
        changes.insert(change.key.clone(), change);
    }
    changes.into_values().collect()
}

/// Each key with the name that a change goes by.
fn named(all: &[Effective]) -> Named<'_> {
    let routes = routes(all);
    let name = |effective: &Effective| match effective.key.split_once("].") {
        Some((at, key)) if at.starts_with("routes[") => match routes.get(at) {
            Some(route) => format!("routes.{route}.{key}"),
            None => effective.key.clone(),
        },
        _ => effective.key.clone(),
    };
    // What a plugin reads is the plugin's, not the table's.
    let applies = |effective: &Effective| table::at(&effective.key).map_or(Applies::Live, |key| key.applies);
    all.iter().map(|effective| (name(effective), (applies(effective), effective))).collect()
}

/// `routes[2` → its name, as TOML writes it.
fn routes(all: &[Effective]) -> HashMap<&str, &str> {
    let name = |effective: &'_ Effective| effective.key.strip_suffix("].name").map(str::len);
    all.iter()
        .filter_map(|effective| Some((&effective.key[..name(effective)?], effective.value.trim_matches('"'))))
        .collect()
}

/// `plugins.NAME` or `routes.NAME` of a key inside it.
fn group(key: &str) -> Option<String> {
    let (section, rest) = key.split_once('.')?;
    match section {
        "plugins" => Some(format!("plugins.{}", rest.split('.').next()?)),
        // A route's name may hold dots; its keys do not.
        "routes" => Some(format!("routes.{}", rest.rsplit_once('.')?.0)),
        _ => None,
    }
}

fn groups(named: &Named<'_>) -> std::collections::HashSet<String> {
    named.keys().filter_map(|key| group(key)).collect()
}

/// The first route that matches takes a message, so their order is a setting too.
fn order(before: &[Effective], after: &[Effective]) -> Option<Change> {
    let names = |all: &[Effective]| -> Vec<String> {
        all.iter().filter(|one| one.key.ends_with("].name")).map(|one| one.value.clone()).collect()
    };
    let (before, after) = (names(before), names(after));
    let both = |these: &[String], others: &[String]| -> Vec<String> {
        these.iter().filter(|name| others.contains(name)).cloned().collect()
    };
    let (kept, now) = (both(&before, &after), both(&after, &before));
    let shown = |names: &[String]| Some(format!("[{}]", names.join(", ")));
    (kept != now).then(|| Change {
        key: "routes (their order)".to_owned(),
        what: What::Changed,
        applies: Applies::Live,
        before: shown(&kept),
        after: shown(&now),
    })
}

fn compare(old: &Effective, new: &Effective) -> Option<What> {
    match (&old.hidden, &new.hidden) {
        (Some(old), Some(new)) => (old != new).then_some(What::Changed),
        // One side is of another process. What is shown of it may differ all the same, as the host of `redis.url`.
        _ if old.value != new.value && !same(old, new) => Some(What::Changed),
        _ if old.value.contains("***") => Some(What::MayHaveChanged),
        _ => None,
    }
}

/// Whether two texts are one value of their key's type.
fn same(old: &Effective, new: &Effective) -> bool {
    let kind = table::at(&old.key).map(|key| key.kind);
    let (old, new) = (old.value.trim_matches('"'), new.value.trim_matches('"'));
    match kind {
        Some(Type::Duration(..)) => units::parse_duration(old) == units::parse_duration(new),
        Some(Type::Size(..)) => units::parse_size(old) == units::parse_size(new),
        Some(Type::Offset) => units::parse_offset(old) == units::parse_offset(new),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::interpolate::Sources;
    use super::super::{Outside, read};
    use super::*;

    /// Every key is set, so that each can be flipped.
    const ALL: &str = r#"
[gateway]
instance = "gw"
time_zone = "+08:00"
shutdown_timeout = "10s"
state = "state"
compile_memory = "1GiB"
compile_time = "120s"
[mqtt]
url = "mqtts://broker:8883"
client_id = "id"
name = "EMQX"
username = "user"
password = "first"
ca_file = "ca.pem"
client_cert_file = "cert.pem"
client_key_file = "key.pem"
session_expiry = "1d"
receive_maximum = 2000
max_packet_size = "1MiB"
in_flight_bytes = "64MiB"
[redis]
url = "redis://:first@cache:6379"
ca_file = "redis-ca.pem"
client_cert_file = "redis-cert.pem"
client_key_file = "redis-key.pem"
cluster = true
cluster_nodes = ["a:7001"]
key_prefix = "p_"
wait_replicas = 0
[queues]
incoming = "in"
outgoing = "out"
command_results = "results"
dead_letters = "dead"
incoming_max = 100
dead_letters_max = 100
[spool]
path = "spool"
max_size = "1GiB"
[trust]
keys = ["RWQAAQIDBAUGB1hmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm"]
required = false
revoked = []
[plugins.a]
path = "a.wasm"
instances = "warm"
digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
[plugins.a.settings]
unit = "C"
[plugins.a.limits]
call_timeout = "100ms"
memory = "32MiB"
output = "1MiB"
outputs = 10
table_elements = 10
host_calls = 10
log_lines = 10
log_bytes = "64KiB"
calls = 10
instances = 10
state_keys = 10
state_value = "1KiB"
time_per_second = "100ms"
http_requests = 10
http_in_flight = 10
http_request = "64KiB"
http_response = "64KiB"
[plugins.a.rehearse]
messages = 256
max_new_failures = "0%"
max_slowdown = 5.0
[plugins.a.canary]
percent = 5
machines = []
for = "5m"
[plugins.a.probation]
for = "2m"
min_calls = 200
max_new_failures = "10%"
max_slowdown = 5.0
[plugins.a.grants]
state = false
publish = []
http = ["h"]
http_private = []
[plugins.v]
path = "v.wasm"
[plugins.w]
path = "w.wasm"
[[routes]]
name = "r"
type = "t"
topic = "m/{serial_no}/r"
handlers = ["a"]
queue = "q"
qos = 1
attempts = 3
on_failure = "dead-letter"
dedupe = "1h"
priority = "normal"
when_behind = "all"
[[routes]]
name = "s"
topic = "m/{serial_no}/s"
handlers = ["a"]
[commands]
topic = "c/{target}/x"
validator = "v"
expiry = "60s"
in_flight = 1000
wait_for_subscriber = "30s"
dedupe = "1h"
[admin]
listen = "127.0.0.1:9090"
[access]
listen = "127.0.0.1:9092"
secret = "first-first-first"
gateway_user = "gw"
keys = "auth:"
cache_entries = 10
cache_ttl = "1m"
failures_per_minute = 5
"#;

    fn effective(text: &str) -> Vec<Effective> {
        let outside = Outside {
            sources: Sources { variable: &|_| Ok(None), file: &|_| Err("none".to_owned()) },
            base: Path::new("/etc/sluicegate"),
            built_in_plugin: &|name| PathBuf::from(name),
        };
        read(Some(("s.toml", text)), &outside).unwrap_or_else(|errors| panic!("{errors}\n{text}")).effective
    }

    #[track_caller]
    fn told(before: &str, after: &str) -> Vec<String> {
        let show = |change: &Change| format!("{} {:?} {}", change.key, change.what, change.applies);
        difference(&effective(before), &effective(after)).iter().map(show).collect()
    }

    /// Each key of the table, what to write in place of its line of [`ALL`], and how that applies.
    #[test]
    fn each_key_of_the_table_is_flipped_and_applies_as_its_kind_says() {
        let flips = [
            ("gateway.instance", "instance = \"gw2\"", Applies::Restart),
            ("gateway.time_zone", "time_zone = \"Z\"", Applies::Live),
            ("gateway.shutdown_timeout", "shutdown_timeout = \"11s\"", Applies::Live),
            ("gateway.state", "state = \"state2\"", Applies::Restart),
            ("gateway.compile_memory", "compile_memory = \"2GiB\"", Applies::Restart),
            ("gateway.compile_time", "compile_time = \"121s\"", Applies::Restart),
            ("trust.keys", "keys = []", Applies::Live),
            ("trust.required", "required = true", Applies::Live),
            (
                "trust.revoked",
                "revoked = [\"sha256:1111111111111111111111111111111111111111111111111111111111111111\"]",
                Applies::Live,
            ),
            ("mqtt.url", "url = \"mqtts://other:8883\"", Applies::Restart),
            ("mqtt.client_id", "client_id = \"id2\"", Applies::Restart),
            ("mqtt.name", "name = \"mosquitto\"", Applies::Reconnect),
            ("mqtt.username", "username = \"user2\"", Applies::Reconnect),
            ("mqtt.password", "password = \"second\"", Applies::Reconnect),
            ("mqtt.ca_file", "ca_file = \"ca2.pem\"", Applies::Reconnect),
            ("mqtt.client_cert_file", "client_cert_file = \"cert2.pem\"", Applies::Reconnect),
            ("mqtt.client_key_file", "client_key_file = \"key2.pem\"", Applies::Reconnect),
            ("mqtt.session_expiry", "session_expiry = \"2d\"", Applies::Reconnect),
            ("mqtt.receive_maximum", "receive_maximum = 100", Applies::Reconnect),
            ("mqtt.max_packet_size", "max_packet_size = \"2MiB\"", Applies::Reconnect),
            ("mqtt.in_flight_bytes", "in_flight_bytes = \"1MiB\"", Applies::Live),
            ("redis.url", "url = \"redis://:second@cache:6379\"", Applies::Restart),
            ("redis.ca_file", "ca_file = \"redis-ca2.pem\"", Applies::Restart),
            ("redis.client_cert_file", "client_cert_file = \"redis-cert2.pem\"", Applies::Restart),
            ("redis.client_key_file", "client_key_file = \"redis-key2.pem\"", Applies::Restart),
            ("redis.cluster", "cluster = \"true\"", Applies::Restart),
            ("redis.cluster_nodes", "cluster_nodes = []", Applies::Restart),
            ("redis.key_prefix", "key_prefix = \"p2_\"", Applies::Restart),
            ("redis.wait_replicas", "wait_replicas = 1", Applies::Restart),
            ("queues.incoming", "incoming = \"in2\"", Applies::Live),
            ("queues.outgoing", "outgoing = \"out2\"", Applies::Restart),
            ("queues.command_results", "command_results = \"results2\"", Applies::Restart),
            ("queues.dead_letters", "dead_letters = \"dead2\"", Applies::Restart),
            ("queues.incoming_max", "incoming_max = 0", Applies::Live),
            ("queues.dead_letters_max", "dead_letters_max = 101", Applies::Live),
            ("spool.path", "path = \"spool2\"", Applies::Restart),
            ("spool.max_size", "max_size = \"2GiB\"", Applies::Live),
            ("plugins.a.path", "path = \"a2.wasm\"", Applies::Live),
            ("plugins.a.instances", "instances = \"fresh\"", Applies::Live),
            (
                "plugins.a.digest",
                "digest = \"sha256:1111111111111111111111111111111111111111111111111111111111111111\"",
                Applies::Live,
            ),
            ("plugins.a.limits.outputs", "outputs = 11", Applies::Live),
            ("plugins.a.limits.table_elements", "table_elements = 11", Applies::Live),
            ("plugins.a.limits.host_calls", "host_calls = 11", Applies::Live),
            ("plugins.a.limits.log_lines", "log_lines = 11", Applies::Live),
            ("plugins.a.limits.log_bytes", "log_bytes = \"1KiB\"", Applies::Live),
            ("plugins.a.limits.calls", "calls = 11", Applies::Live),
            ("plugins.a.limits.instances", "instances = 11", Applies::Live),
            ("plugins.a.limits.state_keys", "state_keys = 11", Applies::Live),
            ("plugins.a.limits.state_value", "state_value = \"2KiB\"", Applies::Live),
            ("plugins.a.limits.time_per_second", "time_per_second = \"200ms\"", Applies::Live),
            ("plugins.a.limits.http_requests", "http_requests = 11", Applies::Live),
            ("plugins.a.limits.http_in_flight", "http_in_flight = 11", Applies::Live),
            ("plugins.a.limits.http_request", "http_request = \"1KiB\"", Applies::Live),
            ("plugins.a.limits.http_response", "http_response = \"1KiB\"", Applies::Live),
            ("plugins.a.limits.call_timeout", "call_timeout = \"1s\"", Applies::Live),
            ("plugins.a.limits.memory", "memory = \"1MiB\"", Applies::Live),
            ("plugins.a.limits.output", "output = \"2MiB\"", Applies::Live),
            ("plugins.a.rehearse.messages", "messages = 10", Applies::Live),
            ("plugins.a.rehearse.max_new_failures", "max_new_failures = \"1%\"", Applies::Live),
            ("plugins.a.rehearse.max_slowdown", "max_slowdown = 2", Applies::Live),
            ("plugins.a.canary.percent", "percent = 0.5", Applies::Live),
            ("plugins.a.canary.machines", "machines = [\"M-00*\"]", Applies::Live),
            ("plugins.a.canary.for", "for = \"10m\"", Applies::Live),
            ("plugins.a.probation.for", "for = \"1m\"", Applies::Live),
            ("plugins.a.probation.min_calls", "min_calls = 10", Applies::Live),
            ("plugins.a.probation.max_new_failures", "max_new_failures = \"1%\"", Applies::Live),
            ("plugins.a.probation.max_slowdown", "max_slowdown = 2.5", Applies::Live),
            ("plugins.a.grants.state", "state = true", Applies::Live),
            ("plugins.a.grants.publish", "publish = [\"x\"]", Applies::Live),
            ("plugins.a.grants.http", "http = [\"x\"]", Applies::Live),
            ("plugins.a.grants.http_private", "http_private = [\"h\"]", Applies::Live),
            ("routes[0].name", "name = \"r2\"", Applies::Live),
            ("routes[0].type", "type = \"t2\"", Applies::Live),
            ("routes[0].topic", "topic = \"m/{serial_no}/r2\"", Applies::Live),
            ("routes[0].handlers", "handlers = [\"a\", \"w\"]", Applies::Live),
            ("routes[0].queue", "queue = \"q2\"", Applies::Live),
            ("routes[0].qos", "qos = 2", Applies::Live),
            ("routes[0].attempts", "attempts = 4", Applies::Live),
            ("routes[0].on_failure", "on_failure = \"drop\"", Applies::Live),
            ("routes[0].dedupe", "dedupe = \"2h\"", Applies::Live),
            ("routes[0].priority", "priority = \"low\"", Applies::Live),
            ("routes[0].when_behind", "when_behind = \"latest\"", Applies::Live),
            ("commands.topic", "topic = \"c/{target}/y\"", Applies::Live),
            ("commands.validator", "validator = \"w\"", Applies::Live),
            ("commands.expiry", "expiry = \"61s\"", Applies::Live),
            ("commands.in_flight", "in_flight = 10", Applies::Restart),
            ("commands.wait_for_subscriber", "wait_for_subscriber = \"31s\"", Applies::Live),
            ("commands.dedupe", "dedupe = \"2h\"", Applies::Live),
            ("admin.listen", "listen = \"127.0.0.1:9091\"", Applies::Restart),
            ("access.listen", "listen = \"127.0.0.1:9093\"", Applies::Restart),
            ("access.secret", "secret = \"second-second-second\"", Applies::Live),
            ("access.gateway_user", "gateway_user = \"gw2\"", Applies::Live),
            ("access.keys", "keys = \"auth2:\"", Applies::Restart),
            ("access.cache_entries", "cache_entries = 11", Applies::Live),
            ("access.cache_ttl", "cache_ttl = \"2m\"", Applies::Live),
            ("access.failures_per_minute", "failures_per_minute = 6", Applies::Live),
        ];
        for key in table::KEYS {
            let path = match key.section {
                "routes" => format!("routes[0].{}", key.name),
                section => format!("{}.{}", section.replace('*', "a"), key.name),
            };
            let found = table::at(&path).map(|key| (key.section, key.name));
            assert_eq!(found, Some((key.section, key.name)), "{path}");
            let Some((_, line, applies)) = flips.iter().find(|(flipped, ..)| *flipped == path) else {
                panic!("{path} is not flipped: say here what a change of it is, and how it applies");
            };
            assert_eq!(key.applies, *applies, "{path}");
            let shown = path.replace("routes[0]", "routes.r");
            let told = told(ALL, &flipped(&path, line));
            let expected = match &*path {
                // Another name is another route.
                "routes[0].name" => vec!["routes.r Removed live".to_owned(), "routes.r2 Added live".to_owned()],
                // What takes it as its default changes with it.
                "queues.incoming" => vec![format!("{shown} Changed live"), "routes.s.queue Changed live".to_owned()],
                // The same in other words.
                "redis.cluster" => vec![],
                _ => vec![format!("{shown} Changed {applies}")],
            };
            assert_eq!(told, expected, "{path}");
        }
        assert_eq!(flips.len(), table::KEYS.len());
    }

    /// [`ALL`] with another line for a key.
    fn flipped(path: &str, line: &str) -> String {
        let (section, name) = path.rsplit_once('.').expect("a path");
        let header = if section == "routes[0]" { "[[routes]]".to_owned() } else { format!("[{section}]") };
        let mut inside = false;
        let mut done = false;
        let lines = ALL.lines().map(|old| {
            if old.starts_with('[') {
                inside = old == header;
            }
            if inside && !done && old.starts_with(&format!("{name} = ")) {
                done = true;
                return line.to_owned();
            }
            old.to_owned()
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        assert!(done, "{path} is not in the text");
        text
    }

    #[test]
    fn the_same_in_other_words_is_no_change() {
        let other = ALL.replace("\"1d\"", "\"24h\"").replace("\"64MiB\"", "\"67108864\"").replace("\"60s\"", "\"1m\"");
        assert_eq!(told(ALL, &other), Vec::<String>::new());
    }

    #[test]
    fn plugins_and_routes_come_and_go_as_one_and_have_an_order() {
        let more = format!("{ALL}\n[plugins.b]\npath = \"b.wasm\"\n[plugins.b.settings]\nx = 1\n");
        assert_eq!(told(ALL, &more), ["plugins.b Added live"]);
        assert_eq!(told(&more, ALL), ["plugins.b Removed live"]);
        assert_eq!(told(ALL, &ALL.replace("unit = \"C\"", "unit = \"F\"")), ["plugins.a.settings.unit Changed live"]);
        assert_eq!(told(ALL, &ALL.replace("unit = \"C\"", "")), ["plugins.a.settings.unit Removed live"]);
        let second = "[[routes]]\nname = \"s\"\ntopic = \"m/{serial_no}/s\"\nhandlers = [\"a\"]\n";
        let none = ALL.replace(second, "");
        let first = none.replacen("[[routes]]", &format!("{second}[[routes]]"), 1);
        assert_eq!(told(ALL, &none), ["routes.s Removed live"]);
        assert_eq!(told(ALL, &first), ["routes (their order) Changed live"]);
    }

    #[test]
    fn a_secret_of_another_process_may_have_changed() {
        let here = effective(ALL);
        // As it comes over the network.
        let there: Vec<Effective> =
            serde_json::from_str(&serde_json::to_string(&here).expect("JSON")).expect("the same");
        assert!(!format!("{there:?}").contains("first"), "{there:?}");
        let told = |here: &[Effective]| {
            difference(&there, here)
                .iter()
                .map(|change| format!("{} {:?}", change.key, change.what))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(&here),
            ["access.secret MayHaveChanged", "mqtt.password MayHaveChanged", "redis.url MayHaveChanged"]
        );
        let moved = effective(&ALL.replace("@cache", "@other"));
        assert_eq!(told(&moved), ["access.secret MayHaveChanged", "mqtt.password MayHaveChanged", "redis.url Changed"]);
        assert!(difference(&here, &here.clone()).is_empty());
        let changed = difference(&here, &effective(&ALL.replace("\"first\"", "\"second\"")));
        let shown = format!("{changed:?}");
        assert!(shown.contains("mqtt.password") && !shown.contains("second"), "{shown}");
    }
}
