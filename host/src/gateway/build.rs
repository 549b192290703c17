//! What the parts are made of, and which channels join them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use sluicegate_core::flow::Target;
use sluicegate_core::keys::Keys;
use sluicegate_core::settings::{MqttUrl, RedisUrl, Settings};
use sluicegate_core::spooled::Line;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::knobs::Knobs;
use super::state::InRedis;
use super::{Gateway, GatewayError};
use crate::access;
use crate::dead_letters::desk::Desk;
use crate::dead_letters::replay;
use crate::downlink::{lease, settle, take, work};
use crate::embedded;
use crate::live::{Current, Live};
use crate::mqtt::consume::{Consumer, Settled};
use crate::mqtt::publish::{self, Publisher};
use crate::redis::claim::{Claims, Remembered};
use crate::redis::connect::{Connector, Link};
use crate::redis::jobs::JobPusher;
use crate::redis::lease::Leases;
use crate::redis::letters::Letters;
use crate::redis::pop::Popper;
use crate::redis::push::Pusher;
use crate::redis::{state, tokens};
use crate::sandbox::Pool;
use crate::spool::{Depth, Spool, Waiting, Watch};
use crate::telemetry::board::{Board, SpoolStatus};
use crate::telemetry::clock;
use crate::uplink::ack::Acks;
use crate::uplink::behind::Lists;
use crate::uplink::intake::{Intake, Lanes};
use crate::uplink::lane::{self, TURNS, Tools};
use crate::uplink::publications;
use crate::uplink::room::Room;
use crate::uplink::sink::Sink;

/// What ends last, since others need it to come to their end.
pub(super) const LAST: [&str; 6] =
    ["the downlink connection", "the embedded servers", "the lease", "the monitor", STATE, ACCESS];
const ACCESS: &str = "the broker's questions";
const STATE: &str = "the state of plugins";
/// Threads that run guests. Messages are spread over them by serial number, so the number is no setting: two keep two
/// cores busy, and more guests than cores only take turns.
const MAX_LANES: usize = 8;
/// Messages on their way to the sink; beyond it lanes wait, and their queues hold what comes.
const SINK_ROOM: usize = 4_096;
/// Messages on their way to a lane, which takes them at once; `mqtt.in_flight_bytes` bounds what it then holds.
const LANE_ROOM: usize = 1_024;
/// How often the lengths of the queues are asked for.
const MONITOR: Duration = Duration::from_secs(5);
/// In which of those rounds Redis is asked what it does when it is full.
const POLICY: u64 = 12;
/// How often the log says at the most that there are more dead letters.
const LETTERS: Duration = Duration::from_secs(60);
/// How often the spool and the plugins are looked at.
const LOOK: Duration = Duration::from_millis(500);

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
            let listen = embedded::broker::listen()?;
            addresses.mqtt = Some(embedded::broker::start(listen, &servers, self.last.clone()).await?);
        }
        if settings.redis.url == RedisUrl::Embedded {
            let listen = embedded::resp::listen()?;
            addresses.redis = Some(embedded::resp::start(listen, &servers, self.last.clone()).await?);
        }
        if !servers.is_empty() {
            servers.close();
            self.spawn("the embedded servers", async move { servers.wait().await });
        }
        Ok(addresses)
    }

    /// Where plugins' state is kept; connected once one of them needs it.
    pub(super) fn start_state(
        &mut self,
        settings: &Settings,
        embedded: Embedded,
    ) -> Result<Arc<InRedis>, GatewayError> {
        let Store { keys, connector, .. } = Store::new(settings, embedded)?;
        let (states, keeper) = state::prepare(connector, keys, Link::new(self.board.clone(), "state"));
        let last = self.last.clone();
        self.spawn(STATE, keeper.run(last));
        Ok(Arc::new(InRedis(states)))
    }

    /// What the broker asks of machines, where the settings say so: until the last, since what they publish meanwhile would be denied.
    pub(super) fn start_access(
        &mut self,
        settings: &Settings,
        embedded: Embedded,
        rules: access::rules::Current,
    ) -> Result<(), GatewayError> {
        let Some(listen) = settings.access.listen else { return Ok(()) };
        let Store { keys, connector, .. } = Store::new(settings, embedded)?;
        let tokens = tokens::prepare(connector, keys.queue(&settings.access.keys), self.board.clone());
        let thread = access::start(listen, rules, tokens, &self.board, self.last.clone())?;
        self.spawn_fallible(ACCESS, thread.join());
        Ok(())
    }

    /// The downlink connection, for commands and for what plugins publish.
    pub(super) fn start_publishing(
        &mut self,
        settings: &Settings,
        knobs: &Knobs,
        embedded: Embedded,
    ) -> Result<Publisher, GatewayError> {
        let (in_flight, board) = (settings.commands.in_flight, self.board.clone());
        let (publisher, connection) = publish::prepare(knobs.wanted.subscribe(), embedded.mqtt, in_flight, board)?;
        let last = self.last.clone();
        self.spawn("the downlink connection", connection.run(last));
        Ok(publisher)
    }

    /// Opens the spool, before anything is taken: it may hold what was acknowledged.
    pub(super) fn open_spool(&mut self, settings: &Settings) -> Result<(Spool, Vec<Waiting>), GatewayError> {
        let (spool, writer, waiting, recovered) = Spool::open(&settings.spool.path, settings.spool.max_size)?;
        let folder = settings.spool.path.display();
        if recovered.records > 0 {
            tracing::info!(%folder, records = recovered.records, "the spool holds what an earlier run did not finish");
        }
        if recovered.torn > 0 {
            tracing::warn!(%folder, bytes = recovered.torn, "the end of a spool file is no whole record: a write that never ended, which was acknowledged to nobody, or a damaged disk");
        }
        if recovered.damaged > 0 {
            let bytes = recovered.damaged;
            tracing::error!(%folder, bytes, "a part of the spool is damaged and cannot be read; the file is kept beside it");
            self.board.alarm(
                "the spool is damaged",
                Some(&format!("{bytes} bytes of the spool in {folder} cannot be read; check the disk")),
            );
        }
        self.spawn_fallible("the spool", writer.join());
        Ok((spool, waiting))
    }

    pub(super) fn start_uplink(
        &mut self,
        settings: &Settings,
        knobs: &Knobs,
        current: &Current,
        embedded: Embedded,
        publisher: &Publisher,
        (spool, waiting): (Spool, Vec<Waiting>),
    ) -> Result<Desk, GatewayError> {
        let Store { keys, dead_letters, connector } = Store::new(settings, embedded)?;
        let (list, commands) = (keys.dead_letters.clone(), keys.outgoing.clone());
        let letters = {
            let connector = connector.clone();
            move || Letters::new(connector.clone(), list.clone(), commands.clone())
        };
        let settled = Arc::new(Settled::default());
        let tally = self.board.tally().clone();
        let acks = Acks::new(settled.clone(), spool, tally.clone());
        let room = knobs.room.clone();
        // Above every number that was ever given: a record that is done may stand on the disk longer than one knows of it, and
        // another with its number would be taken for it.
        let started = u64::try_from(clock::now().as_microsecond()).unwrap_or(0);
        let last = waiting.iter().map(|waiting| waiting.highest).max().unwrap_or(0).max(started);

        let (to_sink, items) = mpsc::channel(SINK_ROOM);
        let replicas = settings.redis.wait_replicas;
        let board = self.board.clone();
        let pusher = JobPusher::new(connector, dead_letters, knobs.letters.clone(), replicas, board);
        let (mut behind, mut lines) = (Vec::new(), HashMap::new());
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, MAX_LANES);
        let mut parked: Vec<Vec<(Line, usize)>> = vec![Vec::new(); cores];
        for Waiting { line, routes, .. } in waiting {
            for (route, messages) in &routes {
                // A route that the settings do not name has its place all the same: they may name it again before that is drained.
                let place = route.as_deref().map_or_else(|| tally.place(None), |route| tally.enter(route));
                tally.recovered(place, *messages as u64);
            }
            match &line {
                Line::List { key, low } => {
                    // Low ones first: it is they that what comes must not pass.
                    let letters = **key == *keys.dead_letters;
                    for route in routes.iter().filter_map(|(route, _)| route.clone().filter(|_| !letters)) {
                        let line = lines.entry(route).or_insert_with(|| (key.clone(), *low));
                        if *low {
                            *line = (key.clone(), true);
                        }
                    }
                    behind.push(Target { key: key.clone(), low: *low });
                }
                Line::Machine { serial_no, .. } => {
                    let messages = routes.iter().map(|(_, messages)| messages).sum();
                    parked[Lanes::place(cores, serial_no)].push((line.clone(), messages));
                }
            }
        }
        let limits = knobs.limits.subscribe();
        let lists = Lists::new(behind, limits.borrow().clone(), self.board.clone());
        let link = Link::new(self.board.clone(), "jobs");
        let abandon = self.abandon.clone();
        self.spawn("the sink", Sink::new(acks.clone(), link, lists, limits, lines, last).run(items, pusher, abandon));

        let (wanted, confirmed) = (knobs.wanted.subscribe(), knobs.confirmed.clone());
        let consumer = Consumer::new(wanted, confirmed, embedded.mqtt, settled, self.board.clone())?;

        let (publications, orders) = publications::prepare(publisher.clone());
        self.spawn("the publications of plugins", orders.run());

        let mut lanes = Vec::new();
        let numbers = Arc::new(AtomicU64::new(last));
        for (number, parked) in parked.into_iter().enumerate() {
            let (to_lane, work) = mpsc::channel(LANE_ROOM);
            let (current, sink, acks, room) = (current.clone(), to_sink.clone(), acks.clone(), room.clone());
            let (resumed, numbers) = (consumer.resumed(), numbers.clone());
            let turns = Arc::new(Semaphore::new(TURNS));
            let (recent, publications) = (self.recent.clone(), publications.clone());
            let tools = move || Tools {
                pool: Pool::new(),
                current,
                recent,
                publications,
                sink,
                acks,
                room,
                resumed,
                numbers,
                turns,
            };
            let lane = lane::spawn(number, work, parked, tools)
                .map_err(|source| GatewayError::System { what: "thread", source })?;
            self.spawn_fallible("a lane", lane.join());
            lanes.push(to_lane);
        }
        let lanes = Lanes(lanes);
        let desk = self.start_replays(letters, current, &lanes, &room);
        let intake = Intake::new(current.clone(), lanes, acks, room);
        let stop = self.stop.clone();
        self.spawn("the uplink connection", consumer.run(intake, stop));
        Ok(desk)
    }

    fn start_replays(
        &mut self,
        letters: impl Fn() -> Letters + Send + Sync + 'static,
        current: &Current,
        lanes: &Lanes,
        room: &Arc<Room>,
    ) -> Desk {
        // One: another order is refused while one is under way.
        let (orders, ordered) = mpsc::channel(1);
        let progress = Arc::new(replay::ProgressCell::default());
        let tools = replay::Tools {
            letters: letters(),
            current: current.clone(),
            lanes: lanes.clone(),
            tally: self.board.tally().clone(),
            room: room.clone(),
            progress: progress.clone(),
        };
        let (stop, abandon) = (self.stop.clone(), self.abandon.clone());
        self.spawn("the replay of dead letters", replay::run(ordered, tools, stop, abandon));
        Desk::new(Arc::new(letters), orders, progress)
    }

    pub(super) fn start_downlink(
        &mut self,
        settings: &Settings,
        knobs: &Knobs,
        current: &Current,
        embedded: Embedded,
        publisher: Publisher,
    ) -> Result<(), GatewayError> {
        let Store { keys, connector, .. } = Store::new(settings, embedded)?;
        let in_flight = settings.commands.in_flight;
        let instance = &settings.gateway.instance;
        let held = Arc::new(lease::Held::default());
        let leases = Leases::new(connector.clone(), keys.clone(), instance);
        let keep = lease::run(leases, held.clone(), self.board.clone(), self.last.clone());
        self.spawn("the lease", keep);

        // Each holds all commands that may be under way; beside them what waits for machines that are away may wait for room here.
        let (to_work, taken) = mpsc::channel(in_flight);
        let (to_settle, told) = mpsc::channel(in_flight);
        let under_way = Arc::new(take::UnderWay::default());
        // Without scripts ids cannot be claimed.
        let dedupe = if connector.has_scripts() { knobs.remembered.clone() } else { Remembered::new(Duration::ZERO) };
        let claims = || Claims::new(&keys, instance, dedupe.clone());

        let pusher = pusher(connector.clone(), keys.clone(), knobs);
        let link = Link::new(self.board.clone(), "command results");
        let tools = settle::Tools {
            under_way: under_way.clone(),
            held: held.clone(),
            claims: claims(),
            current: current.clone(),
            board: self.board.clone(),
            abandon: self.abandon.clone(),
        };
        self.spawn("the settling of commands", settle::run(told, pusher, link, tools));

        let (current, held_too) = (current.clone(), held.clone());
        let stop = self.stop.clone();
        let (recent, under_way_too) = (self.recent.clone(), under_way.clone());
        let tools =
            work::Tools { current, recent, publisher, told: to_settle, held: held_too, under_way: under_way_too, stop };
        let worker = work::Worker::spawn(taken, tools, self.abandon.clone())
            .map_err(|source| GatewayError::System { what: "thread", source })?;
        self.spawn_fallible("the worker of commands", worker.join());

        let popper = Popper::new(connector, keys.outgoing.clone(), keys.processing.clone(), claims());
        let link = Link::new(self.board.clone(), "commands");
        let room = Arc::new(Semaphore::new(in_flight));
        let tools = take::Tools { work: to_work, under_way, room, in_flight, held, dedupe };
        let stop = self.stop.clone();
        self.spawn("the taking of commands", take::run(popper, link, tools, stop));
        Ok(())
    }

    /// Asks how long the queues are, and looks at the spool and the plugins.
    pub(super) fn start_monitor(
        &mut self,
        settings: &Settings,
        knobs: &Knobs,
        embedded: Embedded,
        current: &Current,
    ) -> Result<(), GatewayError> {
        let Store { keys, connector, .. } = Store::new(settings, embedded)?;
        let mut pusher = pusher(connector, keys.clone(), knobs);
        let (board, stop, current) = (self.board.clone(), self.stop.clone(), current.clone());
        let looking = look(board.clone(), current.clone(), knobs.spool.watch());
        self.spawn("the monitor", async move {
            let asking = async {
                for round in 0_u64.. {
                    let lists = lists(&current.load(), &keys);
                    if round.is_multiple_of(POLICY)
                        && let Some((_, key)) = lists.first()
                        && let Ok(policy) = pusher.eviction_policy(key).await
                    {
                        let evicts = policy.filter(|policy| policy.starts_with("allkeys-"));
                        let text = evicts.map(|policy| {
                            format!("Redis throws whole lists away when it is full (maxmemory-policy {policy}): set noeviction")
                        });
                        board.notice("Redis evicts lists", text.as_deref());
                    }
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
                () = looking => {}
            }
        });
        Ok(())
    }
}

/// The lists of jobs, of commands and of dead letters: their names in the settings, and their whole keys.
fn lists(live: &Live, keys: &Keys) -> Vec<(String, String)> {
    let queues = &live.settings.queues;
    let mut lists: Vec<(String, String)> = live
        .routes
        .iter()
        .map(|prepared| (prepared.route.queue.clone(), keys.queue(&prepared.route.queue)))
        .chain([
            (queues.outgoing.clone(), keys.outgoing.clone()),
            (queues.dead_letters.clone(), keys.dead_letters.clone()),
        ])
        .collect();
    lists.sort();
    lists.dedup();
    lists
}

fn pusher(connector: Connector, keys: Keys, knobs: &Knobs) -> Pusher {
    let process = format!("{}-{}", clock::now().as_nanosecond(), clock::chance());
    Pusher::new(connector, keys, knobs.letters.clone(), process)
}

/// Tells the board what the spool and the plugins would say if they were asked.
async fn look(board: Arc<Board>, current: Current, spool: Watch) {
    let (mut dead, mut told) = (0, None::<Instant>);
    loop {
        let now_dead = board.tally().total().dead;
        // Once a message would be a flood, and never would be silence.
        if now_dead > dead && told.is_none_or(|told| told.elapsed() >= LETTERS) {
            let letters = now_dead - dead;
            tracing::warn!(
                letters,
                "messages became dead letters; `sluicegate dead-letters list --by reason` says why"
            );
            (dead, told) = (now_dead, Some(Instant::now()));
        }
        let (depth, refused) = spool.depth();
        let oldest = depth.oldest.and_then(|oldest| Timestamp::from_second(i64::from(oldest)).ok());
        let Depth { jobs, parked, bytes, .. } = depth;
        let max_bytes = current.load().settings.spool.max_size.0;
        board.set_spool(SpoolStatus { jobs, parked, bytes, max_bytes, oldest });
        board.alarm("the spool takes nothing", refused.as_deref());
        board.measure_usage();
        let broken: Vec<String> = current.load().broken().map(str::to_owned).collect();
        let text =
            format!("{} fails at everything; its messages wait in the spool until it is repaired", broken.join(", "));
        board.alarm("a plugin fails at everything", (!broken.is_empty()).then_some(&*text));
        tokio::time::sleep(LOOK).await;
    }
}
