//! Dead letters take the way of a message once more: through the lanes, behind what their machine has sent. One leaves the list
//! only when its outcome is durable; so one whose gateway dies in between is there still, and may be pushed twice where its
//! route has no `dedupe`.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use serde::Serialize;
use sluicegate_core::backoff::Backoff;
use sluicegate_core::dead_letter::{DeadLetter, Filter, Kind, LetterId};
use sluicegate_core::message::Field;
use sluicegate_core::ticket::Outcome;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::desk::{PAGE, each};
use crate::live::Current;
use crate::redis::connect::RedisFault;
use crate::redis::letters::Letters;
use crate::telemetry::clock;
use crate::telemetry::tally::Tally;
use crate::uplink::ack::{Open, Replayed};
use crate::uplink::intake::{self, Lanes};
use crate::uplink::lane::{What, Work};
use crate::uplink::room::Room;

/// Letters under way at once: what a replay may hold up of a lane's room.
const MOST: usize = 64;
/// Ticks of the pace in a second at the most: finer than that the timer is not.
const TICKS: u32 = 500;

/// What is to be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which letters; an empty one means all that stand there now.
    pub filter: Filter,
    /// So many a second at the most.
    pub rate: NonZeroU32,
}

/// How far a replay is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// It is under way.
    pub running: bool,
    /// Letters that were meant.
    pub matched: u64,
    /// Of these: their jobs are in Redis, in the spool, or were dropped by a handler; commands stand in their list again.
    pub replayed: u64,
    /// Became dead letters again.
    pub dead_again: u64,
    /// Were left: no route takes them any more, they cannot be read, or the gateway ended.
    pub left: u64,
    /// Why it waits, or ended early.
    pub error: Option<String>,
}

/// Where the progress is shown. The lock is held for a copy only.
#[derive(Debug, Default)]
pub struct ProgressCell(Mutex<Progress>);

impl ProgressCell {
    /// Whether a replay may begin: none is under way.
    pub fn begin(&self) -> bool {
        let mut progress = self.lock();
        if progress.running {
            return false;
        }
        *progress = Progress { running: true, ..Progress::default() };
        true
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.lock().clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a replay works with.
pub struct Tools {
    /// The list.
    pub letters: Letters,
    /// What letters are handled with.
    pub current: Current,
    /// Where they go.
    pub lanes: Lanes,
    /// Where they are counted.
    pub tally: Arc<Tally>,
    /// Bounds what is in memory.
    pub room: Arc<Room>,
    /// Where the progress is shown.
    pub progress: Arc<ProgressCell>,
}

/// Replays what is ordered, one order after another, until `stop`: then no letter is sent any more, and those under way are
/// waited for, until `abandon`.
pub async fn run(mut orders: mpsc::Receiver<Order>, tools: Tools, stop: CancellationToken, abandon: CancellationToken) {
    let Tools { letters, current, lanes, tally, room, progress } = tools;
    // Lanes end when nobody can send to them any more, and what is under way ends with them: so the senders go at `stop`.
    let mut sender = Some(Sender { current, lanes, tally, room });
    let mut remover = Remover { letters, progress: progress.clone(), stop: stop.clone() };
    while sender.is_some() {
        let order = tokio::select! {
            () = stop.cancelled() => return,
            order = orders.recv() => order,
        };
        let Some(order) = order else { return };
        let ended = tokio::select! {
            () = abandon.cancelled() => Ok(()),
            ended = replay(&mut sender, &mut remover, &order, &stop) => ended,
        };
        progress.change(|progress| {
            progress.running = false;
            progress.error = ended.err().map(|fault| fault.to_string());
            progress.left = progress.matched.saturating_sub(progress.replayed + progress.dead_again);
        });
        let Progress { matched, replayed, dead_again, left, .. } = progress.progress();
        tracing::info!(matched, replayed, dead_again, left, "a replay of dead letters came to its end");
    }
}

/// A letter's entry, and what became of it; none: it is left.
type Told = (Bytes, Option<Replayed>);

async fn replay(
    sender: &mut Option<Sender>,
    remover: &mut Remover,
    order: &Order,
    stop: &CancellationToken,
) -> Result<(), RedisFault> {
    // Those that stand there now: what becomes a dead letter again is not replayed for ever.
    let mut wanted = HashSet::new();
    each(&mut remover.letters, |_, id, letter| {
        if letter.is_some_and(|letter| order.filter.matches(id, letter)) {
            wanted.insert(id);
        }
    })
    .await?;
    remover.progress.change(|progress| progress.matched = wanted.len() as u64);
    let mut pace = Pace::new(order.rate);
    let mut under_way: FuturesUnordered<BoxFuture<'static, Told>> = FuturesUnordered::new();
    let mut from = 0;
    // Others take letters off the list too, so places shift; what was passed over is found in the next round.
    let mut found = false;
    let mut ended = Ok(());
    'list: while !wanted.is_empty() {
        let page = remover.letters.page(from, PAGE).await?;
        if page.is_empty() {
            if !std::mem::take(&mut found) {
                break;
            }
            from = 0;
            continue;
        }
        from += page.len() as u64;
        for entry in page {
            if !wanted.remove(&LetterId::of(&entry)) {
                continue;
            }
            found = true;
            loop {
                tokio::select! {
                    () = stop.cancelled() => break 'list,
                    Some(told) = under_way.next() => from -= remover.told(told).await.min(from),
                    () = pace.next() => break,
                }
            }
            match sender.as_ref().and_then(|sender| sender.way(&entry)) {
                None => {}
                Some(Way::Command(command)) => {
                    if let Err(fault) = remover.letters.command(&command).await {
                        ended = Err(fault);
                        // Those that are under way are waited for all the same.
                        break 'list;
                    }
                    from -= remover.told((entry, Some(Replayed::Settled(Outcome::Pushed)))).await.min(from);
                }
                Some(Way::Message(message)) => {
                    if let Some(sender) = sender.as_ref() {
                        let outcome = sender.send(*message).await;
                        under_way.push(Box::pin(async move { (entry, outcome.await.ok()) }));
                    }
                }
            }
            while under_way.len() >= MOST
                && let Some(told) = under_way.next().await
            {
                from -= remover.told(told).await.min(from);
            }
        }
        while let Some(told) = under_way.next().await {
            from -= remover.told(told).await.min(from);
        }
    }
    if stop.is_cancelled() {
        *sender = None;
    }
    while let Some(told) = under_way.next().await {
        remover.told(told).await;
    }
    ended
}

/// At most so many a second, evenly.
struct Pace {
    interval: Interval,
    each: u32,
    left: u32,
}

impl Pace {
    fn new(rate: NonZeroU32) -> Self {
        let (each, period) = steps(rate);
        let mut interval = interval(period);
        // What was missed while Redis or a lane held it up is not made up for.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, each, left: 0 }
    }

    /// # Cancel safety
    /// Dropped, none is lost.
    async fn next(&mut self) {
        if self.left == 0 {
            self.interval.tick().await;
            self.left = self.each;
        }
        self.left -= 1;
    }
}

/// So many at once, once in each such period.
fn steps(rate: NonZeroU32) -> (u32, Duration) {
    let each = rate.get().div_ceil(TICKS);
    (each, Duration::from_secs_f64(f64::from(each) / f64::from(rate.get())))
}

/// What a letter is handled as.
enum Way {
    Message(Box<Prepared>),
    /// It goes to the list that commands are taken from.
    Command(Vec<u8>),
}

/// A message that a route takes.
struct Prepared {
    work: Work,
    lane: usize,
    outcome: oneshot::Receiver<Replayed>,
}

/// Sends letters on their way.
struct Sender {
    current: Current,
    lanes: Lanes,
    tally: Arc<Tally>,
    room: Arc<Room>,
}

impl Sender {
    /// None: it is left, since it cannot be read or no route takes it.
    fn way(&self, entry: &[u8]) -> Option<Way> {
        let letter = DeadLetter::from_json(entry).ok()?;
        let payload = letter.bytes()?;
        if letter.kind == Kind::Command {
            return Some(Way::Command(payload));
        }
        let topic = letter.topic.as_deref()?;
        let received_at: Timestamp = letter.received_at.parse().ok()?;
        let live = self.current.load_full();
        let (what, lane) = intake::what(Some(live.routes.find(topic)?), topic, self.lanes.0.len());
        let What::Handle { route, .. } = &what else { return None };
        let (told, outcome) = oneshot::channel();
        let place = self.tally.place(Some(&live.routes.get(*route).route.name));
        let open = Open::replayed(told, place, self.tally.clone(), self.room.share(payload.len()));
        let properties = letter.properties.iter();
        let properties = properties.map(|(name, value)| Field { name: name.to_string(), value: value.to_string() });
        let work = Work {
            number: 0,
            open,
            live,
            what,
            topic: topic.to_owned(),
            payload: payload.into(),
            properties: properties.collect(),
            received_at,
            no_room: false,
            place: None,
        };
        Some(Way::Message(Box::new(Prepared { work, lane, outcome })))
    }

    async fn send(&self, message: Prepared) -> oneshot::Receiver<Replayed> {
        let Prepared { work, lane, outcome } = message;
        // Replays come behind what the broker sends: they wait for memory that is free.
        self.room.half_free().await;
        // A lane that is gone drops it untold, and it is left.
        let _ = self.lanes.0[lane].send(work).await;
        outcome
    }
}

/// Takes letters off the list.
struct Remover {
    letters: Letters,
    progress: Arc<ProgressCell>,
    stop: CancellationToken,
}

impl Remover {
    /// A letter's outcome is durable, so it leaves the list; gives back how many left it.
    async fn told(&mut self, (entry, replayed): Told) -> u64 {
        let Some(replayed) = replayed else { return 0 };
        let mut backoff = Backoff::for_servers();
        // As long as the gateway runs: its outcome may stand in the spool while Redis is away, and left in the list it would be
        // replayed twice.
        let removed = loop {
            match self.letters.remove(std::slice::from_ref(&entry)).await {
                Ok(removed) => break removed,
                Err(_) if self.stop.is_cancelled() => return 0,
                Err(fault) => {
                    self.progress.change(|progress| progress.error = Some(fault.to_string()));
                    let _ = timeout(backoff.next(clock::chance()), self.stop.cancelled()).await;
                }
            }
        };
        self.progress.change(|progress| {
            progress.error = None;
            match replayed {
                Replayed::Settled(Outcome::Dead) => progress.dead_again += 1,
                Replayed::Settled(_) | Replayed::Spooled => progress.replayed += 1,
            }
        });
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_however_high_or_low_it_is() {
        for rate in [1, 7, 499, 500, 501, 3_000, u32::MAX] {
            let (each, period) = steps(NonZeroU32::new(rate).expect("not zero"));
            let made = f64::from(each) / period.as_secs_f64();
            assert!((made / f64::from(rate) - 1.0).abs() < 0.01, "{each} in {period:?} for {rate}/s");
            assert!(period >= Duration::from_millis(1), "the timer is not finer: {period:?} for {rate}/s");
        }
    }
}
