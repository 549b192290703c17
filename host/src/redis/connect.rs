//! How a connection to Redis is made, kept and lost.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, RedisConnectionInfo, TlsCertificates, Value,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sluicegate_core::backoff::Backoff;
use sluicegate_core::settings::{Redis, RedisUrl, Tls};

use super::cluster::Nodes;
use super::wire::Wire;
use crate::telemetry::board::Board;
use crate::telemetry::clock;

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long Redis may take to answer a push; a longer silence is an outage, and whether the push happened is unknown.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// On a cluster's connection for blocking pops, which asks its nodes other things by itself (are you there, where are the slots) and
/// must not wait for ever. It is longer than a pop may last, so it ends none.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(15);

/// Why Redis did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisFault {
    /// The settings make no connection.
    #[error("cannot make a Redis client: {0}; check redis.url")]
    Client(String),
    /// A certificate or key file.
    #[error("cannot read {path} (redis.{key}): {why}")]
    TlsFile {
        /// The key of the settings.
        key: &'static str,
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// No answer or no connection: what was asked may have been done.
    #[error("{_0}{hint}", hint = hint(_0))]
    Unavailable(String),
    /// An answer that says no: nothing was done. It is never the fault of what was to be pushed.
    #[error("Redis refuses `{key}`: {answer}{}", hint(answer))]
    Refused {
        /// The whole key.
        key: String,
        /// In Redis's words.
        answer: String,
    },
    /// The list is longer than it may be: the back end is behind.
    #[error("the list has {length} entries, {most} are the most")]
    Long {
        /// Its entries.
        length: u64,
        /// The most.
        most: u64,
    },
    /// It does not know the script, which is to be loaded (again).
    #[error("the script is not loaded")]
    NoScript,
}

impl RedisFault {
    /// What an error of one command means. Servers' answers have a code; without one there was no answer.
    pub(super) fn answered(key: &str, error: &redis::RedisError) -> Self {
        match error.code() {
            Some("NOSCRIPT") => Self::NoScript,
            // The library's own text leaves out the word that people look for.
            Some(code) => Self::refused(key, format!("{code} {}", error.detail().unwrap_or_default())),
            None => Self::Unavailable(error.to_string()),
        }
    }

    /// Whether another server may say yes: the one that this connection leads to is a replica now, say, after a failover by name.
    pub(super) fn is_of_the_server(&self) -> bool {
        let words = ["READONLY", "MASTERDOWN", "NOAUTH", "LOADING"];
        matches!(self, Self::Refused { answer, .. } if words.iter().any(|word| answer.starts_with(word)))
    }

    pub(super) fn refused(key: &str, answer: String) -> Self {
        Self::Refused { key: key.to_owned(), answer }
    }
}

/// What to do about an answer of Redis.
fn hint(answer: &str) -> &'static str {
    let known = [
        ("OOM", "; raise its maxmemory or let the back end catch up"),
        ("READONLY", "; it is a replica: point redis.url to the master"),
        ("MISCONF", "; it cannot save to its disk: see its log"),
        ("NOAUTH", "; it wants a password: set it in redis.url"),
        ("WRONGPASS", "; user or password in redis.url is not what it knows"),
        ("AuthenticationFailed", "; user or password in redis.url is not what it knows"),
        ("BadSignature", "; redis.ca_file must hold the certificate that signed its own"),
        ("UnknownIssuer", "; redis.ca_file must hold the certificate that signed its own"),
        ("NotValidForName", "; its certificate is for another name than that in redis.url"),
        ("CertificateRequired", "; it wants a certificate: set redis.client_cert_file and redis.client_key_file"),
        ("NOPERM", "; its user may not do that: see its ACL"),
        ("WRONGTYPE", "; the key is no list: rename or delete it"),
        ("MOVED", "; it is a node of a cluster: set redis.cluster = true"),
        ("cluster support disabled", "; it is no cluster: set redis.cluster = false"),
        ("CLUSTERDOWN", "; slots of the cluster have no node: see CLUSTER INFO"),
        ("TRYAGAIN", "; its slot is on the way to another node"),
        ("ASK ", "; its slot is on the way to another node"),
        ("LOADING", "; it still reads its data"),
    ];
    known.iter().find(|(word, _)| answer.contains(word)).map_or("", |(_, hint)| hint)
}

impl From<redis::RedisError> for RedisFault {
    fn from(error: redis::RedisError) -> Self {
        match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => Self::Unavailable(format!("{code} {detail}")),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Makes connections to one Redis, or to one cluster.
#[derive(Clone)]
pub struct Connector {
    servers: Servers,
    scripts: bool,
}

#[derive(Clone)]
enum Servers {
    One(Arc<Client>),
    Cluster(Arc<Nodes>),
}

impl Connector {
    /// From the settings.
    ///
    /// # Errors
    /// [`RedisFault::Client`], where the settings make no connection.
    pub fn new(settings: &Redis, embedded: Option<SocketAddr>) -> Result<Self, RedisFault> {
        let wrong = |error: redis::RedisError| RedisFault::Client(error.to_string());
        let (address, server) = match (&settings.url, embedded) {
            (RedisUrl::Embedded, Some(address)) => {
                (ConnectionAddr::Tcp(address.ip().to_string(), address.port()), RedisConnectionInfo::default())
            }
            (RedisUrl::Embedded, None) => {
                return Err(RedisFault::Client("the embedded Redis is not running".to_owned()));
            }
            (RedisUrl::At { tls, host, port, db, username, password }, _) => {
                let address = if *tls {
                    ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
                } else {
                    ConnectionAddr::Tcp(host.clone(), *port)
                };
                let mut server = RedisConnectionInfo::default().set_db(*db);
                if let Some(username) = username {
                    server = server.set_username(username);
                }
                if let Some(password) = password {
                    server = server.set_password(&password.0);
                }
                (address, server)
            }
        };
        let info = address.into_connection_info().map_err(wrong)?;
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = info.set_redis_settings(server).set_tcp_settings(tcp);
        let encrypted = matches!(settings.url, RedisUrl::At { tls: true, .. });
        let certificates = if encrypted { certificates(&settings.tls)? } else { None };
        let servers = match (settings.cluster, certificates) {
            (true, certificates) => Servers::Cluster(Arc::new(Nodes::new(info, certificates, &settings.cluster_nodes))),
            (false, Some(certificates)) => {
                Servers::One(Arc::new(Client::build_with_tls(info, certificates).map_err(wrong)?))
            }
            (false, None) => Servers::One(Arc::new(Client::open(info).map_err(wrong)?)),
        };
        Ok(Self { servers, scripts: settings.url != RedisUrl::Embedded })
    }

    /// Whether the gateway uses scripts there. On the one in this process it does not: it is its one writer there, so nothing is to be one step; and that server knows a part of Lua alone.
    #[must_use]
    pub fn has_scripts(&self) -> bool {
        self.scripts
    }

    /// Whether the server answers, takes the user and the password, and has a list or nothing under a key.
    ///
    /// # Errors
    /// [`RedisFault`] says what it answers instead.
    pub async fn ask(&self, list: &str) -> Result<(), RedisFault> {
        let length = redis::cmd("LLEN").arg(list).query_async::<u64>(&mut self.connect().await?).await;
        length.map(drop).map_err(|error| RedisFault::answered(list, &error))
    }

    /// One connection, whose commands time out.
    pub(super) async fn connect(&self) -> Result<Wire, RedisFault> {
        match &self.servers {
            Servers::One(client) => connect(client, Some(RESPONSE_TIMEOUT)).await,
            Servers::Cluster(nodes) => Ok(Wire::Cluster(nodes.connect(RESPONSE_TIMEOUT).await?)),
        }
    }

    /// One connection that is told of every change of a key that begins so, where the server does that: a cluster tells on the node of the
    /// key alone, and the one in this process does not. It comes in the moment in which whoever changed the key is answered, in either order.
    pub(super) async fn connect_told(
        &self,
        prefix: &str,
        told: impl Fn(Told) + Send + Sync + 'static,
    ) -> Result<Option<Wire>, RedisFault> {
        let Servers::One(client) = &self.servers else { return Ok(None) };
        if !self.scripts {
            return Ok(None);
        }
        let info = client.get_connection_info();
        // Only by this protocol a server tells what nobody asked for.
        let server = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.clone().set_redis_settings(server))?;
        let heard = move |pushed: PushInfo| -> Result<(), ()> {
            match pushed.kind {
                PushKind::Invalidate => match pushed.data.as_slice() {
                    [Value::Array(keys)] => keys.iter().for_each(|key| told(Told::of(key))),
                    _ => told(Told::All),
                },
                PushKind::Disconnection => told(Told::Gone),
                _ => {}
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_push_sender(heard);
        let mut wire = Wire::Server(client.get_multiplexed_async_connection_with_config(&config).await?);
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(prefix);
        match tracking.exec_async(&mut wire).await.map_err(|error| RedisFault::answered(prefix, &error)) {
            Ok(()) => Ok(Some(wire)),
            Err(fault @ RedisFault::Refused { .. }) if !fault.is_of_the_server() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// One connection for blocking pops: the library's time-out would leave a pop alive in the server.
    pub(super) async fn connect_for_blocking(&self) -> Result<Wire, RedisFault> {
        match &self.servers {
            Servers::One(client) => connect(client, None).await,
            Servers::Cluster(nodes) => Ok(Wire::Cluster(nodes.connect(BLOCKING_TIMEOUT).await?)),
        }
    }
}

/// What the files of the settings hold; none: the system's certificates are trusted, and this gateway shows none.
fn certificates(tls: &Tls) -> Result<Option<TlsCertificates>, RedisFault> {
    let read = |key, path: &Path| {
        std::fs::read(path).map_err(|error| RedisFault::TlsFile {
            key,
            path: path.display().to_string(),
            why: error.to_string(),
        })
    };
    let client_tls = match (&tls.client_cert_file, &tls.client_key_file) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig {
            client_cert: read("client_cert_file", cert)?,
            client_key: read("client_key_file", key)?,
        }),
        _ => None,
    };
    let root_cert = tls.ca_file.as_deref().map(|path| read("ca_file", path)).transpose()?;
    if let Some(pem) = &root_cert {
        holds_certificates(pem).map_err(|why| RedisFault::Client(format!("redis.ca_file: {why}")))?;
    }
    Ok((client_tls.is_some() || root_cert.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}

/// The library takes a file without any for one that trusts nobody, and each connection would fail without a reason.
fn holds_certificates(pem: &[u8]) -> Result<(), String> {
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        certificate.map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == 0 { Err("it holds no certificate in PEM".to_owned()) } else { Ok(()) }
}

/// What a server tells of the keys that it was asked to tell of.
pub(super) enum Told {
    /// This one has another value, or is gone.
    Changed(String),
    /// All may have.
    All,
    /// The connection is lost: nothing more is told.
    Gone,
}

impl Told {
    fn of(key: &Value) -> Self {
        match key {
            Value::BulkString(key) => str::from_utf8(key).map_or(Self::All, |key| Self::Changed(key.to_owned())),
            _ => Self::All,
        }
    }
}

async fn connect(client: &Client, response: Option<Duration>) -> Result<Wire, RedisFault> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(response);
    Ok(Wire::Server(client.get_multiplexed_async_connection_with_config(&config).await?))
}

/// Tells the log and the board, once when it begins and once when it ends, that Redis is away; and how long to wait.
pub struct Link {
    board: Arc<Board>,
    backoff: Backoff,
    purpose: &'static str,
    up: bool,
    said: bool,
}

impl Link {
    /// `purpose` is what the log calls this connection.
    #[must_use]
    pub fn new(board: Arc<Board>, purpose: &'static str) -> Self {
        Self { board, backoff: Backoff::for_servers(), purpose, up: false, said: false }
    }

    /// Redis answered.
    pub fn up(&mut self) {
        if !self.up {
            tracing::info!(connection = self.purpose, "Connected to Redis");
            self.board.set_redis(self.purpose, None);
        }
        self.up = true;
        self.said = false;
        self.backoff.reset();
    }

    /// It did not: how long to wait before the next try.
    pub fn down(&mut self, fault: &RedisFault) -> Duration {
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(connection = self.purpose, reason = %fault, "Redis does not take or give; trying again");
        }
        self.up = false;
        self.board.set_redis(self.purpose, Some(fault.to_string()));
        self.backoff.next(clock::chance())
    }
}
