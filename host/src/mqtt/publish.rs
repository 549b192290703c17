//! The downlink connection: publishes and tells what the broker answered.
//!
//! Invariant: what the library is given it may send at once, on the connection that it was given for. It would keep what is beyond the
//! broker's receive maximum, and what it did not write when a connection broke, and send that whenever it can: here each publish has a
//! place in that window before its sender decides that it may still be sent, and nothing is handed over between two connections.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{ConnAck, Packet, PubAckReason, PublishProperties};
use rumqttc::{AsyncClient, Event, EventLoop, NoticeFailureReason, PublishNoticeError, PublishOptions, PublishResult};
use sluicegate_core::settings::Mqtt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::connect::{self, Connect, MqttError, Retry};
use super::grants;
use super::subscribe::Wanted;
use crate::telemetry::board::{Board, Connection, ConnectionState};
use crate::telemetry::causes::with_causes;

/// What a PUBLISH has beside its topic and its payload: header, packet id, message expiry.
const OVERHEAD: usize = 32;
/// How long a broker may take to close a connection that another one follows.
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(1);

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
}

/// What the broker granted on one connection.
#[derive(Debug)]
struct Granted {
    client: AsyncClient,
    /// Publishes that it takes before it answered to one of them.
    window: Arc<Semaphore>,
    /// Of those, how many may be plugins': so that commands find places, whatever plugins publish. Places are given in the order in which they
    /// are asked for, so that plugins' come to their turn among any number of commands.
    shared: Arc<Semaphore>,
    /// So many.
    places: u32,
    /// The largest packet that it takes.
    largest: usize,
    /// Whether it keeps retained messages.
    retains: bool,
}

/// What stands now; the lock is held for a look, and while a publish is handed over.
type Standing = Arc<Mutex<Option<Arc<Granted>>>>;

/// Publishes on the downlink connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    standing: Standing,
    /// Tells that another connection stands, or none; gone: none ever will.
    changed: watch::Receiver<()>,
}

/// A place for one publish on the connection that stands.
#[derive(Debug)]
pub struct Place {
    standing: Standing,
    granted: Arc<Granted>,
    /// Given back with the broker's answer.
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// What is published, at QoS 1.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where to.
    pub topic: String,
    /// What.
    pub body: Bytes,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// The rest of its life, in seconds [MQTT 5, 3.3.2.3.3]; none: it has no end.
    pub expiry: Option<u32>,
}

/// Drives the downlink connection.
pub struct Connected {
    mqtt: Arc<Mqtt>,
    embedded: Option<SocketAddr>,
    events: EventLoop,
    client: AsyncClient,
    /// What is wanted of the broker, where that changed.
    wanted: watch::Receiver<Wanted>,
    board: Arc<Board>,
    retry: Retry,
    standing: Standing,
    changed: watch::Sender<()>,
    in_flight: usize,
}

/// Prepares the connection; nothing is sent yet.
///
/// # Errors
/// [`MqttError`], where the settings cannot make a connection.
pub fn prepare(
    mut wanted: watch::Receiver<Wanted>,
    embedded: Option<SocketAddr>,
    in_flight: usize,
    board: Arc<Board>,
) -> Result<(Publisher, Connected), MqttError> {
    let mqtt = wanted.borrow_and_update().mqtt.clone();
    let (client, events) = connection(&mqtt, embedded, in_flight)?;
    let (changed, receiver) = watch::channel(());
    let standing = Standing::default();
    let publisher = Publisher { standing: standing.clone(), changed: receiver };
    let retry = Retry::new();
    let connection = Connected { mqtt, embedded, events, client, wanted, board, retry, standing, changed, in_flight };
    Ok((publisher, connection))
}

/// A connection that is not made yet.
fn connection(
    mqtt: &Mqtt,
    embedded: Option<SocketAddr>,
    in_flight: usize,
) -> Result<(AsyncClient, EventLoop), MqttError> {
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
    let builder = AsyncClient::builder(options).capacity(connect.requests);
    builder.try_build().map_err(|error| MqttError::Client(error.to_string()))
}

fn now(standing: &Standing) -> Option<Arc<Granted>> {
    standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Publisher {
    /// Waits until a connection stands and the broker takes one more. None: there never will be one again.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn place(&self) -> Option<Place> {
        self.place_of(false).await
    }

    /// The same for what a plugin publishes.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn place_for_plugins(&self) -> Option<Place> {
        self.place_of(true).await
    }

    /// Whether a connection stands.
    #[must_use]
    pub fn stands(&self) -> bool {
        now(&self.standing).is_some()
    }

    async fn place_of(&self, plugins: bool) -> Option<Place> {
        let mut changed = self.changed.clone();
        loop {
            changed.mark_unchanged();
            let granted = now(&self.standing);
            let permit = async {
                match &granted {
                    Some(granted) => {
                        let share =
                            if plugins { Some(granted.shared.clone().acquire_owned().await.ok()?) } else { None };
                        Some((granted.window.clone().acquire_owned().await.ok()?, share))
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = changed.changed() => ended.ok()?,
                permits = permit => {
                    let (Some(permits), Some(granted)) = (permits, granted) else { return None };
                    return Some(Place { standing: self.standing.clone(), granted, _permits: permits });
                }
            }
        }
    }
}

impl Place {
    /// Publishes and waits for the PUBACK. What is not written when the connection breaks is not written later.
    ///
    /// # Cancel safety
    /// Dropped, the message may still be published, and takes a place of the window that is given to others.
    pub async fn publish(self, publish: Publish) -> Answer {
        let Publish { topic, body, retain, expiry } = publish;
        let largest = self.granted.largest;
        if retain && !self.granted.retains {
            // Sent all the same, it would end the connection [MQTT-3.2.2-14].
            return Answer::Refused("the broker keeps no retained messages".to_owned());
        }
        if topic.len() + body.len() + OVERHEAD > largest {
            return Answer::Refused(format!("it has {} bytes, and the broker takes packets of {largest}", body.len()));
        }
        let notice = {
            let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            if !standing.as_ref().is_some_and(|granted| Arc::ptr_eq(granted, &self.granted)) {
                return Answer::Unknown;
            }
            let properties = PublishProperties { message_expiry_interval: expiry, ..PublishProperties::default() };
            let options = PublishOptions::new(QoS::AtLeastOnce).retain(retain).properties(properties);
            // Invariant: the channel has a place for each place of the window.
            self.granted.client.try_publish_tracked(topic, body, options)
        };
        let notice = match notice {
            Ok(notice) => notice,
            Err(error) => {
                tracing::debug!(%error, "a publish cannot be handed to the connection");
                return Answer::Unknown;
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
    /// What the broker grants, and what is worth knowing of it.
    fn grants(&self, connack: &ConnAck) -> (Granted, Option<String>) {
        let properties = connack.properties.as_ref();
        let largest = properties.and_then(|properties| properties.max_packet_size).unwrap_or(u32::MAX);
        let (most, less) = grants::window(connack, self.in_flight);
        let detail = less.map(|less| format!("{} {less}", self.mqtt.name));
        let places = most.min(self.in_flight);
        let (window, shared) = (Arc::new(Semaphore::new(places)), Arc::new(Semaphore::new((places / 2).max(1))));
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        let client = self.client.clone();
        let retains = properties.and_then(|properties| properties.retain_available).is_none_or(|is| is == 1);
        let largest = usize::try_from(largest).unwrap_or(usize::MAX);
        (Granted { client, window, shared, places, largest, retains }, detail)
    }

    fn stands(&self, granted: Option<Granted>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = granted.map(Arc::new);
        self.changed.send_replace(());
    }

    /// Keeps the connection until `stop`, then disconnects.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut connected = false;
        // All places of a connection that gives no more of them: another is made once they are given back.
        let mut leaving: Option<Arc<Granted>> = None;
        loop {
            let places = leaving.as_ref().map(|granted| granted.window.clone());
            let polled = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = self.wanted.changed(), if connected && leaving.is_none() => {
                    if *self.wanted.borrow_and_update().mqtt != *self.mqtt {
                        leaving = now(&self.standing);
                        self.stands(None);
                    }
                    continue;
                }
                () = given_back(places, leaving.as_ref().map_or(0, |granted| granted.places)) => {
                    leaving = None;
                    connected = false;
                    // A broker that does not close in time finds the next connection in its place.
                    let _ = tokio::time::timeout(GOODBYE, self.disconnect()).await;
                    self.by_other_settings();
                    continue;
                }
                polled = self.events.poll() => polled,
            };
            match polled {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                    connected = true;
                    let (granted, detail) = self.grants(&connack);
                    self.retry.connected();
                    tracing::info!(connection = "commands", "Connected to {}", self.mqtt.name);
                    if let Some(detail) = &detail {
                        tracing::info!("{detail}");
                    }
                    self.board.set_connection(Connection::MqttCommands, ConnectionState::Connected { detail });
                    self.stands(Some(granted));
                }
                Ok(_) => {}
                Err(error) => {
                    (connected, leaving) = (false, None);
                    // From here on nothing is handed over before the next connection stands.
                    self.stands(None);
                    self.events.clean();
                    // Who waits for them asks anew, where they may still be sent: nothing is sent late.
                    self.events.drain_pending_as_failed(NoticeFailureReason::SessionReset);
                    let (delay, first) = self.retry.failed();
                    let reason = with_causes(&error);
                    if first {
                        tracing::warn!(connection = "commands", %reason, "no connection to {}; trying again", self.mqtt.name);
                    }
                    self.board.set_connection(Connection::MqttCommands, ConnectionState::Down { reason });
                    tokio::select! {
                        () = stop.cancelled() => break,
                        // What is wanted now may be what keeps the broker from answering, such as a password.
                        Ok(()) = self.wanted.changed() => {}
                        () = tokio::time::sleep(delay) => {}
                    }
                    let wanted = self.wanted.borrow_and_update().mqtt.clone();
                    if *wanted != *self.mqtt {
                        self.by_other_settings();
                    }
                }
            }
        }
        if connected {
            self.disconnect().await;
        }
    }

    async fn disconnect(&mut self) {
        if self.client.disconnect().await.is_ok() {
            while self.events.poll().await.is_ok() {}
        }
    }

    /// Between two connections.
    fn by_other_settings(&mut self) {
        let wanted = self.wanted.borrow_and_update().mqtt.clone();
        match connection(&wanted, self.embedded, self.in_flight) {
            Ok((client, events)) => {
                tracing::info!(connection = "commands", "connecting anew to {}, by other settings", wanted.name);
                (self.mqtt, self.client, self.events) = (wanted, client, events);
            }
            // It was looked at before it was wanted; a file may be gone since.
            Err(error) => {
                let reason = with_causes(&error);
                tracing::error!(connection = "commands", %reason, "cannot connect by the new settings; trying the old ones");
                self.events.clean();
                self.mqtt = wanted;
            }
        }
    }
}

/// Waits until all places of a connection are given back; without one for ever.
async fn given_back(window: Option<Arc<Semaphore>>, places: u32) {
    match window {
        // Closed it never is.
        Some(window) => drop(window.acquire_many(places).await),
        None => std::future::pending().await,
    }
}
