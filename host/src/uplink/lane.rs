//! Threads that run guests. A machine's messages always take the same lane and one at a time; a guest that yields or waits
//! holds up only its machine.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use sluicegate_core::message::{Field, Message, SerialNo};
use sluicegate_core::order::Lanes;
use sluicegate_core::ticket::{Epoch, Outcome};
use tokio::sync::{mpsc, oneshot};

use super::ack::Open;
use super::chain::{self, Failed, Made};
use super::letter::Letter;
use super::sink::Item;
use crate::live::Live;
use crate::redis::push::Push;
use crate::sandbox::Pool;

/// The most that a lane takes from its channel at once.
const TAKE: usize = 64;

/// One message for a lane.
pub struct Work {
    /// Counts messages since the start.
    pub id: u64,
    /// The connection that it came in on.
    pub epoch: Epoch,
    /// What settles it.
    pub open: Open,
    /// The snapshot that it is handled with, from here to the end.
    pub live: Arc<Live>,
    /// The place of its route.
    pub route: usize,
    /// Its machine.
    pub serial_no: SerialNo,
    /// What the topic's named levels are.
    pub captures: Vec<Field>,
    /// Its topic.
    pub topic: String,
    /// What was published.
    pub payload: Bytes,
    /// Its user properties.
    pub properties: Vec<Field>,
    /// When it arrived.
    pub received_at: Timestamp,
}

/// A running lane.
pub struct Lane {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Lane {
    /// Starts the thread; it ends when every sender of `work` is gone and what was taken is handed to the sink.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn spawn(
        number: usize,
        work: mpsc::Receiver<Work>,
        sink: mpsc::Sender<Item>,
        dead_letters: Arc<str>,
    ) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
            runtime.block_on(run(work, sink, dead_letters));
            // Dropped without this message, the sender says that the lane panicked.
            let _ = end.send(());
        })?;
        Ok(Self { thread, ended })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What the lane said when it panicked.
    pub async fn join(self) -> Result<(), String> {
        if self.ended.await.is_ok() {
            return Ok(());
        }
        // The sender is gone, so the thread is at its end.
        match self.thread.join() {
            Ok(()) => Ok(()),
            Err(panic) => Err(panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a panic without a message".to_owned())),
        }
    }
}

async fn run(mut work: mpsc::Receiver<Work>, sink: mpsc::Sender<Item>, dead_letters: Arc<str>) {
    let pool = Rc::new(Pool::new());
    let mut machines: Lanes<SerialNo, Work> = Lanes::default();
    let mut under_way = FuturesUnordered::new();
    let mut taken = Vec::with_capacity(TAKE);
    let number = Cell::new(0);
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            Some(serial_no) = under_way.next() => {
                if let Some(next) = machines.leave(&serial_no) {
                    under_way.push(handle(pool.clone(), next, sink.clone(), dead_letters.clone()));
                }
            }
            count = work.recv_many(&mut taken, TAKE), if open => {
                open = count > 0;
                for item in taken.drain(..) {
                    if number.replace(item.live.number) != item.live.number {
                        pool.retain(|generation| item.live.serves(generation));
                    }
                    if let Some(first) = machines.enter(item.serial_no.clone(), item) {
                        under_way.push(handle(pool.clone(), first, sink.clone(), dead_letters.clone()));
                    }
                }
            }
        }
    }
}

async fn handle(pool: Rc<Pool>, work: Work, sink: mpsc::Sender<Item>, dead_letters: Arc<str>) -> SerialNo {
    let Work { id, epoch, open, live, route, serial_no, captures, topic, payload, properties, received_at } = work;
    let prepared = live.routes.get(route);
    let zone = live.settings.gateway.time_zone;
    let message = Message {
        captures,
        payload: payload.clone(),
        properties,
        received_at: crate::telemetry::clock::rfc3339_millis(received_at, zone),
        id: format!("{}-{id}", epoch.0),
        attempt: 1,
        topic,
    };
    let topic = message.topic.clone();
    let at = crate::telemetry::clock::rfc3339(received_at, zone);
    let (pushes, outcome) = match chain::run(&pool, &live.chains[route], message, &mut ()).await {
        Made::Jobs(jobs) if jobs.is_empty() => (Vec::new(), Outcome::Dropped),
        Made::Jobs(jobs) => {
            let key = live.queue(route);
            let write = |job: &sluicegate_core::message::Job| Push {
                key: key.clone(),
                value: prepared.envelope.write(serial_no.as_str(), &job.payload, &at),
            };
            (jobs.iter().map(write).collect(), Outcome::Pushed { jobs: jobs.len() })
        }
        Made::Failed(failed) => {
            let reason = failed.reason.to_string();
            say(&failed, &reason, &prepared.route.name, &serial_no);
            live.metrics[route].rejected(failed.reason.kind());
            let letter = Letter {
                reason: &reason,
                route: Some(&prepared.route.name),
                topic: &topic,
                serial_no: Some(serial_no.as_str()),
                failed: Some(&failed),
                received_at: &at,
                payload: &payload,
            };
            (vec![letter.push(&dead_letters)], Outcome::Dead)
        }
    };
    let metrics = Some((live.metrics.clone(), route));
    // The sink ends after every lane; a failed send is a delivery without a verdict, and says so itself.
    let _ = sink.send(Item { open, pushes, outcome, metrics }).await;
    serial_no
}

fn say(failed: &Failed, reason: &str, route: &str, serial_no: &SerialNo) {
    if matches!(failed.reason, chain::Reason::Rejected(_)) {
        tracing::debug!(plugin = failed.plugin, %serial_no, route, reason, "a message goes to the dead letters");
    } else {
        tracing::warn!(plugin = failed.plugin, %serial_no, route, "a message goes to the dead letters: {}", failed.reason.kind());
    }
}
