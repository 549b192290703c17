//! What the parts are made of, and which channels join them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::keys::Keys;
use sluicegate_core::settings::{MqttUrl, RedisUrl, Settings};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use super::{Gateway, GatewayError};
use crate::downlink::{settle, take, work};
use crate::embedded;
use crate::live::Current;
use crate::mqtt::consume::{Consumer, Settled, Subscription};
use crate::mqtt::publish;
use crate::redis::connect::{Connector, Link};
use crate::redis::pop::Popper;
use crate::redis::push::Pusher;
use crate::uplink::intake::Intake;
use crate::uplink::lane::Lane;
use crate::uplink::sink;

/// What ends last, since others need it to come to their end.
pub(super) const LAST: [&str; 3] = ["the downlink connection", "the embedded servers", "the monitor"];
/// Threads that run guests. Messages are spread over them by serial number, so the number is no setting: two keep two
/// cores busy, and more guests than cores only take turns.
const MAX_LANES: usize = 8;
/// Messages on their way to the sink; beyond it lanes wait, and their queues hold what comes.
const SINK_ROOM: usize = 4_096;
/// Room in a lane for QoS 0, which the broker may send without bound.
const QOS_0_ROOM: usize = 1_024;
/// How often the lengths of the queues are asked for.
const MONITOR: Duration = Duration::from_secs(5);

/// Addresses of servers in this process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Embedded {
    mqtt: Option<SocketAddr>,
    redis: Option<SocketAddr>,
}

/// What every part that speaks to Redis needs.
struct Store {
    keys: Keys,
    dead_letters: Arc<str>,
    connector: Connector,
}

impl Store {
    fn new(settings: &Settings, embedded: Embedded) -> Result<Self, GatewayError> {
        let keys = Keys::new(&settings.redis, &settings.queues, &settings.gateway.instance);
        let dead_letters = keys.dead_letters.as_str().into();
        Ok(Self { keys, dead_letters, connector: Connector::new(&settings.redis, embedded.redis)? })
    }
}

impl Gateway {
    pub(super) async fn start_embedded(&mut self, settings: &Settings) -> Result<Embedded, GatewayError> {
        let servers = TaskTracker::new();
        let mut addresses = Embedded::default();
        if settings.mqtt.url == MqttUrl::Embedded {
            let listen = embedded::listen("SLUICEGATE_EMBEDDED_MQTT_LISTEN", 1883)?;
            addresses.mqtt = Some(embedded::broker::start(listen, &servers, self.last.clone()).await?);
        }
        if settings.redis.url == RedisUrl::Embedded {
            let listen = embedded::listen("SLUICEGATE_EMBEDDED_REDIS_LISTEN", 6379)?;
            addresses.redis = Some(embedded::resp::start(listen, &servers, self.last.clone()).await?);
        }
        if !servers.is_empty() {
            servers.close();
            self.spawn("the embedded servers", async move { servers.wait().await });
        }
        Ok(addresses)
    }

    pub(super) fn start_uplink(
        &mut self,
        settings: &Settings,
        current: &Current,
        embedded: Embedded,
    ) -> Result<(), GatewayError> {
        let Store { dead_letters, connector, .. } = Store::new(settings, embedded)?;
        let settled = Arc::new(Settled::default());

        let (to_sink, items) = mpsc::channel(SINK_ROOM);
        let pusher = Pusher::new(connector, dead_letters.clone(), settings.queues.dead_letters_max);
        let link = Link::new(self.board.clone(), "jobs");
        let abandon = self.abandon.clone();
        self.spawn("the sink", sink::run(items, pusher, link, settled.clone(), abandon));

        // Every publish under way has a place, twice over, since those of a broken connection are still worked when the
        // broker sends them again; so the connection waits for a lane only beyond that.
        let reserve = usize::from(settings.mqtt.receive_maximum) * 2;
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let mut lanes = Vec::new();
        for number in 0..cores.clamp(2, MAX_LANES) {
            let (to_lane, work) = mpsc::channel(reserve + QOS_0_ROOM);
            let lane = Lane::spawn(number, work, to_sink.clone(), dead_letters.clone())
                .map_err(|source| GatewayError::System { what: "thread", source })?;
            self.spawn_fallible("a lane", lane.join());
            lanes.push(to_lane);
        }

        let subscriptions =
            settings.routes.iter().map(|route| Subscription { filter: route.topic.filter(), qos: route.qos }).collect();
        let consumer =
            Consumer::new(&settings.mqtt, embedded.mqtt, subscriptions, settled.clone(), self.board.clone())?;
        let intake = Intake::new(current.clone(), lanes, to_sink, settled, dead_letters, reserve);
        let stop = self.stop.clone();
        self.spawn("the uplink connection", consumer.run(intake, stop));
        Ok(())
    }

    pub(super) fn start_downlink(
        &mut self,
        settings: &Settings,
        current: &Current,
        embedded: Embedded,
    ) -> Result<(), GatewayError> {
        let Store { keys, dead_letters, connector } = Store::new(settings, embedded)?;
        let in_flight = settings.commands.in_flight;

        let (publisher, connection) = publish::prepare(&settings.mqtt, embedded.mqtt, in_flight, self.board.clone())?;
        let last = self.last.clone();
        self.spawn("the downlink connection", connection.run(last));

        // Each holds all commands that may be under way, so nobody ever waits for room.
        let (to_work, taken) = mpsc::channel(in_flight);
        let (to_settle, settled) = mpsc::channel(in_flight);
        let under_way = Arc::new(take::UnderWay::default());

        let pusher = Pusher::new(connector.clone(), dead_letters.clone(), settings.queues.dead_letters_max);
        let link = Link::new(self.board.clone(), "command results");
        let abandon = self.abandon.clone();
        let settle = settle::run(settled, pusher, link, keys.processing.clone(), under_way.clone(), abandon);
        self.spawn("the settling of commands", settle);

        let tools = work::Tools { current: current.clone(), publisher, settled: to_settle, dead_letters };
        let worker = work::Worker::spawn(taken, tools, self.abandon.clone())
            .map_err(|source| GatewayError::System { what: "thread", source })?;
        self.spawn_fallible("the worker of commands", worker.join());

        let popper = Popper::new(connector, keys.outgoing, keys.processing);
        let link = Link::new(self.board.clone(), "commands");
        let room = Arc::new(Semaphore::new(in_flight));
        let stop = self.stop.clone();
        self.spawn("the taking of commands", take::run(popper, link, to_work, under_way, room, stop));
        Ok(())
    }

    /// Asks how long the queues are.
    pub(super) fn start_monitor(&mut self, settings: &Settings, embedded: Embedded) -> Result<(), GatewayError> {
        let Store { keys, dead_letters, connector } = Store::new(settings, embedded)?;
        let mut lists: Vec<(String, String)> = settings
            .routes
            .iter()
            .map(|route| (route.queue.clone(), keys.queue(&route.queue)))
            .chain([
                (settings.queues.outgoing.clone(), keys.outgoing.clone()),
                (settings.queues.dead_letters.clone(), keys.dead_letters.clone()),
            ])
            .collect();
        lists.sort();
        lists.dedup();
        let mut pusher = Pusher::new(connector, dead_letters, settings.queues.dead_letters_max);
        let (board, stop) = (self.board.clone(), self.stop.clone());
        self.spawn("the monitor", async move {
            let asking = async {
                loop {
                    for (name, key) in &lists {
                        // Whoever pushes and pops says when Redis is away; here it only means that nothing is known.
                        if let Ok(length) = pusher.length(key).await {
                            board.set_queue_length(name, length);
                        }
                    }
                    tokio::time::sleep(MONITOR).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = asking => {}
            }
        });
        Ok(())
    }
}
