//! Every key of the settings, in one table: its type, its default, when a change of it applies, what it means. The reader,
//! the schema and the documentation are made from it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Any text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Integer(u64, u64),
    /// `10s`, `100ms`, `5m`, `1h`, `1d`; bounds in milliseconds.
    Duration(u64, u64),
    /// `64KiB`, `1MiB`, `1GiB`; bounds in bytes.
    Size(u64, u64),
    /// `5%`, `0.1%`, from 0 to 100.
    Percent,
    /// A number within bounds, not always whole.
    Number(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// `+08:00` or `Z`.
    Offset,
    /// `mqtt://host:port`, `mqtts://host:port` or `embedded`.
    MqttUrl,
    /// `redis://host:port/db`, `rediss://…` or `embedded`.
    RedisUrl,
    /// `address:port`.
    Address,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text"),
            Self::Bool => f.write_str("`true` or `false`"),
            Self::Integer(least, most) => write!(f, "an integer from {least} to {most}"),
            Self::Duration(least, most) => write!(
                f,
                "a duration such as \"10s\" (units ms, s, m, h, d), from {} to {}",
                super::units::show_millis(*least),
                super::units::show_millis(*most)
            ),
            Self::Size(least, most) => write!(
                f,
                "a size such as \"1MiB\" (units B, KiB, MiB, GiB), from {} to {}",
                super::ByteSize(*least),
                super::ByteSize(*most)
            ),
            Self::Percent => f.write_str("a share such as \"5%\", from 0% to 100%"),
            Self::Number(least, most) => write!(f, "a number from {least} to {most} such as 5.0"),
            Self::Word(words) => write!(f, "one of \"{}\"", words.join("\", \"")),
            Self::Texts => f.write_str("a list of texts"),
            Self::Offset => f.write_str("an offset from UTC such as \"+08:00\" or \"Z\""),
            Self::MqttUrl => f.write_str("\"mqtt://host:port\", \"mqtts://host:port\" or \"embedded\""),
            Self::RedisUrl => f.write_str("\"redis://[user:password@]host:port[/db]\", \"rediss://…\" or \"embedded\""),
            Self::Address => f.write_str("an address and a port such as \"127.0.0.1:9090\""),
        }
    }
}

/// When a change of a key applies, while the gateway runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Applies {
    /// At once: messages that are under way keep what they began with.
    Live,
    /// By another connection to the broker, made once what came on the old one is acknowledged.
    Reconnect,
    /// By a restart of the gateway: while it runs the edit is refused.
    Restart,
}

impl fmt::Display for Applies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Reconnect => "reconnect",
            Self::Restart => "restart",
        })
    }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its section: `mqtt`, `plugins.*`, `plugins.*.limits`, `routes`.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Type,
    /// Its default, as it would be written; none: it must be set, or may be left out (see `meaning`).
    pub default: Option<&'static str>,
    /// When a change of it applies.
    pub applies: Applies,
    /// Whether it is never shown.
    pub secret: bool,
    /// What it is for.
    pub meaning: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Type,
    default: Option<&'static str>,
    meaning: &'static str,
) -> Key {
    Key { section, name, kind, default, applies: Applies::Live, secret: false, meaning }
}

impl Key {
    /// A change of it is not applied while the gateway runs.
    const fn restart(mut self) -> Self {
        self.applies = Applies::Restart;
        self
    }

    /// A change of it makes another connection to the broker.
    const fn reconnect(mut self) -> Self {
        self.applies = Applies::Reconnect;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

use Type::{Address, Bool, Duration, Integer, MqttUrl, Number, Offset, Percent, RedisUrl, Size, Text, Texts, Word};

/// All of them.
pub const KEYS: &[Key] = &[
    key(
        "gateway",
        "instance",
        Text,
        Some("${SLUICEGATE_INSTANCE:-gateway-1}"),
        "Who this gateway is, among several; the same after a restart.",
    )
    .restart(),
    key("gateway", "time_zone", Offset, Some("+08:00"), "The offset of `received_at`."),
    key("gateway", "shutdown_timeout", Duration(100, 3_600 * SECOND), Some("10s"), "How long an orderly end may take."),
    key(
        "gateway",
        "state",
        Text,
        Some("state"),
        "Folder of what must outlive a restart (last good builds, their history, compiled code), relative to the settings file; each gateway has its own.",
    ).restart(),
    key(
        "gateway",
        "compile_memory",
        Size(256 * MIB, 64 << 30),
        Some("1GiB"),
        "Memory that compiling a plugin may take, in its own process.",
    ).restart(),
    key(
        "gateway",
        "compile_time",
        Duration(SECOND, 3_600 * SECOND),
        Some("120s"),
        "Processor time that compiling a plugin may take, at a low priority.",
    ).restart(),
    key(
        "mqtt",
        "url",
        MqttUrl,
        Some("mqtt://${MQTT_BROKER_HOST:-127.0.0.1}:${MQTT_BROKER_PORT:-1883}"),
        "Where the broker is; `embedded` starts one in this process, for trying out.",
    )
    .restart(),
    key(
        "mqtt",
        "client_id",
        Text,
        Some("${MQTT_GATEWAY_CLIENT_ID:-sluicegate}"),
        "The client id of the uplink connection; the downlink's adds `-commands`.",
    )
    .restart(),
    key("mqtt", "name", Text, Some("MQTT broker"), "What log and status call the broker.").reconnect(),
    key("mqtt", "username", Text, None, "The user name, where the broker wants one.").reconnect(),
    key("mqtt", "password", Text, None, "Its password; best as `${file:PATH}`.").reconnect().secret(),
    key("mqtt", "ca_file", Text, None, "Certificates (PEM) to trust instead of the system's.").reconnect(),
    key("mqtt", "client_cert_file", Text, None, "This gateway's certificate chain (PEM).").reconnect(),
    key("mqtt", "client_key_file", Text, None, "Its private key (PEM).").reconnect(),
    key(
        "mqtt",
        "session_expiry",
        Duration(SECOND, 3_650 * DAY),
        Some("1d"),
        "How long the broker keeps the session of a gateway that is away.",
    )
    .reconnect(),
    key(
        "mqtt",
        "receive_maximum",
        Integer(1, 65_535),
        Some("2000"),
        "Publishes that the broker may have under way to the gateway, unacknowledged.",
    )
    .reconnect(),
    key(
        "mqtt",
        "max_packet_size",
        Size(KIB, 256 * MIB),
        Some("1MiB"),
        "The largest packet; 64 KiB are added, since a publish grows when it is passed on.",
    )
    .reconnect(),
    key(
        "mqtt",
        "in_flight_bytes",
        Size(MIB, 1 << 40),
        Some("64MiB"),
        "Bytes of messages in memory; beyond it they go to the spool as they came.",
    ),
    key(
        "redis",
        "url",
        RedisUrl,
        Some("redis://${MQTT_REDIS_HOST:-127.0.0.1}:${MQTT_REDIS_PORT:-6379}"),
        "Where Redis is; `embedded` starts one in this process, for trying out.",
    )
    .restart(),
    key("redis", "ca_file", Text, None, "Certificates (PEM) to trust instead of the system's, for `rediss://`.").restart(),
    key("redis", "client_cert_file", Text, None, "This gateway's certificate chain (PEM), where Redis wants one.").restart(),
    key("redis", "client_key_file", Text, None, "Its private key (PEM).").restart(),
    key(
        "redis",
        "cluster",
        Bool,
        Some("false"),
        "Whether it is a Redis Cluster; `redis.url` is then one of its nodes, which tells of the others.",
    )
    .restart(),
    key(
        "redis",
        "cluster_nodes",
        Texts,
        Some("[]"),
        "More of its nodes, `host:port`, for a start while that of `redis.url` is away.",
    )
    .restart(),
    key("redis", "key_prefix", Text, Some(""), "What the back end's own client puts before every key.").restart(),
    key("redis", "wait_replicas", Integer(0, 100), Some("0"), "Replicas that must have a push before it counts.")
        .restart(),
    key("queues", "incoming", Text, Some("mqtt_incoming_jobs"), "The list of jobs."),
    key("queues", "outgoing", Text, Some("mqtt_outgoing_commands"), "The list of commands.").restart(),
    key(
        "queues",
        "command_results",
        Text,
        None,
        "A list that gets what became of each command; none: nobody is told. The newest 100,000 are kept.",
    )
    .restart(),
    key("queues", "dead_letters", Text, Some("mqtt_dead_letters"), "The list of what no attempt could process.")
        .restart(),
    key(
        "queues",
        "incoming_max",
        Integer(0, 1_000_000_000),
        Some("0"),
        "Entries of a list of jobs beyond which the gateway keeps what comes in its spool; 0: it always pushes.",
    ),
    key(
        "queues",
        "dead_letters_max",
        Integer(1, 1_000_000_000),
        Some("100000"),
        "The newest so many dead letters are kept.",
    ),
    key("spool", "path", Text, Some("spool"), "Its folder, relative to the settings file; each gateway has its own.")
        .restart(),
    key(
        "spool",
        "max_size",
        Size(MIB, 1 << 50),
        Some("1GiB"),
        "Its bound on the disk; size it for the longest outage of Redis.",
    ),
    key("trust", "keys", Texts, Some("[]"), "Minisign public keys (`RW…`) whose signatures are good."),
    key("trust", "required", Bool, Some("false"), "Whether a plugin without a signature is refused."),
    key("trust", "revoked", Texts, Some("[]"), "Builds (`sha256:…`) that are refused whoever signed them."),
    key("plugins.*", "path", Text, None, "The component file; relative to the settings file. Must be set."),
    key(
        "plugins.*",
        "instances",
        Word(&["warm", "fresh"]),
        Some("warm"),
        "How long an instance lives: `warm` for many calls, `fresh` for one, so that nothing of one machine's message is there for the next.",
    ),
    key("plugins.*", "digest", Text, None, "`sha256:…` of the one build that is taken; none: any build is."),
    key("plugins.*.limits", "call_timeout", Duration(1, 60 * SECOND), Some("100ms"), "Wall time of one call."),
    key("plugins.*.limits", "memory", Size(64 * KIB, 256 * MIB), Some("32MiB"), "Memory of one instance."),
    key("plugins.*.limits", "output", Size(KIB, 64 * MIB), Some("1MiB"), "All outputs of one call together."),
    key("plugins.*.limits", "outputs", Integer(1, 100_000), Some("1000"), "Outputs of one call."),
    key(
        "plugins.*.limits",
        "table_elements",
        Integer(1, 100_000),
        Some("20000"),
        "Elements of an instance's tables together: functions that it calls by pointer.",
    ),
    key(
        "plugins.*.limits",
        "host_calls",
        Integer(0, 1_000_000),
        Some("1000"),
        "Calls of the host's functions in one call.",
    ),
    key("plugins.*.limits", "log_lines", Integer(0, 100_000), Some("200"), "Lines that it may log in a second."),
    key("plugins.*.limits", "log_bytes", Size(0, 64 * MIB), Some("64KiB"), "Bytes that it may log in a second."),
    key(
        "plugins.*.limits",
        "calls",
        Integer(1, 1_000_000_000),
        Some("10000"),
        "Calls that an instance serves before it is made anew; with `instances = \"fresh\"` it is one.",
    ),
    key(
        "plugins.*.limits",
        "instances",
        Integer(1, 1_000),
        None,
        "Instances at once, over all lanes; unless set, as many as have 256 MiB together, 2 to 32; those of all plugins together are 500 at the most.",
    ),
    key("plugins.*.limits", "state_keys", Integer(1, 10_000_000), Some("10000"), "Keys of its state (grants.state)."),
    key(
        "plugins.*.limits",
        "state_value",
        Size(1, MIB),
        Some("64KiB"),
        "One value of its state; a call reads and writes 4 MiB at the most.",
    ),
    key(
        "plugins.*.limits",
        "time_per_second",
        Duration(1, 1_000 * SECOND),
        None,
        "Its share of the processor in each second, over all lanes; beyond it its messages wait. Unless set, there is none.",
    ),
    key("plugins.*.limits", "http_requests", Integer(0, 1_000), Some("4"), "HTTP requests in one call."),
    key(
        "plugins.*.limits",
        "http_in_flight",
        Integer(1, 256),
        Some("16"),
        "HTTP requests at once, over all lanes; one more waits, in its call's time.",
    ),
    key("plugins.*.limits", "http_request", Size(0, 64 * MIB), Some("1MiB"), "Body of an HTTP request."),
    key("plugins.*.limits", "http_response", Size(KIB, 64 * MIB), Some("1MiB"), "Body of the answer to it."),
    key(
        "plugins.*.rehearse",
        "messages",
        Integer(0, 256),
        Some("256"),
        "The last real messages of each of its routes that a new build is tried on before it is live; 0: none.",
    ),
    key(
        "plugins.*.rehearse",
        "max_new_failures",
        Percent,
        Some("0%"),
        "Of those, how many it may fail at where the live build does not.",
    ),
    key(
        "plugins.*.rehearse",
        "max_slowdown",
        Number(1, 1_000),
        Some("5.0"),
        "How many times as long as the live build it may take for them, on average.",
    ),
    key(
        "plugins.*.canary",
        "percent",
        Number(0, 100),
        Some("0"),
        "Of all machines, so many serve as canaries: a new build handles their messages first. A hash of the serial number chooses them.",
    ),
    key(
        "plugins.*.canary",
        "machines",
        Texts,
        Some("[]"),
        "Serial numbers that serve as canaries beside those; `*` stands for any characters.",
    ),
    key(
        "plugins.*.canary",
        "for",
        Duration(SECOND, 30 * DAY),
        Some("5m"),
        "How long it handles those alone; then it handles all, unless it does worse than the live build by the measure of `probation`.",
    ),
    key(
        "plugins.*.probation",
        "for",
        Duration(0, DAY),
        Some("2m"),
        "How long a new build is judged once it is live; 0s: not at all. One that does worse than the build before is rolled back.",
    ),
    key("plugins.*.probation", "min_calls", Integer(1, 1_000_000), Some("200"), "Calls before which it is not judged."),
    key(
        "plugins.*.probation",
        "max_new_failures",
        Percent,
        Some("10%"),
        "How much more of its calls may fail than of those of the build before.",
    ),
    key(
        "plugins.*.probation",
        "max_slowdown",
        Number(1, 1_000),
        Some("5.0"),
        "How many times as long as before a call may take, on average.",
    ),
    key(
        "plugins.*.grants",
        "state",
        Bool,
        Some("false"),
        "Its own keys in Redis, which outlast a call: get, set, delete, increment.",
    ),
    key(
        "plugins.*.grants",
        "publish",
        Texts,
        Some("[]"),
        "Topics that it may publish to by MQTT; `{serial_no}` and other named levels stand for those of the message's own topic.",
    ),
    key(
        "plugins.*.grants",
        "http",
        Texts,
        Some("[]"),
        "Servers that it may call: `HOST`, `https://HOST`, `http://HOST` (not encrypted), each with a `:PORT` where it is another one.",
    ),
    key(
        "plugins.*.grants",
        "http_private",
        Texts,
        Some("[]"),
        "Names in `http` that may lead to private addresses (this machine, a company's network); an address in `http` needs no more.",
    ),
    key("routes", "name", Text, None, "Unique. Must be set."),
    key("routes", "type", Text, None, "The envelope's `type`; the route's name, unless set."),
    key("routes", "topic", Text, None, "A topic filter with named levels, `{serial_no}` among them. Must be set."),
    key("routes", "handlers", Texts, None, "Plugins, in order. Must be set."),
    key("routes", "queue", Text, None, "The list of its jobs; `queues.incoming`, unless set."),
    key("routes", "qos", Integer(0, 2), Some("1"), "Of the subscription."),
    key("routes", "attempts", Integer(1, 100), Some("3"), "Of a message whose handler fails in a way that may pass."),
    key(
        "routes",
        "on_failure",
        Word(&["dead-letter", "drop", "block", "pass-through"]),
        Some("dead-letter"),
        "What becomes of a message whose attempts are used up; `block` tries for ever, `pass-through` pushes it as it came.",
    ),
    key(
        "routes",
        "dedupe",
        Duration(SECOND, 365 * DAY),
        None,
        "A job with an idempotency key seen within this time is not pushed again.",
    ),
    key(
        "routes",
        "priority",
        Word(&["normal", "low"]),
        Some("normal"),
        "Low routes are set aside first while the back end is behind: from half of `queues.incoming_max` on.",
    ),
    key(
        "routes",
        "when_behind",
        Word(&["all", "latest"]),
        Some("all"),
        "What a low route keeps then: all, or of each machine the newest.",
    ),
    key(
        "commands",
        "topic",
        Text,
        Some("machine/{target}/command"),
        "Where commands are published; holds `{target}` once.",
    ),
    key(
        "commands",
        "validator",
        Text,
        None,
        "The plugin that checks them; the one named `command-validation` where there is one, unless set.",
    ),
    key(
        "commands",
        "expiry",
        Duration(SECOND, 365 * DAY),
        Some("60s"),
        "Of a command that names none itself, from when the gateway takes it.",
    ),
    key("commands", "in_flight", Integer(1, 10_000), Some("1000"), "Commands sent and not yet confirmed.").restart(),
    key(
        "commands",
        "wait_for_subscriber",
        Duration(0, DAY),
        Some("30s"),
        "How long a command is tried while no one listens on its machine's topic.",
    ),
    key(
        "commands",
        "dedupe",
        Duration(0, 365 * DAY),
        Some("1h"),
        "A `message_id` that was sent within this time is not sent again; 0: it always is.",
    ),
    key("admin", "listen", Address, Some("127.0.0.1:9090"), "/healthz /readyz /metrics /api/status").restart(),
    key(
        "access",
        "listen",
        Address,
        None,
        "Where EMQX asks who may log in and who may do what (/emqx/authenticate, /emqx/authorize); unless set, nowhere. It speaks no TLS: a network that only EMQX is in.",
    )
    .restart(),
    key(
        "access",
        "secret",
        Text,
        None,
        "What EMQX sends as `authorization: Bearer SECRET`, 16 characters or more; best as `${file:PATH}`. Must be set where `listen` is.",
    )
    .secret(),
    key("access", "gateway_user", Text, Some("sluicegate"), "The gateway's own user name at the broker; no machine may have it."),
    key(
        "access",
        "keys",
        Text,
        Some("machine_auth:"),
        "What stands before a serial number in Redis, behind `redis.key_prefix`; there is the SHA-256 of its token, as a string or as `password_hash` of a hash.",
    )
    .restart(),
    key(
        "access",
        "cache_entries",
        Integer(0, 1_000_000),
        Some("10000"),
        "Machines whose tokens are kept in memory while Redis tells of every change, for what they do once they are in (a login is always read from Redis); 0: it is asked each time.",
    ),
    key("access", "cache_ttl", Duration(0, DAY), Some("5m"), "How long at the most."),
    key(
        "access",
        "failures_per_minute",
        Integer(1, 10_000),
        Some("10"),
        "Wrong tokens for a user name from one address that are looked at; beyond it the answer is no, whatever the token.",
    ),
];

/// The key that a path such as `mqtt.url`, `plugins.acme.limits.memory` or `routes[2].topic` means; none where it is no key of the
/// table (`plugins.acme.settings.x` is the plugin's own).
#[must_use]
pub fn at(path: &str) -> Option<&'static Key> {
    let (section, name) = path.rsplit_once('.')?;
    let section = match section.split_once('.') {
        Some(("plugins", rest)) => match rest.split_once('.') {
            None => "plugins.*",
            Some((_, "limits")) => "plugins.*.limits",
            Some((_, "rehearse")) => "plugins.*.rehearse",
            Some((_, "canary")) => "plugins.*.canary",
            Some((_, "probation")) => "plugins.*.probation",
            Some((_, "grants")) => "plugins.*.grants",
            Some(_) => return None,
        },
        _ if section.starts_with("routes[") => "routes",
        _ => section,
    };
    of(section).find(|key| key.name == name)
}

/// The keys of a section.
pub fn of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}
