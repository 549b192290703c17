//! Which lists are behind ([`Flow`] decides), told to people: an alarm while one is, a line in the log when it begins and ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::flow::{Empty, Flow, Next, Target};
use sluicegate_core::spooled::Body;
use tokio::time::Instant;

use super::sink::Waiting;
use crate::redis::connect::RedisFault;
use crate::telemetry::board::Board;
use crate::telemetry::clock;

/// Records of one list, to be marked as done, and their route.
pub(super) type Superseded = (Target, Vec<u64>, Option<Arc<str>>);

/// The lists that are behind.
pub struct Lists {
    flow: Flow,
    board: Arc<Board>,
}

impl Lists {
    /// `waiting` are those that the spool has records for; `limits` the lists whose length is bounded.
    #[must_use]
    pub fn new(waiting: impl IntoIterator<Item = Target>, limits: HashMap<Arc<str>, u64>, board: Arc<Board>) -> Self {
        Self { flow: Flow::new(waiting, limits), board }
    }

    pub(super) fn set_limits(&mut self, limits: HashMap<Arc<str>, u64>) {
        self.flow.set_limits(limits, clock::uptime());
    }

    pub(super) fn is_behind(&self, target: &Target) -> bool {
        self.flow.is_behind(target)
    }

    /// What is to be pushed next; `drain`: the spool may be read.
    pub(super) fn next(&mut self, ready: bool, drain: bool) -> Next {
        self.flow.next(clock::uptime(), ready, drain)
    }

    /// When a list is to be tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        Some(Instant::now() + self.flow.due()?.saturating_sub(clock::uptime()))
    }

    /// How many entries a list may have, where its length is bounded.
    pub(super) fn bound(&self, target: &Target) -> Option<u64> {
        self.flow.is_limited(target).then(|| self.flow.most(target))
    }

    pub(super) fn fell_behind(&mut self, target: &Target) {
        self.flow.fell_behind(target, clock::uptime());
    }

    /// The spool has nothing for it. True: it is direct again; else its length is to be looked at first.
    pub(super) fn empty(&mut self, target: &Target) -> bool {
        let direct = self.flow.empty(target) == Empty::Direct;
        if direct && self.board.alarm(&name(target), None) {
            tracing::info!(
                list = &*target.key,
                low = target.low,
                "what waited for a list is in it; it is pushed to again"
            );
        }
        direct
    }

    /// Its length was looked at, and it may have more.
    pub(super) fn short(&mut self, target: &Target) {
        if self.flow.short(target, clock::uptime()) {
            tracing::info!(list = &*target.key, low = target.low, "the back end has caught up");
        }
    }

    /// Redis took records up to a number; the list has so many entries now.
    pub(super) fn took(&mut self, target: &Target, number: u64, length: u64) {
        if self.flow.took(target, number, length, clock::uptime()) {
            self.too_long(target, length);
        }
    }

    /// These are on their way to Redis.
    pub(super) fn draining(&mut self, target: &Target, numbers: &[u64]) {
        self.flow.draining(target, numbers);
    }

    /// Redis answered with a no, or the node of a cluster that has the list did not answer.
    pub(super) fn refused(&mut self, target: &Target, fault: &RedisFault) {
        if let RedisFault::Long { length, .. } = fault {
            return self.too_long(target, *length);
        }
        let answered = !matches!(fault, RedisFault::Unavailable(_));
        self.flow.refused(target, answered, clock::uptime(), clock::chance());
        let text = format!("{fault}; what is for it waits in the spool");
        if self.board.alarm(&name(target), Some(&text)) {
            tracing::warn!(list = &*target.key, reason = %fault, "Redis does not take for a list; what is for it waits in the spool");
        }
    }

    /// There was no answer.
    pub(super) fn unanswered(&mut self, target: &Target, delay: Duration) {
        self.flow.unanswered(target, clock::uptime(), delay);
    }

    fn too_long(&mut self, target: &Target, length: u64) {
        self.flow.too_long(target, clock::uptime());
        let text = format!(
            "{} has {length} entries, {} are the most{} (queues.incoming_max); what is for it waits in the spool until the back end catches up",
            target.key,
            self.flow.most(target),
            if target.low { " for low routes" } else { "" }
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
    pub(super) fn newest(&mut self, spooled: &[Waiting]) -> Vec<Superseded> {
        let mut superseded: Vec<Superseded> = Vec::new();
        for waiting in spooled {
            let (target, Some(latest)) = (Target::of(&waiting.record.line), &waiting.latest) else { continue };
            let Some(older) = self.flow.newest(&target, latest, waiting.record.number) else { continue };
            let Body::Job(job) = &waiting.record.body else { continue };
            match superseded.iter_mut().find(|(other, _, route)| *other == target && *route == job.route) {
                Some((_, numbers, _)) => numbers.push(older),
                None => superseded.push((target, vec![older], job.route.clone())),
            }
        }
        superseded
    }
}

fn name(target: &Target) -> String {
    format!("list {}{}", target.key, if target.low { " (low)" } else { "" })
}
