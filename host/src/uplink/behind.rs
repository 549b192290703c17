//! Which lists are behind: Redis does not take for them, or the back end does not keep up. One state for each: direct,
//! behind (what comes goes to the spool), and direct again once the spool has nothing for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::backoff::Backoff;
use sluicegate_core::batch::MAX_MESSAGES;
use sluicegate_core::spooled::{Body, Line};
use tokio::time::Instant;

use super::sink::Waiting;
use crate::redis::connect::RedisFault;
use crate::telemetry::board::Board;
use crate::telemetry::clock;

/// How often the length of a list is looked at while the back end is behind.
const LOOK: Duration = Duration::from_secs(1);
/// Low routes are set aside first: from this share of `queues.incoming_max` on.
const LOW_SHARE: u64 = 2;

/// Where a job goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The list's whole key.
    pub key: Arc<str>,
    /// Of a route with `priority = "low"`.
    pub low: bool,
}

impl Target {
    pub(super) fn line(&self) -> Line {
        Line::List { key: self.key.clone(), low: self.low }
    }

    pub(super) fn of(line: &Line) -> Self {
        match line {
            Line::List { key, low } => Self { key: key.clone(), low: *low },
            Line::Machine { route, .. } => Self { key: route.clone(), low: false },
        }
    }
}

pub(super) struct Behind {
    backoff: Backoff,
    retry: Instant,
    /// The last record that was pushed.
    drained: Option<u64>,
    /// How many records one push carries: halved while it gets no answer, since a job may be what breaks the connection.
    records: usize,
    /// It is the back end that does not keep up.
    long: bool,
}

impl Behind {
    fn new() -> Self {
        Self {
            backoff: Backoff::for_servers(),
            retry: Instant::now(),
            drained: None,
            records: MAX_MESSAGES,
            long: false,
        }
    }
}

/// The lists that are behind.
pub struct Lists {
    behind: HashMap<Target, Behind>,
    /// Lists whose length is bounded (`queues.incoming_max`), with the bound.
    limits: HashMap<Arc<str>, u64>,
    /// Of routes that keep only the newest while the back end is behind: the number of it.
    newest: HashMap<Arc<str>, u64>,
    board: Arc<Board>,
}

impl Lists {
    /// `waiting` are those that the spool has records for; `limits` the lists whose length is bounded.
    #[must_use]
    pub fn new(waiting: impl IntoIterator<Item = Target>, limits: HashMap<Arc<str>, u64>, board: Arc<Board>) -> Self {
        let behind = waiting.into_iter().map(|target| (target, Behind::new())).collect();
        Self { behind, limits, newest: HashMap::new(), board }
    }

    pub(super) fn is_behind(&self, target: &Target) -> bool {
        !self.behind.is_empty() && self.behind.contains_key(target)
    }

    /// A list that is to be tried now: behind which number, and how many records at once.
    pub(super) fn due(&self, now: Instant) -> Option<(Target, Option<u64>, usize)> {
        let (target, behind) =
            self.behind.iter().filter(|(_, behind)| behind.retry <= now).min_by_key(|(_, b)| b.retry)?;
        Some((target.clone(), behind.drained, behind.records))
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.behind.values().map(|behind| behind.retry).min()
    }

    /// Whether its length is bounded.
    pub(super) fn is_limited(&self, target: &Target) -> bool {
        self.limits.contains_key(&target.key)
    }

    /// How many entries it may have.
    pub(super) fn most(&self, target: &Target) -> u64 {
        let most = self.limits.get(&target.key).copied().unwrap_or(u64::MAX);
        if target.low { most / LOW_SHARE } else { most }
    }

    pub(super) fn fell_behind(&mut self, target: &Target) -> &mut Behind {
        self.behind.entry(target.clone()).or_insert_with(Behind::new)
    }

    /// The spool has nothing for it any more.
    pub(super) fn caught_up(&mut self, target: &Target) {
        if self.behind.remove(target).is_some_and(|behind| behind.long) {
            tracing::info!(list = &*target.key, low = target.low, "the back end has caught up");
        }
        self.board.alarm(&name(target), None);
    }

    /// Redis took records up to a number; the list has so many entries now.
    pub(super) fn took(&mut self, target: &Target, number: u64, length: u64) {
        if let Some(behind) = self.behind.get_mut(target) {
            behind.drained = Some(number.max(behind.drained.unwrap_or(0)));
            behind.backoff.reset();
            behind.retry = Instant::now();
            behind.records = (behind.records * 2).min(MAX_MESSAGES);
        }
        if self.is_limited(target) && length >= self.most(target) {
            self.too_long(target, length);
        }
    }

    /// These are on their way to Redis: nothing supersedes them any more.
    pub(super) fn leaving(&mut self, target: &Target, numbers: &[u64]) {
        if target.low && !self.newest.is_empty() {
            self.newest.retain(|_, number| numbers.binary_search(number).is_err());
        }
    }

    /// Redis answered with a no, or the node of a cluster that has the list did not answer.
    pub(super) fn refused(&mut self, target: &Target, fault: &RedisFault) {
        if let RedisFault::Long { length, .. } = fault {
            return self.too_long(target, *length);
        }
        let behind = self.fell_behind(target);
        behind.retry = Instant::now() + behind.backoff.next(clock::chance());
        if let RedisFault::Unavailable(_) = fault {
            behind.records = (behind.records / 2).max(1);
        }
        let text = format!("{fault}; what is for it waits in the spool");
        if self.board.alarm(&name(target), Some(&text)) {
            tracing::warn!(list = &*target.key, reason = %fault, "Redis does not take for a list; what is for it waits in the spool");
        }
    }

    /// There was no answer.
    pub(super) fn unanswered(&mut self, target: &Target, delay: Duration) {
        let behind = self.fell_behind(target);
        behind.retry = Instant::now() + delay;
        behind.records = (behind.records / 2).max(1);
    }

    fn too_long(&mut self, target: &Target, length: u64) {
        let behind = self.fell_behind(target);
        behind.retry = Instant::now() + LOOK;
        behind.long = true;
        let text = format!(
            "{} has {length} entries (queues.incoming_max); what is for it waits in the spool until the back end catches up",
            target.key
        );
        if self.board.alarm(&name(target), Some(&text)) {
            tracing::warn!(
                list = &*target.key,
                low = target.low,
                length,
                "the back end is behind (queues.incoming_max)"
            );
        }
    }

    /// These were put into the spool. Gives back what they supersede: older ones of their machines, of routes that keep only the
    /// newest while the back end is behind.
    pub(super) fn newest(&mut self, spooled: &[Waiting]) -> Vec<(Target, Vec<u64>, Option<Arc<str>>)> {
        let mut superseded: Vec<(Target, Vec<u64>, Option<Arc<str>>)> = Vec::new();
        for waiting in spooled {
            let target = Target::of(&waiting.record.line);
            let Some(latest) = &waiting.latest else { continue };
            if !self.behind.get(&target).is_some_and(|behind| behind.long) {
                continue;
            }
            if let Some(older) = self.newest.insert(latest.clone(), waiting.record.number) {
                let Body::Job(job) = &waiting.record.body else { continue };
                match superseded.iter_mut().find(|(other, _, route)| *other == target && *route == job.route) {
                    Some((_, numbers, _)) => numbers.push(older),
                    None => superseded.push((target, vec![older], job.route.clone())),
                }
            }
        }
        superseded
    }
}

fn name(target: &Target) -> String {
    format!("list {}{}", target.key, if target.low { " (low)" } else { "" })
}
