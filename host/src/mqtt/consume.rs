//! The uplink connection: takes publishes, hands them on with a ticket, and acknowledges what is settled, in the order of
//! arrival. It never waits for an outcome.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{ConnAck, Packet, Publish, RetainForwardRule, SubscribeFilter, SubscribeReasonCode};
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, ManualAck, Outgoing};
use sluicegate_core::ledger::Ledger;
use sluicegate_core::settings::Mqtt;
use sluicegate_core::ticket::Ticket;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connect::{self, Connect, MqttError, Retry};
use crate::telemetry::board::{Board, Connection, ConnectionState};

/// One publish, as the broker delivered it.
#[derive(Debug)]
pub struct Incoming {
    /// What settles it.
    pub ticket: Ticket,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Its user properties [MQTT 5, 3.3.2.3.7].
    pub properties: Vec<(String, String)>,
    /// 0: it is delivered at most once, and may be dropped where there is no room.
    pub qos: u8,
}

/// Where publishes go.
pub trait Intake {
    /// Takes one. Waiting here stops the connection, so it must wait only where the alternative is to lose a message.
    fn take(&mut self, incoming: Incoming) -> impl Future<Output = ()> + Send;
}

/// Tickets that were settled since the connection last looked.
///
/// The list is bounded by the publishes under way. A lock and not a channel, so that settling never waits: the
/// connection may itself be waiting for room in a lane, and a lane for the sink that settles.
#[derive(Debug, Default)]
pub struct Settled {
    tickets: Mutex<Vec<Ticket>>,
    some: Notify,
}

impl Settled {
    /// These outcomes are durable.
    pub fn settle(&self, tickets: impl IntoIterator<Item = Ticket>) {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).extend(tickets);
        self.some.notify_one();
    }

    fn take(&self) -> Vec<Ticket> {
        std::mem::take(&mut *self.tickets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A topic filter to subscribe to, and its quality of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The filter.
    pub filter: String,
    /// 0, 1 or 2.
    pub qos: u8,
}

/// The connection that consumes.
pub struct Consumer {
    name: String,
    client: AsyncClient,
    events: EventLoop,
    subscriptions: Vec<Subscription>,
    ledger: Ledger<ManualAck>,
    settled: Arc<Settled>,
    board: Arc<Board>,
    retry: Retry,
    connected: bool,
    /// Acknowledgements that are queued and not written yet: a DISCONNECT would overtake them.
    unwritten: usize,
    last: Last,
}

/// The last round trip before a DISCONNECT. A socket that is closed while the broker still sends is reset, and with it go
/// acknowledgements that the broker has not read. So it is asked once more for what it has granted already: its answer says
/// that it read all that came before.
#[derive(Debug, PartialEq, Eq)]
enum Last {
    NotAsked,
    Asked,
    Answered,
}

enum Step {
    Stop,
    Settled,
    Polled(Box<Result<Event, ConnectionError>>),
}

impl Consumer {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// [`MqttError`], where the settings cannot make a connection.
    pub fn new(
        mqtt: &Mqtt,
        embedded: Option<SocketAddr>,
        subscriptions: Vec<Subscription>,
        settled: Arc<Settled>,
        board: Arc<Board>,
    ) -> Result<Self, MqttError> {
        let connect = Connect {
            client_id: mqtt.client_id.clone(),
            receive_maximum: mqtt.receive_maximum,
            send_maximum: 1,
            // Every publish under way can be acknowledged, and room is left for the subscription.
            requests: usize::from(mqtt.receive_maximum) + 16,
            session: true,
        };
        let options = connect::options(mqtt, embedded, &connect)?;
        let (client, events) = AsyncClient::builder(options)
            .capacity(connect.requests)
            .try_build()
            .map_err(|error| MqttError::Client(error.to_string()))?;
        Ok(Self {
            name: mqtt.name.clone(),
            client,
            events,
            subscriptions,
            ledger: Ledger::default(),
            settled,
            board,
            retry: Retry::new(),
            connected: false,
            unwritten: 0,
            last: Last::NotAsked,
        })
    }

    /// Consumes until `stop`; then takes nothing more, acknowledges what was taken as it is settled, and disconnects.
    pub async fn run(mut self, mut intake: impl Intake, stop: CancellationToken) {
        let mut stopping = false;
        loop {
            if stopping && self.ledger.open() == 0 && self.unwritten == 0 && self.last == Last::NotAsked {
                self.subscribe();
                self.last = Last::Asked;
            }
            if stopping && (self.last == Last::Answered || !self.connected) {
                break;
            }
            // `poll` keeps what it has read and written when it is dropped, except while it connects: so a settled ticket
            // interrupts it only on a connection that stands.
            let step = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => Step::Stop,
                () = self.settled.some.notified(), if self.connected => Step::Settled,
                polled = self.events.poll() => Step::Polled(Box::new(polled)),
            };
            match step {
                Step::Stop => stopping = true,
                Step::Settled => self.acknowledge(),
                Step::Polled(polled) => match *polled {
                    Ok(Event::Incoming(Packet::Publish(publish))) if !stopping => self.take(publish, &mut intake).await,
                    Ok(Event::Incoming(packet)) => self.on_packet(&packet),
                    Ok(Event::Outgoing(Outgoing::PubAck(_) | Outgoing::PubRec(_))) => {
                        self.unwritten = self.unwritten.saturating_sub(1);
                    }
                    Ok(_) => {}
                    Err(error) => self.on_error(&error, &stop).await,
                },
            }
        }
        self.disconnect().await;
    }

    async fn take(&mut self, publish: Publish, intake: &mut impl Intake) {
        let qos = publish.qos as u8;
        let ticket = self.ledger.arrived(self.client.prepare_ack(&publish));
        let incoming = Incoming {
            ticket,
            topic: connect::topic_text(&publish.topic),
            payload: publish.payload,
            properties: connect::user_properties(publish.properties),
            qos,
        };
        intake.take(incoming).await;
    }

    fn acknowledge(&mut self) {
        for ticket in self.settled.take() {
            self.ledger.settle(ticket);
        }
        while let Some(acknowledgement) = self.ledger.next_due() {
            // Invariant: the channel holds as many requests as there can be publishes under way.
            match self.client.try_manual_ack(acknowledgement) {
                Ok(()) => self.unwritten += 1,
                Err(error) => {
                    tracing::error!(%error, "cannot queue an acknowledgement; the broker will send the message again");
                }
            }
        }
    }

    fn on_packet(&mut self, packet: &Packet) {
        match packet {
            Packet::ConnAck(connack) => self.on_connected(connack),
            Packet::SubAck(suback) => {
                let refused =
                    self.subscriptions.iter().zip(&suback.return_codes).find_map(|(wanted, code)| match code {
                        SubscribeReasonCode::Success(_) => None,
                        code => Some(format!("the broker refused the subscription to {}: {code:?}", wanted.filter)),
                    });
                match refused {
                    Some(reason) => {
                        tracing::error!(%reason, "cannot subscribe; check the broker's access rules");
                        self.board.set_connection(Connection::Mqtt, ConnectionState::Down { reason });
                    }
                    None => self.board.set_connection(Connection::Mqtt, ConnectionState::Connected { detail: None }),
                }
                if self.last == Last::Asked {
                    self.last = Last::Answered;
                }
            }
            Packet::Disconnect(disconnect) => {
                tracing::warn!(reason = ?disconnect.reason_code, "the broker ends the connection");
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, connack: &ConnAck) {
        self.connected = true;
        self.retry.connected();
        let epoch = self.ledger.reconnected();
        tracing::info!(session_present = connack.session_present, epoch = epoch.0, "Connected to {}", self.name);
        self.subscribe();
    }

    fn subscribe(&self) {
        let filters = self.subscriptions.iter().map(|subscription| SubscribeFilter {
            path: subscription.filter.clone(),
            qos: match subscription.qos {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            nolocal: false,
            preserve_retain: false,
            // Retained messages are no news: they would come again with every connection.
            retain_forward_rule: RetainForwardRule::Never,
        });
        if let Err(error) = self.client.try_subscribe_many(filters) {
            tracing::error!(%error, "cannot queue the subscription");
        }
    }

    async fn on_error(&mut self, error: &ConnectionError, stop: &CancellationToken) {
        self.connected = false;
        self.unwritten = 0;
        // What was not acknowledged on this connection never will be: its tickets are of an older epoch from now on.
        self.ledger.reconnected();
        let (delay, first) = self.retry.failed();
        let reason = connect::describe(error);
        if first {
            tracing::warn!(%reason, "no connection to {}; trying again", self.name);
        } else {
            tracing::debug!(%reason, ?delay, "still no connection to {}", self.name);
        }
        self.board.set_connection(Connection::Mqtt, ConnectionState::Down { reason });
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }

    async fn disconnect(mut self) {
        if !self.connected || self.client.disconnect().await.is_err() {
            return;
        }
        // The gateway's shutdown limit bounds this.
        while self.events.poll().await.is_ok() {}
    }
}
