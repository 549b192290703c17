//! How a connection to the broker is made, and how long to wait before the next try.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::{AckMode, Broker, ConnectionError, MqttOptions, NetworkOptions, TlsConfiguration, Transport};
use sluicegate_core::backoff::Backoff;
use sluicegate_core::settings::{Mqtt, MqttUrl, Tls};
use tokio::time::Instant;

use super::session::NothingUnderWay;

/// How long the broker may be silent before the connection counts as dead [MQTT-3.1.2-22].
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: u64 = 5;
/// A connection that lived shorter than this counts as a failure: of two gateways with one client id, each ends the
/// other's session, and without this they would do so as fast as they can.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// A publish grows when the broker passes it on as MQTT 5; one larger than the maximum would vanish [MQTT-3.1.2-25].
const PACKET_ALLOWANCE: u64 = 64 << 10;

/// Why a connection cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// A certificate or key file.
    #[error("cannot read {path}: {source}; check mqtt.{key}")]
    TlsFile {
        /// The key of the settings.
        key: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The library refuses these options.
    #[error("cannot make an MQTT client: {0}")]
    Client(String),
}

/// What a connection needs beside the settings.
#[derive(Debug, Clone)]
pub struct Connect {
    /// The client id of this connection.
    pub client_id: String,
    /// Publishes that the broker may have under way to us.
    pub receive_maximum: u16,
    /// Publishes that we may have under way to the broker.
    pub send_maximum: u16,
    /// Requests that fit into the client's channel.
    pub requests: usize,
    /// Whether the broker keeps a session for it while it is away.
    pub session: bool,
}

/// The library's options.
///
/// # Errors
/// [`MqttError::TlsFile`], where a certificate cannot be read.
pub(super) fn options(
    mqtt: &Mqtt,
    embedded: Option<std::net::SocketAddr>,
    connect: &Connect,
) -> Result<MqttOptions, MqttError> {
    let (tls, host, port) = match (&mqtt.url, embedded) {
        (MqttUrl::At { tls, host, port }, _) => (*tls, host.clone(), *port),
        (MqttUrl::Embedded, Some(address)) => (false, address.ip().to_string(), address.port()),
        (MqttUrl::Embedded, None) => return Err(MqttError::Client("the embedded broker is not running".to_owned())),
    };
    let mut options = MqttOptions::new(connect.client_id.clone(), Broker::tcp(host, port));
    let expiry = u32::try_from(mqtt.session_expiry.as_secs()).unwrap_or(u32::MAX);
    let largest = u32::try_from(mqtt.max_packet_size.0 + PACKET_ALLOWANCE).unwrap_or(u32::MAX);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_keep_alive(u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX))
        .set_clean_start(!connect.session)
        .set_receive_maximum(Some(connect.receive_maximum))
        .set_max_packet_size(Some(largest))
        .set_ack_mode(AckMode::Manual)
        // Each flush scans that many slots: the default of 65,535 costs 277 µs a time.
        .set_outgoing_inflight_upper_limit(connect.send_maximum)
        .set_request_channel_capacity(connect.requests)
        .set_max_request_batch(256)
        .set_connect_timeout(Duration::from_secs(CONNECT_TIMEOUT))
        .set_network_options(network);
    if connect.session {
        let store = NothingUnderWay { expiry, send_maximum: connect.send_maximum };
        options.set_session_expiry_interval(Some(expiry)).set_session_store(store);
    }
    if let Some(username) = &mqtt.username {
        match &mqtt.password {
            Some(password) => options.set_credentials(username.clone(), password.0.clone()),
            None => options.set_username(username.clone()),
        };
    }
    if tls {
        options.set_transport(Transport::tls_with_config(tls_configuration(&mqtt.tls)?));
    }
    Ok(options)
}

/// Reads what a connection needs beside the settings: the files for TLS.
///
/// # Errors
/// [`MqttError::TlsFile`], where one cannot be read.
pub fn check(mqtt: &Mqtt) -> Result<(), MqttError> {
    match mqtt.url {
        MqttUrl::At { tls: true, .. } => tls_configuration(&mqtt.tls).map(drop),
        MqttUrl::At { tls: false, .. } | MqttUrl::Embedded => Ok(()),
    }
}

fn tls_configuration(tls: &Tls) -> Result<TlsConfiguration, MqttError> {
    let read = |key, path: &std::path::Path| {
        std::fs::read(path).map_err(|source| MqttError::TlsFile { key, path: path.display().to_string(), source })
    };
    let client_auth = match (&tls.client_cert_file, &tls.client_key_file) {
        (Some(cert), Some(key)) => Some((read("client_cert_file", cert)?, read("client_key_file", key)?)),
        _ => None,
    };
    Ok(match &tls.ca_file {
        Some(ca) => TlsConfiguration::Simple { ca: read("ca_file", ca)?, alpn: None, client_auth },
        None => TlsConfiguration::default(),
    })
}

/// A connection's error as people read it: the whole chain, in one line.
pub(super) fn describe(error: &ConnectionError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// Remembers how the last connections went.
pub(super) struct Retry {
    backoff: Backoff,
    since: Option<Instant>,
    said: bool,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self { backoff: Backoff::for_servers(), since: None, said: false }
    }

    pub(super) fn connected(&mut self) {
        self.since = Some(Instant::now());
        self.said = false;
    }

    /// The connection failed or could not be made: how long to wait, and whether this is the first time to say so.
    pub(super) fn failed(&mut self) -> (Duration, bool) {
        if self.since.take().is_some_and(|since| since.elapsed() >= STABLE_AFTER) {
            self.backoff.reset();
        }
        let first = !std::mem::replace(&mut self.said, true);
        (self.backoff.next(crate::telemetry::clock::chance()), first)
    }
}

/// The user properties of a publish.
pub(super) fn user_properties(properties: Option<rumqttc::mqttbytes::v5::PublishProperties>) -> Vec<(String, String)> {
    properties.map(|properties| properties.user_properties).unwrap_or_default()
}

/// The topic as text; a broker that keeps to [MQTT-1.5.4-1] sends nothing else.
pub(super) fn topic_text(topic: &Bytes) -> String {
    String::from_utf8_lossy(topic).into_owned()
}
