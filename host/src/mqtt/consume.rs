//! The uplink connection: takes publishes, hands them on with a ticket, and acknowledges what is settled, in the order of
//! arrival. It never waits for an outcome.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{ConnAck, Packet, Publish, RetainForwardRule, SubscribeFilter, SubscribeReasonCode};
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, ManualAck, NoticeFailureReason, Outgoing};
use sluicegate_core::ledger::Ledger;
use sluicegate_core::settings::Mqtt;
use sluicegate_core::ticket::{Epoch, Ticket};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connect::{self, Connect, MqttError, Retry};
use super::grants;
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
    read: Read,
    resumed: Resumed,
    /// Publishes that were not taken on this connection: there was no room for the first, and those behind it would pass it.
    withheld: usize,
    /// When to subscribe again after the broker refused.
    subscribe_at: Option<Instant>,
    /// It refused, and the log says so.
    refused: bool,
    /// What SUBACKs are awaited for, in order.
    asked: VecDeque<Asked>,
    grants: grants::Asked,
    /// What the broker's drop counters said first, and last; one for each node.
    dropped: HashMap<Bytes, (u64, u64)>,
}

/// What a SUBSCRIBE was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The routes' filters.
    Routes,
    /// The broker's own drop counter.
    Drops,
}

/// Alarms.
const DROPS: &str = "the broker drops messages";
const GRANTS: &str = "the broker grants less";
/// How long to wait before subscribing again where the broker refused: its rules may still be loading.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(5);
/// Where brokers count what they drop: mosquitto, and EMQX for each of its nodes (its `messages/dropped` counts those that nobody
/// wanted, too).
const DROP_COUNTERS: [&str; 2] =
    ["$SYS/broker/publish/messages/dropped", "$SYS/brokers/+/metrics/delivery/dropped/queue_full"];

/// Whether the broker has read every acknowledgement. A socket that is closed while the broker still sends is reset, and with it go
/// acknowledgements that the broker has not read. So it is asked once more for what it has granted already: its answer says
/// that it read all that came before.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    NotAsked,
    Asked,
    Answered,
}

enum Step {
    Stop,
    Settled,
    Room,
    SubscribeAgain,
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
        let qos = subscriptions.iter().map(|subscription| subscription.qos).max().unwrap_or_default();
        let grants = grants::Asked::new(mqtt, qos);
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
            read: Read::NotAsked,
            resumed: Resumed::default(),
            withheld: 0,
            subscribe_at: None,
            refused: false,
            asked: VecDeque::new(),
            grants,
            dropped: HashMap::new(),
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
            if stopping && self.all_written() && self.read == Read::NotAsked {
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
                () = at(self.subscribe_at), if self.connected => Step::SubscribeAgain,
                polled = self.events.poll() => Step::Polled(Box::new(polled)),
            };
            match step {
                Step::Stop => stopping = true,
                Step::Settled => self.acknowledge(),
                Step::Room => self.ask_whether_read(),
                Step::SubscribeAgain => {
                    self.subscribe_at = None;
                    let _ = self.subscribe();
                }
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
        if self.subscribe() {
            self.read = Read::Asked;
        }
    }

    /// There is room again: on a new connection the broker sends what was not taken on this one.
    fn connect_anew(&mut self) {
        tracing::info!("there is room again: connecting anew, so that the broker sends what was not taken");
        self.lost();
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
        self.subscribe_at = None;
        self.asked.clear();
        self.ledger.reconnected();
    }

    async fn take(&mut self, publish: Publish, intake: &mut impl Intake) {
        if is_drop_counter(&publish.topic) {
            return self.on_drops(publish.topic, &publish.payload);
        }
        let ticket = self.client.prepare_ack(&publish).map(|acknowledgement| self.ledger.arrived(acknowledgement));
        if self.withheld > 0 && ticket.is_some() {
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

    /// The broker's own count of what it dropped, of all its clients.
    fn on_drops(&mut self, counter: Bytes, payload: &[u8]) {
        let Some(count) = std::str::from_utf8(payload).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
            return;
        };
        let (first, last) = self.dropped.entry(counter).or_insert((count, count));
        // A broker that was restarted counts anew.
        *first = (*first).min(count);
        *last = count;
        crate::telemetry::metrics::broker_dropped(self.dropped.values().map(|(_, last)| last).sum());
        let dropped: u64 = self.dropped.values().map(|(first, last)| last - first).sum();
        if dropped == 0 {
            return;
        }
        let text = format!(
            "{} dropped {dropped} messages since this gateway looked first, of all its clients: raise its queue's bound",
            self.name
        );
        if self.board.notice(DROPS, Some(&text)) {
            tracing::error!(dropped, "{} drops messages: raise its queue's bound", self.name);
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
                match self.asked.pop_front() {
                    Some(Asked::Drops) => self.on_drops_granted(&suback.return_codes),
                    _ => self.on_subscribed(&suback.return_codes),
                }
                if self.read == Read::Asked && self.asked.is_empty() {
                    self.read = Read::Answered;
                }
            }
            Packet::Disconnect(disconnect) => {
                tracing::warn!(reason = ?disconnect.reason_code, "the broker ends the connection");
            }
            _ => {}
        }
    }

    fn on_subscribed(&mut self, codes: &[SubscribeReasonCode]) {
        let refused = self.subscriptions.iter().zip(codes).find_map(|(wanted, code)| match code {
            SubscribeReasonCode::Success(granted) if (*granted as u8) < wanted.qos => Some(format!(
                "the broker grants QoS {} for {}, where {} was asked for: messages may be lost",
                *granted as u8, wanted.filter, wanted.qos
            )),
            SubscribeReasonCode::Success(_) => None,
            code => Some(format!("the broker refused the subscription to {}: {code:?}", wanted.filter)),
        });
        match refused {
            Some(reason) => {
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::error!(%reason, "cannot subscribe; check the broker's access rules; trying again");
                }
                self.board.set_connection(Connection::Mqtt, ConnectionState::Down { reason });
                self.subscribe_at = Some(Instant::now() + SUBSCRIBE_AGAIN);
            }
            None => {
                if std::mem::take(&mut self.refused) {
                    tracing::info!("subscribed after the broker had refused");
                }
                self.board.set_connection(Connection::Mqtt, ConnectionState::Connected { detail: None });
            }
        }
    }

    fn on_drops_granted(&self, codes: &[SubscribeReasonCode]) {
        if !codes.iter().any(|code| matches!(code, SubscribeReasonCode::Success(_))) {
            tracing::debug!("{} does not show its drop counter to this client", self.name);
        }
    }

    /// What the broker grants less of than was asked for is for a person to see.
    fn on_grants(&self, connack: &ConnAck) {
        let less = self.grants.less(connack);
        let text = (!less.is_empty()).then(|| format!("{} {}", self.name, less.join("; ")));
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
        tracing::info!(session_present = connack.session_present, epoch = epoch.0, "Connected to {}", self.name);
        self.resumed.connected(epoch, connack.session_present);
        self.on_grants(connack);
        self.subscribe();
        self.watch_drops();
    }

    fn watch_drops(&mut self) {
        let filters = DROP_COUNTERS.map(|path| SubscribeFilter {
            path: path.to_owned(),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            // The count so far is retained.
            retain_forward_rule: RetainForwardRule::OnEverySubscribe,
        });
        if self.client.try_subscribe_many(filters).is_ok() {
            self.asked.push_back(Asked::Drops);
        }
    }

    /// False: it could not be asked.
    fn subscribe(&mut self) -> bool {
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
        match self.client.try_subscribe_many(filters) {
            Ok(()) => self.asked.push_back(Asked::Routes),
            Err(error) => {
                tracing::error!(%error, "cannot queue the subscription");
                return false;
            }
        }
        true
    }

    async fn on_error(&mut self, error: &ConnectionError, stop: &CancellationToken) {
        self.lost();
        let (delay, first) = self.retry.failed();
        let reason = with_causes(error);
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

/// One of [`DROP_COUNTERS`]: asked for at QoS 0, so that it is never to be acknowledged.
fn is_drop_counter(topic: &[u8]) -> bool {
    let [mosquitto, emqx] = DROP_COUNTERS;
    let (before, after) = emqx.split_once('+').unwrap_or((emqx, ""));
    topic == mosquitto.as_bytes() || (topic.starts_with(before.as_bytes()) && topic.ends_with(after.as_bytes()))
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
    fn a_drop_counter_is_told_from_what_a_route_may_take() {
        assert!(is_drop_counter(b"$SYS/broker/publish/messages/dropped"));
        assert!(is_drop_counter(b"$SYS/brokers/emqx@emqx.local/metrics/delivery/dropped/queue_full"));
        assert!(!is_drop_counter(b"$SYS/broker/uptime") && !is_drop_counter(b"machine/M-1/heartbeat"));
    }

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
