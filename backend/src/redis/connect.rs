//! How a connection to Redis is made, and what an error means.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    TlsCertificates,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sluicegate_core::settings::{RedisUrl, Tls};

use crate::settings::Redis;

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long Redis may take to answer; a longer silence is an outage, and whether what was asked was done is unknown.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// An answer that says no: nothing was done.
    #[error("Redis refuses `{key}`: {answer}{}", hint(answer))]
    Refused {
        /// The whole key.
        key: String,
        /// In Redis's words.
        answer: String,
    },
}

impl RedisFault {
    /// What an error of one command means. Servers' answers have a code; without one there was no answer.
    pub(super) fn answered(key: &str, error: &redis::RedisError) -> Self {
        match error.code() {
            // The library's own text leaves out the word that people look for.
            Some(code) => {
                Self::Refused { key: key.to_owned(), answer: format!("{code} {}", error.detail().unwrap_or_default()) }
            }
            None => Self::Unavailable(error.to_string()),
        }
    }

    /// Whether another server may say yes: the one that this connection leads to is a replica now, say.
    pub(super) fn is_of_the_server(&self) -> bool {
        let words = ["READONLY", "MASTERDOWN", "NOAUTH", "LOADING"];
        matches!(self, Self::Refused { answer, .. } if words.iter().any(|word| answer.starts_with(word)))
    }
}

/// What to do about an answer of Redis.
fn hint(answer: &str) -> &'static str {
    let known = [
        ("OOM", "; raise its maxmemory"),
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
        ("WRONGTYPE", "; the key has another type: rename or delete it"),
        ("MOVED", "; it is a node of a cluster, which this program does not speak to"),
        ("LOADING", "; it still reads its data"),
    ];
    known.iter().find(|(word, _)| answer.contains(word)).map_or("", |(_, hint)| hint)
}

/// Makes connections to one Redis.
#[derive(Clone)]
pub struct Connector(Arc<Client>);

impl Connector {
    /// From the settings.
    ///
    /// # Errors
    /// [`RedisFault::Client`], where the settings make no connection.
    pub fn new(settings: &Redis) -> Result<Self, RedisFault> {
        let wrong = |error: redis::RedisError| RedisFault::Client(error.to_string());
        let RedisUrl::At { tls, host, port, db, username, password } = &settings.url else {
            return Err(RedisFault::Client("it names no server".to_owned()));
        };
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
        let info = address.into_connection_info().map_err(wrong)?;
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = info.set_redis_settings(server).set_tcp_settings(tcp);
        let certificates = if *tls { certificates(&settings.tls)? } else { None };
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(info, certificates),
            None => Client::open(info),
        };
        Ok(Self(Arc::new(client.map_err(wrong)?)))
    }

    /// One connection, whose commands time out.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, RedisFault> {
        self.connect_with(Some(RESPONSE_TIMEOUT)).await
    }

    /// One connection for blocking pops: the library's time-out would leave a pop alive in the server.
    pub(super) async fn connect_for_blocking(&self) -> Result<MultiplexedConnection, RedisFault> {
        self.connect_with(None).await
    }

    async fn connect_with(&self, response: Option<Duration>) -> Result<MultiplexedConnection, RedisFault> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(response);
        let connection = self.0.get_multiplexed_async_connection_with_config(&config).await;
        connection.map_err(|error| match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => RedisFault::Unavailable(format!("{code} {detail}")),
            _ => RedisFault::Unavailable(error.to_string()),
        })
    }
}

/// What the files of the settings hold; none: the system's certificates are trusted, and this program shows none.
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
