//! One batcher for all lanes: many jobs in one round trip, then their acknowledgements. A list that Redis does not take is
//! behind: what is for it goes to the spool, and from there to Redis, in order, once it takes again.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::backoff::Backoff;
use sluicegate_core::batch::{Batching, MAX_BYTES, MAX_MESSAGES};
use sluicegate_core::flow::{Next, Target};
use sluicegate_core::spooled::{Body, Entry, Job, Record};
use sluicegate_core::ticket::Outcome;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::ack::{Acks, Open};
use super::behind::Lists;
use crate::redis::connect::{Link, RedisFault};
use crate::redis::jobs::{Answer, JobPusher, Jobs};
use crate::telemetry::{clock, metrics};

/// A push that takes longer is put on the disk meanwhile, so that no acknowledgement waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// One message's outcome, to be made durable.
pub struct Item {
    /// What settles it.
    pub open: Open,
    /// For which list (its whole key), and what; none: it was dropped on purpose.
    pub job: Option<(Arc<str>, Job)>,
    /// What it then is.
    pub outcome: Outcome,
    /// When it arrived, in milliseconds since 1970.
    pub at: i64,
    /// Of a route with `priority = "low"`.
    pub low: Option<Low>,
}

/// What may be set aside while the back end is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Low {
    /// Names its machine and route, where only the newest is kept (`when_behind = "latest"`).
    pub latest: Option<Arc<str>>,
}

/// The lists whose length is bounded (`queues.incoming_max`), by their whole keys.
pub type Limits = HashMap<Arc<str>, u64>;

/// A message on its way, with its record.
pub(super) struct Waiting {
    pub record: Record,
    pub open: Open,
    pub latest: Option<Arc<str>>,
}

/// What is under way to Redis.
struct UnderWay {
    records: Arc<[Record]>,
    /// Who is to be told; empty: they stand in the spool, and were told.
    messages: Vec<Open>,
    latest: Vec<Option<Arc<str>>>,
    /// When it is to be put on the disk.
    slow: Option<Instant>,
    /// The list whose length is looked at first, and how many entries it may have.
    look: Option<(Target, u64)>,
}

impl UnderWay {
    fn of_the_spool(records: Vec<Record>) -> Self {
        Self { records: records.into(), messages: Vec::new(), latest: Vec::new(), slow: None, look: None }
    }
}

type Answers = Result<Vec<(Arc<str>, Answer)>, RedisFault>;
type Pushing = Pin<Box<dyn Future<Output = (JobPusher, Answers)> + Send>>;

/// The sink.
pub struct Sink {
    acks: Acks,
    link: Link,
    lists: Lists,
    /// The lists whose length is bounded, where that changed.
    limits: watch::Receiver<Limits>,
    /// Of each route, the list and the line of its last job.
    last: HashMap<Arc<str>, (Arc<str>, bool)>,
    /// For lists that are not behind, in order.
    ready: Vec<Waiting>,
    /// For lists that are behind, while the spool does not take them. Invariant: of a list that is direct there is none here.
    stuck: Vec<Waiting>,
    stuck_until: Instant,
    stuck_backoff: Backoff,
    under_way: Option<UnderWay>,
    /// The number of the last record.
    number: u64,
    batching: Batching,
    /// While Redis is away and nothing waits for it: when to look whether it is back.
    reconnect: Option<Instant>,
}

enum Event {
    Taken(usize),
    Pushed(Box<JobPusher>, Answers),
    Slow,
    Due,
    Limits,
    Abandoned,
}

impl Sink {
    /// `number` is the highest in the spool; `lists` knows which of them are behind from the start, `last` where the routes' jobs stand
    /// there.
    #[must_use]
    pub fn new(
        acks: Acks,
        link: Link,
        lists: Lists,
        limits: watch::Receiver<Limits>,
        last: HashMap<Arc<str>, (Arc<str>, bool)>,
        number: u64,
    ) -> Self {
        Self {
            acks,
            link,
            lists,
            limits,
            last,
            ready: Vec::new(),
            stuck: Vec::new(),
            stuck_until: Instant::now(),
            stuck_backoff: Backoff::for_servers(),
            under_way: None,
            number,
            batching: Batching::default(),
            reconnect: None,
        }
    }

    /// Works until every sender is gone and every message is in Redis or in the spool, or until `abandon`: what is in neither
    /// then is not acknowledged, and the broker sends it again.
    pub async fn run(mut self, mut items: mpsc::Receiver<Item>, mut pusher: JobPusher, abandon: CancellationToken) {
        // Says early whether Redis is there, not only with the first message.
        match pusher.connect().await {
            Ok(()) => self.link.up(),
            Err(fault) => self.reconnect = Some(Instant::now() + self.link.down(&fault)),
        }
        let mut taken: Vec<Item> = Vec::with_capacity(MAX_MESSAGES);
        let (mut idle, mut pushing) = (Some(pusher), None);
        let mut open = true;
        while open || pushing.is_some() || !self.ready.is_empty() || !self.stuck.is_empty() {
            if let Some(pusher) = idle.take() {
                if self.next(open).await {
                    pushing = self.push(pusher);
                } else {
                    idle = Some(pusher);
                }
            }
            let slow = self.under_way.as_ref().and_then(|under_way| under_way.slow);
            // While something fresh is under way nothing is taken: what comes meanwhile is the next, larger batch.
            let take = open && slow.is_none() && self.stuck.is_empty() && self.ready.len() < MAX_MESSAGES;
            let due = self.due(idle.is_some() && open);
            let event = tokio::select! {
                biased;
                () = abandon.cancelled() => Event::Abandoned,
                (pusher, answers) = finished(&mut pushing) => Event::Pushed(Box::new(pusher), answers),
                () = at(slow) => Event::Slow,
                count = items.recv_many(&mut taken, MAX_MESSAGES), if take => Event::Taken(count),
                () = at(due) => Event::Due,
                Ok(()) = self.limits.changed() => Event::Limits,
            };
            match event {
                Event::Abandoned => break,
                Event::Taken(0) => open = false,
                Event::Taken(_) => {
                    if pushing.is_none() {
                        self.fill(&mut items, &mut taken).await;
                    }
                    self.take(taken.drain(..)).await;
                }
                Event::Pushed(pusher, answers) => {
                    (pushing, idle) = (None, Some(*pusher));
                    self.on_pushed(answers).await;
                }
                Event::Slow => self.on_slow().await,
                Event::Limits => self.lists.set_limits(self.limits.borrow_and_update().clone()),
                Event::Due => {
                    self.unstick().await;
                    if self.reconnect.is_some_and(|at| at <= Instant::now())
                        && let Some(pusher) = idle.take()
                    {
                        // A push of nothing: it says whether Redis is there.
                        self.reconnect = None;
                        self.under_way = Some(UnderWay::of_the_spool(Vec::new()));
                        pushing = self.push(pusher);
                    }
                }
            }
        }
        // The gateway says what it abandons; here nothing is without a verdict by mistake.
        let under_way = self.under_way.take().map(|under_way| under_way.messages).unwrap_or_default();
        let rest = self.ready.drain(..).chain(self.stuck.drain(..)).map(|waiting| waiting.open);
        under_way.into_iter().chain(rest).chain(taken.into_iter().map(|item| item.open)).for_each(Open::give_back);
    }

    /// Under load, waits a little for more.
    async fn fill(&self, items: &mut mpsc::Receiver<Item>, taken: &mut Vec<Item>) {
        let size =
            |items: &[Item]| -> usize { items.iter().filter_map(|item| Some(bytes(&item.job.as_ref()?.1))).sum() };
        let mut bytes = size(taken);
        let deadline = Instant::now() + self.batching.wait(taken.len(), bytes);
        while !self.batching.wait(taken.len(), bytes).is_zero() {
            let before = taken.len();
            match timeout_at(deadline, items.recv_many(taken, MAX_MESSAGES - before)).await {
                Ok(count) if count > 0 => bytes += size(&taken[before..]),
                _ => return,
            }
        }
    }

    /// Gives each its number, and sorts them: dropped, ready, or for the spool.
    async fn take(&mut self, items: impl Iterator<Item = Item>) {
        let (mut dropped, mut behind) = (Vec::new(), Vec::new());
        for Item { open, job, outcome, at, low } in items {
            let Some((key, job)) = job else {
                dropped.push((open, outcome));
                continue;
            };
            self.number += 1;
            let target = self.target(key, &job, low.is_some());
            let is_behind = self.lists.is_behind(&target);
            let line = target.line();
            let record = Record { line, number: self.number, at, body: Body::Job(job) };
            let waiting = Waiting { record, open, latest: low.filter(|_| target.low).and_then(|low| low.latest) };
            if is_behind { behind.push(waiting) } else { self.ready.push(waiting) }
        }
        self.acks.settle(dropped).await;
        self.spool(behind).await;
    }

    /// Where a job goes. A route whose priority was changed keeps its line while any of its jobs may stand there: the two lines of a list
    /// are drained one beside the other, and later jobs would pass earlier ones.
    fn target(&mut self, key: Arc<str>, job: &Job, low: bool) -> Target {
        let Some(route) = job.route.as_ref().filter(|_| !job.dead) else { return Target { key, low } };
        match self.last.get(route) {
            Some((list, line)) if *list == key && *line == low => return Target { key, low },
            Some((list, line)) if *list == key => {
                let before = Target { key: key.clone(), low: *line };
                let its = |record: &Record| matches!(&record.body, Body::Job(job) if job.route.as_ref() == Some(route));
                let waiting = self.ready.iter().chain(&self.stuck).map(|waiting| &waiting.record);
                let mut all = waiting.chain(self.under_way.iter().flat_map(|under_way| under_way.records.iter()));
                if self.lists.is_behind(&before) || all.any(its) {
                    return before;
                }
            }
            _ => {}
        }
        self.last.insert(route.clone(), (key.clone(), low));
        Target { key, low }
    }

    /// What is to be pushed next, made `under_way`: what is ready, and by turns what stands in the spool. False: nothing for now.
    /// While the gateway ends the spool is left alone: the next start goes on.
    async fn next(&mut self, open: bool) -> bool {
        loop {
            match self.lists.next(!self.ready.is_empty(), open) {
                Next::Nothing => return false,
                Next::Ready => {
                    self.under_way = Some(self.take_ready());
                    return true;
                }
                Next::Drain(target, behind, most) => {
                    let records = match self.acks.spool.read(&target.line(), behind, most, MAX_BYTES).await {
                        Ok(records) => records,
                        // The disk failed, and the gateway ends: what stands there is not known to be empty.
                        Err(_) => return false,
                    };
                    if records.is_empty() && self.lists.empty(&target) {
                        self.release(&target);
                        continue;
                    }
                    let numbers: Vec<u64> = records.iter().map(|record| record.number).collect();
                    self.lists.draining(&target, &numbers);
                    let look = self.lists.bound(&target).map(|most| (target, most));
                    self.under_way = Some(UnderWay { look, ..UnderWay::of_the_spool(records) });
                    return true;
                }
            }
        }
    }

    /// A list is direct again: what the spool did not take for it is pushed before what comes now. In the spool nobody would look for it.
    fn release(&mut self, target: &Target) {
        let its = |waiting: &Waiting| Target::of(&waiting.record.line) == *target;
        let (mut ready, stuck) = std::mem::take(&mut self.stuck).into_iter().partition::<Vec<_>, _>(its);
        self.stuck = stuck;
        ready.append(&mut self.ready);
        self.ready = ready;
    }

    /// A batch of what is ready.
    fn take_ready(&mut self) -> UnderWay {
        let mut size = 0;
        let count = self.ready.iter().take(MAX_MESSAGES).take_while(|waiting| {
            let before = size;
            size += record_bytes(&waiting.record);
            before == 0 || size <= MAX_BYTES
        });
        let count = count.count();
        let (mut records, mut messages, mut latest) = (Vec::new(), Vec::new(), Vec::new());
        for waiting in self.ready.drain(..count) {
            records.push(waiting.record);
            messages.push(waiting.open);
            latest.push(waiting.latest);
        }
        self.batching.pushed(count);
        UnderWay { records: records.into(), messages, latest, slow: Some(Instant::now() + PATIENCE), look: None }
    }

    fn push(&self, mut pusher: JobPusher) -> Option<Pushing> {
        let under_way = self.under_way.as_ref()?;
        let (records, look) = (under_way.records.clone(), under_way.look.clone());
        if !records.is_empty() {
            metrics::batch(records.len());
        }
        Some(Box::pin(async move {
            let answers = push(&mut pusher, &records, look).await;
            (pusher, answers)
        }))
    }

    /// The push takes long: what it carries goes to the disk, whatever becomes of it, and is acknowledged.
    async fn on_slow(&mut self) {
        let Some(under_way) = &mut self.under_way else { return };
        if self.acks.spool.append(under_way.records.to_vec()).await.is_err() {
            under_way.slow = Some(Instant::now() + PATIENCE);
            return;
        }
        under_way.slow = None;
        self.acks.spooled(under_way.messages.drain(..)).await;
        for record in under_way.records.iter() {
            self.lists.fell_behind(&Target::of(&record.line));
        }
        self.divert().await;
    }

    async fn on_pushed(&mut self, answers: Answers) {
        let Some(UnderWay { records, messages, latest, look, .. }) = self.under_way.take() else { return };
        let mut by_list: Vec<(Target, Vec<usize>)> = Vec::new();
        for (index, record) in records.iter().enumerate() {
            let target = Target::of(&record.line);
            match by_list.iter_mut().find(|(other, _)| *other == target) {
                Some((_, indices)) => indices.push(index),
                None => by_list.push((target, vec![index])),
            }
        }
        let delay = match &answers {
            Ok(_) => {
                self.link.up();
                Duration::ZERO
            }
            Err(fault) => self.link.down(fault),
        };
        self.reconnect = answers.is_err().then(|| Instant::now() + delay);
        if let Some((target, _)) = look {
            match answers.as_ref().map(|answers| answers.iter().find(|(key, _)| *key == target.key)) {
                Ok(Some((_, Err(fault)))) if records.is_empty() => self.lists.refused(&target, fault),
                Ok(Some((_, Err(_)))) => {}
                Ok(_) => self.lists.short(&target),
                Err(_) => self.lists.unanswered(&target, delay),
            }
        }
        let mut messages: Vec<Option<Open>> = messages.into_iter().map(Some).collect();
        let (mut settled, mut refused) = (Vec::new(), Vec::new());
        for (target, indices) in by_list {
            let answer = answers
                .as_ref()
                .map(|answers| answers.iter().find(|(key, _)| *key == target.key).map(|(_, answer)| answer));
            match answer {
                Ok(Some(Ok(appended))) => {
                    let mut new = appended.new.iter();
                    // Low and normal jobs of one list are pushed together, so each takes its own answers.
                    let mut outcomes = Vec::with_capacity(indices.len());
                    for (index, record) in records.iter().enumerate() {
                        if Target::of(&record.line).key != target.key {
                            continue;
                        }
                        let new = new.by_ref().take(entries(record).len()).filter(|new| **new).count();
                        if indices.binary_search(&index).is_ok() {
                            outcomes.push((index, outcome(record, new)));
                        }
                    }
                    self.lists.took(&target, records[indices[indices.len() - 1]].number, appended.length);
                    let mut numbers = Vec::new();
                    for (index, (outcome, route)) in outcomes {
                        match messages.get_mut(index).and_then(Option::take) {
                            Some(open) => settled.push((open, outcome)),
                            None => {
                                numbers.push(records[index].number);
                                let tally = &self.acks.tally;
                                tally.drained(tally.place(route.as_deref()), outcome);
                            }
                        }
                    }
                    if !numbers.is_empty() {
                        self.acks.spool.done(target.line(), numbers).await;
                    }
                }
                Ok(Some(Err(fault))) => self.lists.refused(&target, fault),
                Ok(None) => self.lists.unanswered(&target, Duration::ZERO),
                Err(_) => self.lists.unanswered(&target, delay),
            }
            for index in indices {
                if let Some(open) = messages.get_mut(index).and_then(Option::take) {
                    let latest = latest.get(index).cloned().flatten();
                    refused.push(Waiting { record: records[index].clone(), open, latest });
                }
            }
        }
        self.acks.settle(settled).await;
        self.spool(refused).await;
        self.divert().await;
    }

    /// What was ready for a list that has fallen behind goes behind its spooled ones.
    async fn divert(&mut self) {
        if self.ready.iter().any(|waiting| self.lists.is_behind(&Target::of(&waiting.record.line))) {
            let (behind, ready) = std::mem::take(&mut self.ready)
                .into_iter()
                .partition(|waiting| self.lists.is_behind(&Target::of(&waiting.record.line)));
            self.ready = ready;
            self.spool(behind).await;
        }
    }

    /// Puts messages on the disk, behind those that wait for it already; what there is no room for waits on.
    async fn spool(&mut self, messages: Vec<Waiting>) {
        let (fleeting, mut messages): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|waiting| waiting.open.is_fleeting());
        fleeting.into_iter().for_each(|waiting| waiting.open.give_back());
        if messages.is_empty() && self.stuck.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.stuck);
        all.append(&mut messages);
        let records = all.iter().map(|waiting| waiting.record.clone()).collect();
        match self.acks.spool.append_first(records).await {
            Ok(count) => {
                self.stuck_backoff.reset();
                self.stuck = all.split_off(count);
                if !self.stuck.is_empty() {
                    self.stuck_until = Instant::now() + self.stuck_backoff.next(clock::chance());
                }
                let superseded = self.lists.newest(&all);
                self.acks.spooled(all.into_iter().map(|waiting| waiting.open)).await;
                for (target, numbers, route) in superseded {
                    let place = self.acks.tally.place(route.as_deref());
                    numbers.iter().for_each(|_| self.acks.tally.drained(place, Outcome::Dropped));
                    metrics::superseded(route.as_deref().unwrap_or(""), numbers.len());
                    self.acks.spool.done(target.line(), numbers).await;
                }
            }
            Err(error) if error.may_pass() => {
                self.stuck = all;
                self.stuck_until = Instant::now() + self.stuck_backoff.next(clock::chance());
            }
            // The disk failed: the gateway ends, and the broker has them still.
            Err(_) => all.into_iter().for_each(|waiting| waiting.open.give_back()),
        }
    }

    /// What the spool did not take is tried again.
    async fn unstick(&mut self) {
        if !self.stuck.is_empty() && Instant::now() >= self.stuck_until {
            self.spool(Vec::new()).await;
        }
    }

    /// When to look again by itself.
    fn due(&self, lists: bool) -> Option<Instant> {
        let stuck = (!self.stuck.is_empty()).then_some(self.stuck_until);
        let list = if lists { self.lists.due().into_iter().chain(self.reconnect).min() } else { None };
        stuck.into_iter().chain(list).min()
    }
}

/// One round trip. Where a list has a limit, its length is looked at first.
async fn push(pusher: &mut JobPusher, records: &[Record], look: Option<(Target, u64)>) -> Answers {
    if let Some((Target { key, .. }, most)) = look {
        let length = match pusher.length(&key).await {
            Ok(length) => length,
            Err(fault @ RedisFault::Refused { .. }) => return Ok(vec![(key, Err(fault))]),
            Err(fault) => return Err(fault),
        };
        if length >= most {
            return Ok(vec![(key, Err(RedisFault::Long { length, most }))]);
        }
    }
    let mut jobs: Vec<Jobs<'_>> = Vec::new();
    for record in records {
        let key = Target::of(&record.line).key;
        let entries = entries(record);
        match jobs.iter_mut().find(|jobs| jobs.list == key) {
            Some(jobs) => jobs.entries.extend(entries),
            None => jobs.push(Jobs { list: key, entries: entries.iter().collect() }),
        }
    }
    let answers = pusher.push(&jobs).await?;
    Ok(jobs.into_iter().map(|jobs| jobs.list).zip(answers).collect())
}

fn entries(record: &Record) -> &[Entry] {
    if let Body::Job(job) = &record.body { &job.entries } else { &[] }
}

fn bytes(job: &Job) -> usize {
    job.entries.iter().map(|entry| entry.value.len()).sum()
}

fn record_bytes(record: &Record) -> usize {
    entries(record).iter().map(|entry| entry.value.len()).sum()
}

/// What a pushed record is, and its route; so many of its entries were new to the list.
fn outcome(record: &Record, new: usize) -> (Outcome, Option<Arc<str>>) {
    let Body::Job(job) = &record.body else { return (Outcome::Dropped, None) };
    let route = job.route.clone();
    if job.dead {
        return (Outcome::Dead, route);
    }
    metrics::jobs(new, job.entries.len() - new);
    (if new == 0 { Outcome::Suppressed } else { Outcome::Pushed }, route)
}

async fn finished(pushing: &mut Option<Pushing>) -> (JobPusher, Answers) {
    match pushing {
        Some(pushing) => pushing.await,
        None => std::future::pending().await,
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
