//! Threads that run guests. A machine's messages always take the same lane and one at a time; a guest that yields or waits,
//! and a message that is tried again, hold up only their machine.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use sluicegate_core::backoff::Backoff;
use sluicegate_core::message::{Field, SerialNo};
use sluicegate_core::order::Lanes;
use sluicegate_core::park::{Parking, Then};
use sluicegate_core::spooled::{Body, Line, Parked, Record};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::ack::{Acks, Open};
use super::publications::Publications;
use super::room::Room;
use super::sink::Item;
use super::work::{self, Ended};
use crate::live::{Current, Live};
use crate::mqtt::consume::Resumed;
use crate::recent::Recent;
use crate::sandbox::Pool;
use crate::telemetry::{clock, metrics};
use crate::thread::Thread;

/// The most that a lane takes from its channel at once.
const TAKE: usize = 64;

/// One message for a lane.
pub struct Work {
    /// Counts messages, over restarts as long as one of them is in the spool; the lane gives it, in the order that it takes them.
    pub number: u64,
    /// What settles it.
    pub open: Open,
    /// The snapshot that it is handled with; while it waits behind others of its machine, one with newer builds takes its place.
    pub live: Arc<Live>,
    /// What is to be done with it.
    pub what: What,
    /// Its topic.
    pub topic: String,
    /// What was published.
    pub payload: Bytes,
    /// Its user properties.
    pub properties: Vec<Field>,
    /// When it arrived.
    pub received_at: Timestamp,
    /// It is to be parked as it came: memory is used up.
    pub no_room: bool,
    /// Of QoS 0: its place among those.
    pub place: Option<OwnedSemaphorePermit>,
}

/// What is to be done with a message.
pub enum What {
    /// A route took it.
    Handle {
        /// The place of the route.
        route: usize,
        /// Its machine.
        serial_no: SerialNo,
        /// What the topic's named levels are.
        captures: Vec<Field>,
    },
    /// It goes to the dead letters.
    Refuse(Refused),
}

/// What no lane could handle.
pub struct Refused {
    /// Why.
    pub reason: String,
    /// The place of its route, where one took it.
    pub route: Option<usize>,
    /// The machine, as the topic names it.
    pub serial_no: Option<String>,
}

/// What a lane works with.
pub struct Tools {
    /// Its warm instances.
    pub pool: Pool,
    /// The snapshot that parked messages are handled with.
    pub current: Current,
    /// Where messages are noted for builds to come.
    pub recent: Arc<Recent>,
    /// To the broker.
    pub publications: Publications,
    /// Where outcomes are made durable.
    pub sink: mpsc::Sender<Item>,
    /// The spool, and who is told.
    pub acks: Acks,
    /// Bounds what is in memory.
    pub room: Arc<Room>,
    /// Which deliveries the broker sends again.
    pub resumed: Resumed,
    /// The last number that was given.
    pub numbers: Arc<AtomicU64>,
    /// Parked messages of this lane that may be in memory at once: all of them were taken from memory once.
    pub turns: Arc<Semaphore>,
}

/// What [`Tools::turns`] holds: turns are for order, and more at once than guests that run make nothing faster.
pub const TURNS: usize = 16;

/// Starts a lane's thread; it ends when every sender of `work` is gone and what was taken is handed to the sink or parked.
/// `parked` is what an earlier run left for this lane.
///
/// # Errors
/// Where the system gives no thread.
pub fn spawn(
    number: usize,
    work: mpsc::Receiver<Work>,
    parked: Vec<(Line, usize)>,
    tools: impl FnOnce() -> Tools + Send + 'static,
) -> io::Result<Thread> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    Thread::spawn(&format!("lane-{number}"), move || {
        runtime.block_on(Machines::new(Rc::new(tools())).run(work, parked));
    })
}

/// What stands in a machine's queue.
enum Task {
    /// A message from the broker.
    Fresh(Box<Work>),
    /// The first of its parked messages of one route.
    Turn(Line),
}

/// The machines of one lane.
struct Machines {
    tools: Rc<Tools>,
    queues: Lanes<Arc<str>, Task>,
    parking: Parking<Line>,
    under_way: FuturesUnordered<LocalBoxFuture<'static, (Option<Arc<str>>, Ended)>>,
    /// Turns that wait for their next attempt: one at most for each machine and route that has parked messages.
    due: FuturesUnordered<LocalBoxFuture<'static, Line>>,
    /// What is to be parked while others are being written.
    to_park: Vec<(Record, Open)>,
    writing: Option<LocalBoxFuture<'static, Written>>,
    /// Nothing more comes: what is parked stays so.
    closing: bool,
    /// Of the snapshot that the warm instances are of.
    snapshot: u64,
}

enum Event {
    Ended(Option<Arc<str>>, Ended),
    Due(Line),
    Written(Written),
    Taken(usize),
}

/// What became of a write.
#[derive(Default)]
struct Written {
    /// On the disk.
    records: Vec<(Line, u64)>,
    /// There was no room for these yet.
    rest: Vec<(Record, Open)>,
}

impl Machines {
    fn new(tools: Rc<Tools>) -> Self {
        Self {
            tools,
            queues: Lanes::default(),
            parking: Parking::default(),
            under_way: FuturesUnordered::new(),
            due: FuturesUnordered::new(),
            to_park: Vec::new(),
            writing: None,
            closing: false,
            snapshot: 0,
        }
    }

    async fn run(mut self, mut work: mpsc::Receiver<Work>, parked: Vec<(Line, usize)>) {
        for (line, messages) in parked {
            self.parking.recovered(line.clone(), messages);
            self.enter(machine(&line), Task::Turn(line));
        }
        let mut taken = Vec::with_capacity(TAKE);
        while !(self.closing && self.under_way.is_empty() && self.writing.is_none()) {
            let event = tokio::select! {
                // What is taken last comes right after a guest that ran for a whole tick, and is handled before that one goes on.
                biased;
                Some((machine, ended)) = self.under_way.next() => Event::Ended(machine, ended),
                Some(line) = self.due.next() => Event::Due(line),
                Some(written) = written(&mut self.writing) => Event::Written(written),
                count = work.recv_many(&mut taken, TAKE), if !self.closing => Event::Taken(count),
            };
            match event {
                Event::Ended(machine, ended) => self.on_ended(machine, ended),
                Event::Due(line) => self.enter(machine(&line), Task::Turn(line)),
                Event::Written(written) => self.on_written(written),
                Event::Taken(count) => {
                    self.closing = count == 0;
                    taken.drain(..).for_each(|work| self.on_work(work));
                }
            }
        }
    }

    fn on_work(&mut self, mut work: Work) {
        work.number = self.tools.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        self.keep_warm(&work.live);
        match line(&work) {
            None => {
                self.under_way.push(work::refuse(self.tools.clone(), work).map(|ended| (None, ended)).boxed_local())
            }
            Some(line) if work.no_room || self.parking.holds(&line) => self.park(work, line, 0),
            Some(line) => self.enter(machine(&line), Task::Fresh(Box::new(work))),
        }
    }

    /// Only instances of builds that serve in the newest snapshot. A replayed letter may have waited longer than a reload took: an older one says
    /// nothing of what is warm.
    fn keep_warm(&mut self, live: &Live) {
        if self.snapshot < live.number {
            self.snapshot = live.number;
            self.tools.pool.retain(|generation| live.serves(generation));
        }
    }

    /// A message that has waited is handled by the builds of now: those of its arrival may have been rolled back since.
    fn renew(&mut self, work: &mut Work) {
        let current = self.tools.current.load_full();
        if work.live.number < current.number && current.has_routes_of(&work.live) {
            self.keep_warm(&current);
            work.live = current;
        }
    }

    fn enter(&mut self, machine: Arc<str>, task: Task) {
        let next = self.queues.enter(machine.clone(), task);
        self.begin(machine, next);
    }

    fn leave(&mut self, machine: Arc<str>) {
        let next = self.queues.leave(&machine);
        self.begin(machine, next);
    }

    /// Begins a machine's next task; those that come to their end at once are followed by the next.
    fn begin(&mut self, machine: Arc<str>, mut next: Option<Task>) {
        while let Some(task) = next {
            match task {
                Task::Fresh(work) if self.stale(&work) => work.open.give_back(),
                Task::Fresh(mut work) => match line(&work) {
                    Some(line) if self.parking.precedes(&line, work.number) => self.park(*work, line, 0),
                    _ => {
                        self.renew(&mut work);
                        return self.start(machine, work::handle(self.tools.clone(), work));
                    }
                },
                // What is parked stays so while the gateway ends.
                Task::Turn(_) if self.closing => {}
                Task::Turn(line) => {
                    let behind = self.parking.behind(&line);
                    return self.start(machine, work::read(self.tools.clone(), line, behind));
                }
            }
            next = self.queues.leave(&machine);
        }
    }

    fn start(&mut self, machine: Arc<str>, work: impl Future<Output = Ended> + 'static) {
        self.under_way.push(work.map(|ended| (Some(machine), ended)).boxed_local());
    }

    /// The connection that it came in on is gone, and the broker sends it again on the next one.
    fn stale(&self, work: &Work) -> bool {
        work.open.ticket().is_some_and(|ticket| self.tools.resumed.since(ticket.epoch))
    }

    fn on_ended(&mut self, machine: Option<Arc<str>>, ended: Ended) {
        let Some(machine) = machine else { return };
        match ended {
            Ended::Done => {}
            Ended::Park(work, attempts) => {
                if let Some(line) = line(&work) {
                    self.park(*work, line, attempts);
                }
            }
            Ended::Read(line, None) => self.follow(&machine, line.clone(), |parking| parking.nothing_there(&line)),
            Ended::Read(line, Some(first)) => {
                if self.parking.may_take(&line, first.0.number) {
                    let tried = self.parking.attempts(&line);
                    return self.start(machine, work::turn(self.tools.clone(), line, first, tried));
                }
            }
            Ended::Taken(line, number) => self.follow(&machine, line.clone(), |parking| parking.taken(&line, number)),
            Ended::Failed(line) => {
                let delay = Backoff::for_parked(self.parking.attempts(&line)).next(clock::chance());
                self.parking.failed(&line);
                self.wait(line, delay);
            }
            Ended::Waits(line, delay) => self.wait(line, delay),
        }
        self.leave(machine);
    }

    fn follow(&mut self, machine: &Arc<str>, line: Line, step: impl FnOnce(&mut Parking<Line>) -> Then) {
        if step(&mut self.parking) == Then::Again {
            self.enter(machine.clone(), Task::Turn(line));
        }
    }

    fn wait(&mut self, line: Line, delay: Duration) {
        self.due.push(
            async move {
                tokio::time::sleep(delay).await;
                line
            }
            .boxed_local(),
        );
    }

    fn park(&mut self, work: Work, line: Line, attempts: u32) {
        if work.open.is_fleeting() {
            return work.open.give_back();
        }
        self.parking.writing(line.clone(), work.number);
        let parked = Parked {
            topic: work.topic,
            payload: work.payload,
            properties: work.properties,
            received_at: work.received_at.as_microsecond(),
            attempts,
        };
        let at = work.received_at.as_millisecond();
        self.to_park.push((Record { line, number: work.number, at, body: Body::Parked(parked) }, work.open));
        self.write();
    }

    /// One write at a time: so what arrived first is on the disk first, and many are written together.
    fn write(&mut self) {
        if self.writing.is_none() && !self.to_park.is_empty() {
            let messages = std::mem::take(&mut self.to_park);
            self.writing = Some(park(self.tools.acks.clone(), messages).boxed_local());
        }
    }

    fn on_written(&mut self, mut written: Written) {
        self.writing = None;
        written.rest.append(&mut self.to_park);
        self.to_park = written.rest;
        for (line, number) in written.records {
            if self.parking.written(&line, number) {
                self.enter(machine(&line), Task::Turn(line));
            }
        }
        self.write();
    }
}

/// Writes until the disk has at least the first; then what it has is acknowledged. While the spool is full they wait here, in
/// memory, which is bounded by `mqtt.in_flight_bytes`. What is written does not wait for the rest: its turn comes, and that
/// is what makes room.
async fn park(acks: Acks, mut messages: Vec<(Record, Open)>) -> Written {
    let mut backoff = Backoff::for_servers();
    let count = loop {
        match acks.spool.append_first(messages.iter().map(|(record, _)| record.clone()).collect()).await {
            Ok(count) => break count,
            Err(error) if error.may_pass() => tokio::time::sleep(backoff.next(clock::chance())).await,
            // The disk failed: the gateway ends, and the broker has them still.
            Err(_) => {
                messages.into_iter().for_each(|(_, open)| open.give_back());
                return Written::default();
            }
        }
    };
    let rest = messages.split_off(count);
    metrics::parked(count);
    let (records, messages): (Vec<Record>, Vec<Open>) = messages.into_iter().unzip();
    acks.spooled(messages).await;
    Written { records: records.into_iter().map(|record| (record.line, record.number)).collect(), rest }
}

async fn written(writing: &mut Option<LocalBoxFuture<'static, Written>>) -> Option<Written> {
    match writing {
        Some(writing) => Some(writing.await),
        None => None,
    }
}

/// Where a message is parked; none: no route took it.
fn line(work: &Work) -> Option<Line> {
    match &work.what {
        What::Handle { route, serial_no, .. } => {
            Some(Line::Machine { route: work.live.route_name(*route), serial_no: serial_no.shared() })
        }
        What::Refuse(_) => None,
    }
}

fn machine(line: &Line) -> Arc<str> {
    match line {
        Line::Machine { serial_no, .. } => serial_no.clone(),
        Line::List { key, .. } => key.clone(),
    }
}
