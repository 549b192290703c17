//! The downlink connection: publishes and tells what the broker answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{ConnAck, Packet, PubAckReason, PublishProperties};
use rumqttc::{AsyncClient, Event, EventLoop, NoticeFailureReason, PublishNoticeError, PublishOptions, PublishResult};
use sluicegate_core::settings::Mqtt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connect::{self, Connect, MqttError, Retry};
use crate::telemetry::board::{Board, Connection, ConnectionState};
use crate::telemetry::causes::with_causes;

/// What a PUBLISH has beside its topic and its payload: header, packet id, message expiry.
const OVERHEAD: usize = 32;

/// What the broker answered to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has it (reason code 0x00).
    Delivered,
    /// It has it, and nobody is subscribed (0x10).
    NoSubscriber,
    /// It refused it for good; the text names the reason code.
    Refused(String),
    /// It refused it now (a quota, an error of its own); the text names the reason code.
    Busy(String),
    /// It is not known whether the broker has it: the connection broke. It is to be published again.
    Unknown,
    /// The connection is no more: the gateway ends.
    Gone,
}

/// Publishes on the downlink connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    client: AsyncClient,
    connected: watch::Receiver<bool>,
    largest: Arc<AtomicU32>,
}

/// Drives the downlink connection.
pub struct Connected {
    name: String,
    events: EventLoop,
    client: AsyncClient,
    board: Arc<Board>,
    retry: Retry,
    connected: watch::Sender<bool>,
    /// The largest packet that the broker takes.
    largest: Arc<AtomicU32>,
    in_flight: usize,
}

/// Prepares the connection; nothing is sent yet.
///
/// # Errors
/// [`MqttError`], where the settings cannot make a connection.
pub fn prepare(
    mqtt: &Mqtt,
    embedded: Option<SocketAddr>,
    in_flight: usize,
    board: Arc<Board>,
) -> Result<(Publisher, Connected), MqttError> {
    let connect = Connect {
        client_id: format!("{}-commands", mqtt.client_id),
        // It subscribes to nothing.
        receive_maximum: 1,
        send_maximum: u16::try_from(in_flight).unwrap_or(u16::MAX),
        requests: in_flight,
        // A command stands in the processing list until its PUBACK: a session would only send it twice after a restart.
        session: false,
    };
    let options = connect::options(mqtt, embedded, &connect)?;
    let (client, events) = AsyncClient::builder(options)
        .capacity(connect.requests)
        .try_build()
        .map_err(|error| MqttError::Client(error.to_string()))?;
    let (sender, connected) = watch::channel(false);
    let largest = Arc::new(AtomicU32::new(u32::MAX));
    let publisher = Publisher { client: client.clone(), connected, largest: largest.clone() };
    let name = mqtt.name.clone();
    let connection =
        Connected { name, events, client, board, retry: Retry::new(), connected: sender, largest, in_flight };
    Ok((publisher, connection))
}

impl Publisher {
    /// Waits until the connection stands. False: it never will again.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn connected(&self) -> bool {
        self.connected.clone().wait_for(|connected| *connected).await.is_ok()
    }

    /// Publishes at QoS 1 and waits for the PUBACK. `expiry` is the rest of the message's life, in seconds [MQTT 5, 3.3.2.3.3]. What is not
    /// written when the connection breaks is not written later.
    ///
    /// # Cancel safety
    /// Dropped, the message may still be published.
    pub async fn publish(&self, topic: String, body: Bytes, expiry: u32) -> Answer {
        let largest = self.largest.load(Ordering::Relaxed);
        if topic.len() + body.len() + OVERHEAD > largest as usize {
            return Answer::Refused(format!("it has {} bytes, and the broker takes packets of {largest}", body.len()));
        }
        let properties = PublishProperties { message_expiry_interval: Some(expiry), ..PublishProperties::default() };
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
        let notice = match self.client.publish_tracked(topic, body, options).await {
            Ok(notice) => notice,
            Err(error) => {
                tracing::debug!(%error, "a command cannot be handed to the connection");
                return Answer::Gone;
            }
        };
        match notice.wait_async().await {
            Ok(PublishResult::Qos1(ack)) => by_reason(ack.reason),
            Ok(_) => Answer::Delivered,
            Err(PublishNoticeError::V5PubAck(reason)) => by_reason(reason),
            Err(_) => Answer::Unknown,
        }
    }
}

fn by_reason(reason: PubAckReason) -> Answer {
    match reason {
        PubAckReason::Success => Answer::Delivered,
        PubAckReason::NoMatchingSubscribers => Answer::NoSubscriber,
        reason @ (PubAckReason::UnspecifiedError
        | PubAckReason::ImplementationSpecificError
        | PubAckReason::QuotaExceeded) => Answer::Busy(format!("the broker answered {reason:?}")),
        reason => Answer::Refused(format!("the broker answered {reason:?}")),
    }
}

impl Connected {
    fn on_grants(&self, connack: &ConnAck) {
        let Some(properties) = &connack.properties else { return };
        self.largest.store(properties.max_packet_size.unwrap_or(u32::MAX), Ordering::Relaxed);
        let granted = properties.receive_max.map(usize::from).filter(|granted| *granted < self.in_flight);
        let text = granted.map(|granted| {
            format!("{} takes {granted} commands at once, where commands.in_flight is {}", self.name, self.in_flight)
        });
        if let Some(text) = text {
            tracing::info!("{text}");
        }
    }

    /// Keeps the connection until `stop`, then disconnects.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut connected = false;
        loop {
            let polled = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                polled = self.events.poll() => polled,
            };
            match polled {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                    connected = true;
                    self.on_grants(&connack);
                    self.connected.send_replace(true);
                    self.retry.connected();
                    tracing::info!(connection = "commands", "Connected to {}", self.name);
                    self.board.set_connection(Connection::MqttCommands, ConnectionState::Connected { detail: None });
                }
                Ok(_) => {}
                Err(error) => {
                    connected = false;
                    self.connected.send_replace(false);
                    // Who waits for them asks anew, where they may still be sent: nothing is sent late.
                    self.events.drain_pending_as_failed(NoticeFailureReason::SessionReset);
                    let (delay, first) = self.retry.failed();
                    let reason = with_causes(&error);
                    if first {
                        tracing::warn!(connection = "commands", %reason, "no connection to {}; trying again", self.name);
                    }
                    self.board.set_connection(Connection::MqttCommands, ConnectionState::Down { reason });
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
        if connected && self.client.disconnect().await.is_ok() {
            while self.events.poll().await.is_ok() {}
        }
    }
}
