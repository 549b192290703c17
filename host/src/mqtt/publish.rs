//! The downlink connection: publishes and tells what the broker answered.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::{AsyncClient, Event, EventLoop, PublishNoticeError, PublishOptions, PublishResult};
use sluicegate_core::settings::Mqtt;
use tokio_util::sync::CancellationToken;

use super::connect::{self, Connect, MqttError, Retry};
use crate::telemetry::board::{Board, Connection, ConnectionState};

/// What the broker answered to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has it (reason code 0x00).
    Delivered,
    /// It has it, and nobody is subscribed (0x10).
    NoSubscriber,
    /// It refused it (0x80 and above); the text names the reason code.
    Refused(String),
    /// It is not known whether the broker has it: the session is gone. It is to be published again.
    Unknown,
}

/// Publishes on the downlink connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    client: AsyncClient,
}

/// Drives the downlink connection.
pub struct Connected {
    name: String,
    events: EventLoop,
    client: AsyncClient,
    board: Arc<Board>,
    retry: Retry,
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
    let connected = Connected { name: mqtt.name.clone(), events, client: client.clone(), board, retry: Retry::new() };
    Ok((Publisher { client }, connected))
}

impl Publisher {
    /// Publishes at QoS 1 and waits for the PUBACK; while the broker is away it waits.
    ///
    /// # Cancel safety
    /// Dropped, the message may still be published.
    pub async fn publish(&self, topic: String, body: Bytes) -> Answer {
        let notice = match self.client.publish_tracked(topic, body, PublishOptions::new(QoS::AtLeastOnce)).await {
            Ok(notice) => notice,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        match notice.wait_async().await {
            Ok(PublishResult::Qos1(ack)) => by_reason(ack.reason),
            Ok(_) => Answer::Delivered,
            Err(PublishNoticeError::V5PubAck(reason)) => by_reason(reason),
            Err(PublishNoticeError::SessionReset | PublishNoticeError::Recv) => Answer::Unknown,
            Err(error) => Answer::Refused(error.to_string()),
        }
    }
}

fn by_reason(reason: PubAckReason) -> Answer {
    match reason {
        PubAckReason::Success => Answer::Delivered,
        PubAckReason::NoMatchingSubscribers => Answer::NoSubscriber,
        reason => Answer::Refused(format!("the broker answered {reason:?}")),
    }
}

impl Connected {
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
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    connected = true;
                    self.retry.connected();
                    tracing::info!(connection = "commands", "Connected to {}", self.name);
                    self.board.set_connection(Connection::MqttCommands, ConnectionState::Connected { detail: None });
                }
                Ok(_) => {}
                Err(error) => {
                    connected = false;
                    let (delay, first) = self.retry.failed();
                    let reason = connect::describe(&error);
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
