//! What a lane does with one message: from its first attempt to the sink, or to the spool.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use sluicegate_core::attempt::{Attempts, Next, gives_up};
use sluicegate_core::message::{Field, SerialNo};
use sluicegate_core::route::SERIAL_NO;
use sluicegate_core::spooled::{Body, Line, Parked, Record};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::ack::Open;
use super::attempt::{Attempted, Subject, Verdicted, away};
use super::chain::{Failed, Reason};
use super::lane::{Tools, What, Work};
use super::letter::Letter;
use super::sink::Item;
use crate::sandbox::Generation;
use crate::telemetry::clock;

/// How much longer an attempt may take whose handlers keep something.
const KEPT: Duration = Duration::from_secs(2);

/// How a lane's task ended.
pub(super) enum Ended {
    /// The message is in the sink's hands, or given back.
    Done,
    /// It needs more time than its acknowledgement can wait; it was tried so often.
    Park(Box<Work>, u32),
    /// The first parked message of a line, and its place in memory; none: nothing stands there.
    Read(Line, Option<(Record, OwnedSemaphorePermit)>),
    /// The parked message is in the sink's hands.
    Taken(Line, u64),
    /// It failed, and stays.
    Failed(Line),
    /// It was not tried, and is not to be before so long.
    Waits(Line, Duration),
}

/// A message from the broker.
pub(super) async fn handle(tools: Rc<Tools>, work: Box<Work>) -> Ended {
    match first_attempts(&tools, &work).await {
        First::Done(verdict) => send(&tools, work.open, verdict, work.received_at).await,
        First::Park(attempts) => Ended::Park(work, attempts),
    }
}

enum First {
    Done(Verdicted),
    /// After so many attempts.
    Park(u32),
}

/// Its attempts while its acknowledgement waits.
async fn first_attempts(tools: &Tools, work: &Work) -> First {
    let What::Handle { route, serial_no, captures } = &work.what else { return First::Park(0) };
    let subject = Subject {
        live: &work.live,
        route: *route,
        chain: work.live.chain(*route, serial_no.as_str()),
        serial_no,
        captures,
        topic: &work.topic,
        payload: &work.payload,
        properties: &work.properties,
        received_at: work.received_at,
        number: work.number,
    };
    // What it publishes has nowhere to go: then its plugins are not asked, who may write to their state.
    if subject.may_publish() && !tools.publications.stands() {
        return First::Park(0);
    }
    let mut attempts = Attempts::new(work.live.routes.get(*route).route.attempts, clock::uptime());
    let mut attempt = 1;
    loop {
        let kept = Cell::new(false);
        let mut attempted = pin!(subject.attempt(tools, attempt, &kept));
        // An attempt that takes longer is begun anew from the spool, where it may take its time.
        let mut ended = timeout(attempts.rest(clock::uptime()), attempted.as_mut()).await.ok();
        if ended.is_none() && kept.get() {
            // But what its handlers keep would be kept twice.
            ended = timeout(KEPT, while_kept(attempted, &kept)).await.ok().flatten();
        }
        let failed = match ended {
            None | Some(Attempted::Wait(_)) => return First::Park(attempt - 1),
            Some(Attempted::Done(verdict)) => return First::Done(verdict),
            Some(Attempted::Failed(failed)) => failed,
        };
        match attempts.failed(attempt, subject.broken_for().is_some(), clock::uptime(), clock::chance()) {
            Next::Park => return First::Park(attempt),
            Next::GiveUp => return subject.give_up(&failed, attempt).map_or(First::Park(attempt), First::Done),
            Next::Again(delay) => {
                tokio::time::sleep(delay).await;
                attempt += 1;
            }
        }
    }
}

/// Goes on as long as something may be written that would be written twice.
async fn while_kept<F: Future>(mut work: Pin<&mut F>, kept: &Cell<bool>) -> Option<F::Output> {
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if kept.get() => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The first parked message of a line, once there is room for it.
pub(super) async fn read(tools: Rc<Tools>, line: Line, behind: Option<u64>) -> Ended {
    let place = tools.turns.clone().acquire_owned().await.expect("invariant: the places of turns are never closed");
    match tools.acks.spool.read(&line, behind, 1, usize::MAX).await {
        Ok(mut records) => Ended::Read(line, records.pop().map(|record| (record, place))),
        // The disk failed, and the gateway ends: the line is not known to be empty.
        Err(_) => Ended::Done,
    }
}

/// One attempt of a parked message. `tried` is how often it was tried since it was parked; its place bounds what is in memory.
pub(super) async fn turn(
    tools: Rc<Tools>,
    line: Line,
    (record, _place): (Record, OwnedSemaphorePermit),
    tried: u32,
) -> Ended {
    let (Line::Machine { route, serial_no }, Body::Parked(parked)) = (&line, &record.body) else {
        return Ended::Taken(line, record.number);
    };
    let live = tools.current.load_full();
    let received_at = Timestamp::from_microsecond(parked.received_at).unwrap_or_default();
    let tally = &tools.acks.tally;
    let open = |line: &Line| {
        let share = tools.room.share(parked.payload.len());
        Open::parked(line.clone(), record.number, tally.place(Some(route)), tally.clone(), share)
    };
    let (Some(place), Ok(machine)) = (live.route(route, &parked.topic), SerialNo::new(serial_no)) else {
        let reason = format!("it was parked, and the settings have no route `{route}` any more");
        let Parked { topic, payload, properties, attempts, .. } = parked;
        let (route, serial_no, attempts) = (Some(&**route), Some(&**serial_no), *attempts);
        let letter = Letter {
            reason: &reason,
            route,
            topic,
            serial_no,
            failed: None,
            attempts,
            received_at,
            properties,
            payload,
        };
        let verdict = Verdicted::dead(&live, letter.job(None, live.zone()));
        send(&tools, open(&line), verdict, received_at).await;
        return Ended::Taken(line, record.number);
    };
    let prepared = live.routes.get(place);
    // A topic that the route had before the last start is not known any more; the machine is.
    let captures = prepared.route.topic.matches(&parked.topic);
    let captures =
        captures.unwrap_or_else(|| vec![Field { name: SERIAL_NO.to_owned(), value: machine.as_str().to_owned() }]);
    let subject = Subject {
        live: &live,
        route: place,
        chain: live.chain(place, machine.as_str()),
        serial_no: &machine,
        captures: &captures,
        topic: &parked.topic,
        payload: &parked.payload,
        properties: &parked.properties,
        received_at,
        number: record.number,
    };
    // As at the first attempt.
    if subject.may_publish() && !tools.publications.stands() {
        return Ended::Waits(line, away());
    }
    let before = parked.attempts.saturating_add(tried);
    let opened = open(&line);
    let verdict = match subject.attempt(&tools, before.saturating_add(1), &Cell::new(false)).await {
        Attempted::Done(verdict) => Some(verdict),
        Attempted::Wait(_) if gives_up(before, u32::MAX, subject.broken_for()) => {
            subject.give_up(&Failed::unrepaired(&subject.chain), before)
        }
        Attempted::Wait(delay) => return Ended::Waits(line, delay),
        Attempted::Failed(failed) if gives_up(before + 1, prepared.route.attempts, subject.broken_for()) => {
            subject.give_up(&failed, before + 1)
        }
        Attempted::Failed(_) => None,
    };
    match verdict {
        Some(verdict) => {
            send(&tools, opened, verdict, received_at).await;
            Ended::Taken(line, record.number)
        }
        None => {
            opened.give_back();
            Ended::Failed(line)
        }
    }
}

/// A message that no lane can handle.
pub(super) async fn refuse(tools: Rc<Tools>, work: Work) -> Ended {
    let What::Refuse(refused) = &work.what else { return Ended::Done };
    let live = &work.live;
    let route = refused.route.map(|route| live.route_name(route));
    tracing::debug!(topic = ?work.topic, reason = refused.reason, "a message goes to the dead letters");
    let letter = Letter {
        reason: &refused.reason,
        route: route.as_deref(),
        topic: &work.topic,
        serial_no: refused.serial_no.as_deref(),
        failed: None,
        attempts: 0,
        received_at: work.received_at,
        properties: &work.properties,
        payload: &work.payload,
    };
    let verdict = Verdicted::dead(live, letter.job(route.as_deref(), live.zone()));
    send(&tools, work.open, verdict, work.received_at).await
}

async fn send(tools: &Tools, open: Open, verdict: Verdicted, at: Timestamp) -> Ended {
    let Verdicted { job, outcome, low } = verdict;
    // The sink ends after every lane; a failed send is a delivery without a verdict, and says so itself.
    let _ = tools.sink.send(Item { open, job, outcome, at: at.as_millisecond(), low }).await;
    Ended::Done
}

impl Failed {
    /// It was never tried again: its plugin fails at everything.
    fn unrepaired(chain: &[Arc<Generation>]) -> Self {
        let broken = chain.iter().find(|generation| generation.is_broken()).or(chain.first());
        Self {
            plugin: broken.map_or_else(String::new, |generation| generation.name().to_owned()),
            version: broken.map_or_else(String::new, |generation| generation.version().to_owned()),
            reason: Reason::Broken,
        }
    }
}
