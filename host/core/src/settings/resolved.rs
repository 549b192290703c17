//! The settings as the rest of the program reads them: every default filled in, every value checked.

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use super::{ByteSize, UtcOffset, table, units};
use crate::canary::Machines;
use crate::compared::Tolerance;
use crate::digest::Digest;
use crate::http::HttpGrant;
use crate::topic::{TopicPattern, TopicTemplate};
use crate::trust::Trust;

/// All of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[mqtt]`
    pub mqtt: Mqtt,
    /// `[redis]`
    pub redis: Redis,
    /// `[queues]`
    pub queues: Queues,
    /// `[spool]`
    pub spool: Spool,
    /// `[trust]`
    pub trust: Trust,
    /// `[plugins.NAME]`, in the file's order.
    pub plugins: IndexMap<String, Plugin>,
    /// `[[routes]]`, in the file's order: the first that matches takes the message.
    pub routes: Vec<Route>,
    /// `[commands]`
    pub commands: Commands,
    /// `[admin]`
    pub admin: Admin,
    /// `[access]`
    pub access: Access,
}

/// `[gateway]`
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Who this gateway is, among several; the same after a restart.
    pub instance: String,
    /// Of `received_at`.
    pub time_zone: UtcOffset,
    /// How long an orderly end may take.
    pub shutdown_timeout: Duration,
    /// The folder of what must outlive a restart, already joined with the settings file's.
    pub state: PathBuf,
    /// `compile_memory`, `compile_time`
    pub compile: CompileLimits,
}

/// What compiling one plugin may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space of the process that does it.
    pub memory: ByteSize,
    /// Of the processor.
    pub time: Duration,
}

impl Default for CompileLimits {
    fn default() -> Self {
        let default = |name| default("gateway", name);
        Self {
            memory: units::parse_size(default("compile_memory")).expect("the default is a size"),
            time: units::parse_duration(default("compile_time")).expect("the default is a duration"),
        }
    }
}

/// What a key is, unless set.
fn default(section: &'static str, name: &str) -> &'static str {
    let key = table::of(section).find(|key| key.name == name);
    key.and_then(|key| key.default).expect("it has a default in the table of keys")
}

/// A text that is never shown: `Debug` prints stars.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq)]
pub struct Mqtt {
    /// Where the broker is.
    pub url: MqttUrl,
    /// Of the uplink connection; the downlink's adds `-commands`.
    pub client_id: String,
    /// What log and status call the broker.
    pub name: String,
    /// User name and password.
    pub username: Option<String>,
    /// Only together with `username`.
    pub password: Option<Secret>,
    /// Files for `mqtts://`.
    pub tls: Tls,
    /// How long the broker keeps the session of a gateway that is away.
    pub session_expiry: Duration,
    /// Publishes under way to the gateway, unacknowledged.
    pub receive_maximum: u16,
    /// The largest packet that the gateway takes.
    pub max_packet_size: ByteSize,
    /// Payload bytes in memory at once.
    pub in_flight_bytes: ByteSize,
}

/// `ca_file`, `client_cert_file`, `client_key_file`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tls {
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// This gateway's certificate chain (PEM).
    pub client_cert_file: Option<PathBuf>,
    /// Its key (PEM).
    pub client_key_file: Option<PathBuf>,
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MqttUrl {
    /// In this process, for trying out.
    Embedded,
    /// At an address.
    At {
        /// `mqtts://`
        tls: bool,
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Where Redis is.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisUrl {
    /// In this process, for trying out.
    Embedded,
    /// At an address.
    At {
        /// `rediss://`
        tls: bool,
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// Database number.
        db: i64,
        /// ACL user.
        username: Option<String>,
        /// Password.
        password: Option<Secret>,
    },
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::At { tls, host, port, db, .. } => {
                write!(f, "redis{}://{host}:{port}/{db}", if *tls { "s" } else { "" })
            }
        }
    }
}

/// `[redis]`
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// Where it is.
    pub url: RedisUrl,
    /// Files for `rediss://`.
    pub tls: Tls,
    /// Whether that is a node of a cluster.
    pub cluster: bool,
    /// Hosts and ports of more of its nodes.
    pub cluster_nodes: Vec<(String, u16)>,
    /// What the back end's own client puts before every key.
    pub key_prefix: String,
    /// Replicas that must have a push before it counts.
    pub wait_replicas: u32,
}

/// `[queues]`; names without the prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Queues {
    /// Jobs for the back end.
    pub incoming: String,
    /// Commands from the back end.
    pub outgoing: String,
    /// What became of commands, where it is wanted.
    pub command_results: Option<String>,
    /// What no attempt could process.
    pub dead_letters: String,
    /// Entries of a list of jobs beyond which the spool keeps what comes; none: it is always pushed.
    pub incoming_max: Option<u64>,
    /// The newest so many are kept.
    pub dead_letters_max: u64,
}

/// `[spool]`
#[derive(Debug, Clone, PartialEq)]
pub struct Spool {
    /// Its folder.
    pub path: PathBuf,
    /// Its bound.
    pub max_size: ByteSize,
}

/// `[plugins.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// The component file, absolute or relative to the working directory (already joined with the settings file's folder).
    pub path: PathBuf,
    /// The one build that is taken; none: any is.
    pub digest: Option<Digest>,
    /// What the plugin reads with `setting`; numbers and booleans as text.
    pub settings: IndexMap<String, String>,
    /// `[plugins.NAME.limits]`
    pub limits: Limits,
    /// `[plugins.NAME.rehearse]`
    pub rehearse: Rehearse,
    /// `[plugins.NAME.canary]`; none: a new build is live for all at once.
    pub canary: Option<Canary>,
    /// `[plugins.NAME.probation]`
    pub probation: Probation,
    /// `[plugins.NAME.grants]`
    pub grants: Grants,
}

/// `[plugins.NAME.limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall time of one call.
    pub call_timeout: Duration,
    /// Linear memory of one instance.
    pub memory: ByteSize,
    /// All outputs of one call together.
    pub output: ByteSize,
    /// Outputs of one call.
    pub outputs: usize,
    /// Elements of an instance's tables together.
    pub table_elements: usize,
    /// Calls of the host's functions in one call.
    pub host_calls: u32,
    /// Lines logged in a second.
    pub log_lines: u32,
    /// Bytes logged in a second.
    pub log_bytes: ByteSize,
    /// Calls that an instance serves; one, where each call has a fresh one.
    pub calls: u32,
    /// Instances at once.
    pub instances: usize,
    /// Keys of its state.
    pub state_keys: u64,
    /// One value of its state.
    pub state_value: ByteSize,
    /// Of the processor in a second; none: as much as there is.
    pub time_per_second: Option<Duration>,
    /// `http_requests`, `http_in_flight`, `http_request`, `http_response`
    pub http: HttpLimits,
}

/// How much a plugin may call over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Requests in one call.
    pub requests: u32,
    /// Requests at once, over all lanes.
    pub in_flight: usize,
    /// A request's body.
    pub request: ByteSize,
    /// An answer's body.
    pub response: ByteSize,
}

/// What all instances of a build may hold together, where their number is not set.
const MAX_INSTANCES_BYTES: u64 = 256 << 20;
/// The most that there are then, however small they are: other builds need places of the engine too.
const MAX_INSTANCES: usize = 32;

impl Limits {
    /// How many instances there may be of all plugins together, each by its own limit.
    pub const INSTANCES_OF_ALL: usize = 500;

    /// How many instances there may be of a build, where that is not set.
    #[must_use]
    pub fn instances_of(memory: ByteSize) -> usize {
        usize::try_from(MAX_INSTANCES_BYTES / memory.0.max(1)).unwrap_or(usize::MAX).clamp(2, MAX_INSTANCES)
    }
}

impl Default for Limits {
    fn default() -> Self {
        let default = |name| default("plugins.*.limits", name);
        let size = |name| units::parse_size(default(name)).expect("the default is a size");
        let number = |name| default(name).parse::<u32>().expect("the default is a number");
        Self {
            call_timeout: units::parse_duration(default("call_timeout")).expect("the default is a duration"),
            memory: size("memory"),
            output: size("output"),
            outputs: number("outputs") as usize,
            table_elements: number("table_elements") as usize,
            host_calls: number("host_calls"),
            log_lines: number("log_lines"),
            log_bytes: size("log_bytes"),
            calls: number("calls"),
            instances: Self::instances_of(size("memory")),
            state_keys: u64::from(number("state_keys")),
            state_value: size("state_value"),
            time_per_second: None,
            http: HttpLimits {
                requests: number("http_requests"),
                in_flight: number("http_in_flight") as usize,
                request: size("http_request"),
                response: size("http_response"),
            },
        }
    }
}

/// `[plugins.NAME.rehearse]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rehearse {
    /// The last messages of each route that a new build is tried on.
    pub messages: usize,
    /// How much worse than the live build it may be.
    pub tolerance: Tolerance,
}

impl Default for Rehearse {
    fn default() -> Self {
        let tolerance = Tolerance { new_failures: 0.0, slowdown: 5.0 };
        Self { messages: 256, tolerance }
    }
}

/// `[plugins.NAME.canary]`
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// Whose messages a new build handles first.
    pub machines: Machines,
    /// How long it handles those alone.
    pub for_: Duration,
}

/// `[plugins.NAME.probation]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probation {
    /// How long a new build is judged once it is live.
    pub for_: Duration,
    /// Calls before which it is not.
    pub min_calls: u64,
    /// How much worse than the build before it may be.
    pub tolerance: Tolerance,
}

impl Default for Probation {
    fn default() -> Self {
        let tolerance = Tolerance { new_failures: 0.1, slowdown: 5.0 };
        Self { for_: Duration::from_secs(120), min_calls: 200, tolerance }
    }
}

/// `[plugins.NAME.grants]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// Its own keys in Redis.
    pub state: bool,
    /// Topics that it may publish to.
    pub publish: Vec<TopicPattern>,
    /// Servers that it may call.
    pub http: Vec<HttpGrant>,
}

/// `[[routes]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Unique.
    pub name: String,
    /// The envelope's `type`.
    pub kind: String,
    /// Its topic, with named captures, one of which is `serial_no`.
    pub topic: TopicPattern,
    /// Names of plugins, in order.
    pub handlers: Vec<String>,
    /// The list that its jobs go to, without the prefix.
    pub queue: String,
    /// Of the subscription: 0, 1 or 2.
    pub qos: u8,
    /// Of a message whose handler fails in a way that may pass.
    pub attempts: u32,
    /// What then.
    pub on_failure: OnFailure,
    /// Jobs with an idempotency key seen within this time are not pushed again.
    pub dedupe: Option<Duration>,
    /// Which are set aside first while the back end is behind.
    pub priority: Priority,
    /// What is kept then.
    pub when_behind: WhenBehind,
}

/// `on_failure`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the settings' own words")]
pub enum OnFailure {
    DeadLetter,
    Drop,
    Block,
    PassThrough,
}

/// `priority`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the settings' own words")]
pub enum Priority {
    Normal,
    Low,
}

/// `when_behind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the settings' own words")]
pub enum WhenBehind {
    All,
    Latest,
}

/// `[commands]`
#[derive(Debug, Clone, PartialEq)]
pub struct Commands {
    /// Where they are published; holds `{target}` once, as a whole level.
    pub topic: TopicTemplate,
    /// The plugin that checks them; none: only the host's own checks.
    pub validator: Option<String>,
    /// Of a command that names none itself, from when it is taken.
    pub expiry: Duration,
    /// Sent and not yet confirmed.
    pub in_flight: usize,
    /// While no one listens on its machine's topic.
    pub wait_for_subscriber: Duration,
    /// How long a `message_id` that was sent is remembered.
    pub dedupe: Duration,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address and port; port 0 takes a free one.
    pub listen: std::net::SocketAddr,
}

/// `[access]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Address and port; port 0 takes a free one. None: nobody is answered.
    pub listen: Option<std::net::SocketAddr>,
    /// What the broker shows to be the broker.
    pub secret: Option<Secret>,
    /// The gateway's user name at the broker.
    pub gateway_user: String,
    /// What stands before a serial number, without the prefix.
    pub keys: String,
    /// Tokens in memory.
    pub cache_entries: usize,
    /// How long at the most.
    pub cache_ttl: Duration,
    /// Wrong tokens for a user name from one address.
    pub failures_per_minute: u32,
}
