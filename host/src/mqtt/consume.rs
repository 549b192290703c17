//! The uplink connection: takes publishes, hands them on with a ticket, and acknowledges what is settled, in the order of
//! arrival. It never waits for an outcome.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rumqttc::mqttbytes::v5::{ConnAck, Packet, Publish};
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, ManualAck, NoticeFailureReason, Outgoing};
use sluicegate_core::ledger::Ledger;
use sluicegate_core::settings::Mqtt;
use sluicegate_core::ticket::{Epoch, Ticket};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connect::{self, Connect, MqttError, Retry};
use super::drops::Drops;
use super::grants;
use super::subscribe::{Confirmed, Said, Subscriptions, Wanted};
use crate::telemetry::board::{Board, Connection, ConnectionState};
use crate::telemetry::causes::with_causes;

/// One publish, as the broker delivered it.
#[derive(Debug)]
pub struct Incoming {
    /// What settles it; none: it is of QoS 0, and nobody waits for its acknowledgement.
    pub ticket: Option<Ticket>,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Its user properties [MQTT 5, 3.3.2.3.7].
    pub properties: Vec<(String, String)>,
}

/// Where publishes go.
pub trait Intake {
    /// Takes one, or has no room. Waiting here stops the connection, so it must not wait for an outcome.
    fn take(&mut self, incoming: Incoming) -> impl Future<Output = Taken> + Send;

    /// Waits until there is room again.
    ///
    /// # Cancel safety
    /// Dropped, nothing is lost.
    fn room(&self) -> impl Future<Output = ()> + Send;
}

/// Whether a publish was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is settled some time.
    Yes,
    /// There is no room for it. It is not acknowledged, and neither is what comes behind it, until there is room: then the
    /// connection is made anew, and the broker sends all of them again.
    NoRoom,
}

/// Which deliveries the broker sends again, since it resumed the session after their connection broke.
#[derive(Debug, Clone, Default)]
pub struct Resumed(Arc<Mutex<Session>>);

/// The session that the broker has, by connections.
#[derive(Debug, Default)]
struct Session {
    /// It began on this one: what came on an older one the broker does not have any more.
    began: u64,
    /// It was resumed last on this one.
    resumed: u64,
}

impl Resumed {
    fn connected(&self, epoch: Epoch, session_present: bool) {
        let mut session = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if session_present {
            session.resumed = epoch.0;
        } else {
            session.began = epoch.0;
        }
    }

    /// Whether a delivery of this epoch, if it was not acknowledged, is sent again.
    #[must_use]
    pub fn since(&self, epoch: Epoch) -> bool {
        let session = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        session.began <= epoch.0 && epoch.0 < session.resumed
    }
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

/// The connection that consumes.
pub struct Consumer {
    mqtt: Arc<Mqtt>,
    embedded: Option<SocketAddr>,
    client: AsyncClient,
    events: EventLoop,
    /// What is wanted of the broker, where that changed.
    wanted: watch::Receiver<Wanted>,
    subscriptions: Subscriptions,
    /// What takes the place of this connection, once all that was taken on it is acknowledged.
    next: Option<Next>,
    ledger: Ledger<ManualAck>,
    settled: Arc<Settled>,
    board: Arc<Board>,
    retry: Retry,
    connected: bool,
    /// Acknowledgements that are queued and not written yet: a DISCONNECT would overtake them.
    unwritten: usize,
    read: Read,
    resumed: Resumed,
    /// Publishes that were not taken on this connection: there was no room for the first, or another connection is to be made, and
    /// those behind it would pass it.
    withheld: usize,
    drops: Drops,
}

/// A connection by other settings.
struct Next {
    mqtt: Arc<Mqtt>,
    client: AsyncClient,
    events: EventLoop,
}

/// Whether the broker has read every acknowledgement. A socket that is closed while the broker still sends is reset, and with it go
/// acknowledgements that the broker has not read. So it is asked once more for what it has granted already: its answer says
/// that it read all that came before.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    NotAsked,
    Asked,
    Answered,
}

/// The alarm.
const GRANTS: &str = "the broker grants less";

enum Step {
    Stop,
    Settled,
    Room,
    Wanted,
    SubscribeAgain,
    Polled(Box<Result<Event, ConnectionError>>),
}

impl Consumer {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// [`MqttError`], where the settings cannot make a connection.
    pub fn new(
        mut wanted: watch::Receiver<Wanted>,
        confirmed: watch::Sender<Confirmed>,
        embedded: Option<SocketAddr>,
        settled: Arc<Settled>,
        board: Arc<Board>,
    ) -> Result<Self, MqttError> {
        let first = wanted.borrow_and_update().clone();
        let Next { mqtt, client, events } = connection(first.mqtt.clone(), embedded)?;
        Ok(Self {
            mqtt,
            embedded,
            client,
            events,
            subscriptions: Subscriptions::new(&first, confirmed),
            wanted,
            next: None,
            ledger: Ledger::default(),
            settled,
            drops: Drops::new(board.clone()),
            board,
            retry: Retry::new(),
            connected: false,
            unwritten: 0,
            read: Read::NotAsked,
            resumed: Resumed::default(),
            withheld: 0,
        })
    }

    /// Which deliveries the broker sends again.
    #[must_use]
    pub fn resumed(&self) -> Resumed {
        self.resumed.clone()
    }

    /// Consumes until `stop`; then takes nothing more, acknowledges what was taken as it is settled, and disconnects.
    pub async fn run(mut self, mut intake: impl Intake, stop: CancellationToken) {
        let mut stopping = false;
        loop {
            if (stopping || self.next.is_some()) && self.all_written() && self.read == Read::NotAsked {
                self.ask_whether_read();
            }
            if stopping && (self.read == Read::Answered || !self.connected) {
                break;
            }
            if self.read == Read::Answered {
                self.connect_anew();
            }
            // `poll` keeps what it has read and written when it is dropped, except while it connects: so a settled ticket
            // interrupts it only on a connection that stands.
            let step = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => Step::Stop,
                () = self.settled.some.notified(), if self.connected => Step::Settled,
                () = intake.room(), if self.withheld > 0 && self.all_written() && self.read == Read::NotAsked => Step::Room,
                Ok(()) = self.wanted.changed(), if self.connected && !stopping => Step::Wanted,
                () = at(self.subscriptions.again()), if self.connected => Step::SubscribeAgain,
                polled = self.events.poll() => Step::Polled(Box::new(polled)),
            };
            match step {
                Step::Stop => stopping = true,
                Step::Settled => self.acknowledge(),
                Step::Room => self.ask_whether_read(),
                Step::Wanted => self.on_wanted(),
                Step::SubscribeAgain => drop(self.subscriptions.ask(&self.client)),
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

    /// Whether all that was taken on this connection is acknowledged.
    fn all_written(&self) -> bool {
        self.connected && self.ledger.open() == self.withheld && self.unwritten == 0
    }

    fn ask_whether_read(&mut self) {
        if self.subscriptions.ask(&self.client) {
            self.read = Read::Asked;
        }
    }

    /// There is room again, or the settings are others: on a new connection the broker sends what was not taken on this one.
    fn connect_anew(&mut self) {
        if self.next.is_none() {
            tracing::info!("there is room again: connecting anew, so that the broker sends what was not taken");
        }
        self.lost();
        self.take_next();
    }

    /// By other settings from now on, where there are any; only between two connections.
    fn take_next(&mut self) {
        if let Some(Next { mqtt, client, events }) = self.next.take() {
            tracing::info!("connecting anew to {}, by other settings", mqtt.name);
            (self.mqtt, self.client, self.events) = (mqtt, client, events);
        }
    }

    /// Something else is wanted of the broker.
    fn on_wanted(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        self.subscriptions.want(&wanted);
        let current = self.next.as_ref().map_or(&self.mqtt, |next| &next.mqtt);
        if *current != wanted.mqtt {
            match connection(wanted.mqtt, self.embedded) {
                Ok(next) => self.next = Some(next),
                // It was looked at before it was wanted; a file may be gone since.
                Err(error) => {
                    let reason = with_causes(&error);
                    tracing::error!(%reason, "cannot connect by the new settings; the connection stays as it is");
                }
            }
        }
        if self.connected {
            self.subscriptions.ask(&self.client);
        } else {
            self.take_next();
        }
    }

    /// What was not acknowledged on this connection never will be: its tickets are of an older epoch from now on.
    fn lost(&mut self) {
        // What was under way is not sent again by itself: an old SUBSCRIBE would get an answer that nobody awaits.
        self.events.clean();
        self.events.drain_pending_as_failed(NoticeFailureReason::SessionReset);
        self.connected = false;
        self.unwritten = 0;
        self.withheld = 0;
        self.read = Read::NotAsked;
        self.subscriptions.lost();
        self.ledger.reconnected();
    }

    async fn take(&mut self, publish: Publish, intake: &mut impl Intake) {
        if Drops::is_count(&publish.topic) {
            return self.drops.on_count(&self.mqtt.name, publish.topic, &publish.payload);
        }
        let ticket = self.client.prepare_ack(&publish).map(|acknowledgement| self.ledger.arrived(acknowledgement));
        if (self.withheld > 0 || self.next.is_some()) && ticket.is_some() {
            self.withheld += 1;
            return;
        }
        let incoming = Incoming {
            ticket,
            topic: connect::topic_text(&publish.topic),
            payload: publish.payload,
            properties: connect::user_properties(publish.properties),
        };
        if intake.take(incoming).await == Taken::NoRoom {
            tracing::warn!("no room in memory nor in the spool: what comes is left to the broker, unacknowledged");
            self.withheld = 1;
        }
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
                let said = self.subscriptions.on_suback(&self.mqtt.name, &suback.return_codes);
                self.on_subscribed(said);
                if self.read == Read::Asked && self.subscriptions.all_answered() {
                    self.read = Read::Answered;
                }
            }
            Packet::UnsubAck(_) => self.subscriptions.on_unsuback(),
            Packet::Disconnect(disconnect) => {
                tracing::warn!(reason = ?disconnect.reason_code, "the broker ends the connection");
            }
            _ => {}
        }
    }

    fn on_subscribed(&self, said: Said) {
        let state = match said {
            Said::Nothing => return,
            Said::Refused(reason, first) => {
                if first {
                    tracing::error!(%reason, "cannot subscribe; check the broker's access rules; trying again");
                }
                ConnectionState::Down { reason }
            }
            Said::Subscribed(was_refused) => {
                if was_refused {
                    tracing::info!("subscribed after the broker had refused");
                }
                ConnectionState::Connected { detail: None }
            }
        };
        self.board.set_connection(Connection::Mqtt, state);
    }

    /// What the broker grants less of than was asked for is for a person to see.
    fn on_grants(&self, connack: &ConnAck) {
        let less = grants::Asked::new(&self.mqtt, self.subscriptions.qos()).less(connack);
        let text = (!less.is_empty()).then(|| format!("{} {}", self.mqtt.name, less.join("; ")));
        if self.board.notice(GRANTS, text.as_deref())
            && let Some(text) = text
        {
            tracing::warn!("the broker grants less than was asked: {text}");
        }
    }

    fn on_connected(&mut self, connack: &ConnAck) {
        self.connected = true;
        self.retry.connected();
        let epoch = self.ledger.reconnected();
        tracing::info!(session_present = connack.session_present, epoch = epoch.0, "Connected to {}", self.mqtt.name);
        self.resumed.connected(epoch, connack.session_present);
        self.on_grants(connack);
        self.subscriptions.connected(&self.client, connack.session_present);
    }

    async fn on_error(&mut self, error: &ConnectionError, stop: &CancellationToken) {
        self.lost();
        self.take_next();
        let (delay, first) = self.retry.failed();
        let reason = with_causes(error);
        if first {
            tracing::warn!(%reason, "no connection to {}; trying again", self.mqtt.name);
        } else {
            tracing::debug!(%reason, ?delay, "still no connection to {}", self.mqtt.name);
        }
        self.board.set_connection(Connection::Mqtt, ConnectionState::Down { reason });
        tokio::select! {
            () = stop.cancelled() => {}
            // What is wanted now may be what keeps the broker from answering, such as a password.
            Ok(()) = self.wanted.changed() => self.on_wanted(),
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

/// A connection that is not made yet.
fn connection(mqtt: Arc<Mqtt>, embedded: Option<SocketAddr>) -> Result<Next, MqttError> {
    let connect = Connect {
        client_id: mqtt.client_id.clone(),
        receive_maximum: mqtt.receive_maximum,
        send_maximum: 1,
        // Every publish under way can be acknowledged, and room is left for subscriptions. Not only as many as the receive maximum: of a
        // session from before it was lowered a broker may send all that was under way then (mosquitto does).
        requests: usize::from(u16::MAX) + 16,
        session: true,
    };
    let options = connect::options(&mqtt, embedded, &connect)?;
    let (client, events) = AsyncClient::builder(options)
        .capacity(connect.requests)
        .try_build()
        .map_err(|error| MqttError::Client(error.to_string()))?;
    Ok(Next { mqtt, client, events })
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_broker_still_has_comes_again() {
        let resumed = Resumed::default();
        resumed.connected(Epoch(1), false);
        assert!(!resumed.since(Epoch(1)));
        resumed.connected(Epoch(2), true);
        assert!(resumed.since(Epoch(1)) && !resumed.since(Epoch(2)));
        // The session is lost: what came before is in this process alone, whatever is resumed later.
        resumed.connected(Epoch(3), false);
        resumed.connected(Epoch(4), true);
        assert!(!resumed.since(Epoch(1)) && !resumed.since(Epoch(2)));
        assert!(resumed.since(Epoch(3)) && !resumed.since(Epoch(4)));
    }
}
