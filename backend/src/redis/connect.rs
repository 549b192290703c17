//! How a connection to Redis is made, and what an error means.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use sluicegate_core::settings::RedisUrl;

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
        Ok(Self(Arc::new(Client::open(info).map_err(wrong)?)))
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
