//! The only place that settles a message: an [`Open`] one is settled with its outcome, put on the disk, or withholds its
//! acknowledgement.

use std::sync::Arc;

use sluicegate_core::spooled::Line;
use sluicegate_core::ticket::{Outcome, Ticket};
use tokio::sync::oneshot;

use super::room::Share;
use crate::mqtt::consume::Settled;
use crate::spool::Spool;
use crate::telemetry::tally::Tally;

/// Where a message came from, and so who is to be told of its outcome.
#[derive(Debug)]
pub enum Origin {
    /// A publish: it is acknowledged.
    Publish(Ticket),
    /// A publish of QoS 0: nobody is told, and it may be dropped. It never takes the room of what must not be lost.
    Fleeting,
    /// It was parked: it leaves the spool.
    Parked {
        /// Where it stands.
        line: Line,
        /// Its number there.
        number: u64,
    },
    /// A dead letter that is handled again: whoever sent it is told once its outcome is durable. Dropped untold, it stays a letter.
    Replayed(oneshot::Sender<Replayed>),
}

/// What became of a dead letter that was handled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// Its outcome is durable.
    Settled(Outcome),
    /// It is on the disk; its outcome is still to come.
    Spooled,
}

/// A message in memory that is not settled yet.
///
/// Invariant: dropped without a verdict it withholds the acknowledgement; the broker sends the message again when the session
/// resumes, and what was parked stays parked.
#[derive(Debug)]
pub struct Open {
    origin: Option<Origin>,
    route: usize,
    tally: Arc<Tally>,
    _share: Share,
}

impl Open {
    /// A publish that just arrived; without a ticket it is of QoS 0. `route` is its place in the tally.
    #[must_use]
    pub fn publish(ticket: Option<Ticket>, route: usize, tally: Arc<Tally>, share: Share) -> Self {
        tally.received(route);
        let origin = ticket.map_or(Origin::Fleeting, Origin::Publish);
        Self { origin: Some(origin), route, tally, _share: share }
    }

    /// A message that was taken out of the spool; it stays there until its outcome is durable.
    #[must_use]
    pub fn parked(line: Line, number: u64, route: usize, tally: Arc<Tally>, share: Share) -> Self {
        tally.taken(route);
        Self { origin: Some(Origin::Parked { line, number }), route, tally, _share: share }
    }

    /// A dead letter that is handled again.
    #[must_use]
    pub fn replayed(told: oneshot::Sender<Replayed>, route: usize, tally: Arc<Tally>, share: Share) -> Self {
        tally.received(route);
        Self { origin: Some(Origin::Replayed(told)), route, tally, _share: share }
    }

    /// Its route's place in the tally.
    #[must_use]
    pub fn route(&self) -> usize {
        self.route
    }

    /// The ticket of a publish.
    #[must_use]
    pub fn ticket(&self) -> Option<Ticket> {
        match &self.origin {
            Some(Origin::Publish(ticket)) => Some(*ticket),
            _ => None,
        }
    }

    /// Whether it may be dropped.
    #[must_use]
    pub fn is_fleeting(&self) -> bool {
        matches!(self.origin, Some(Origin::Fleeting))
    }

    /// It is left to where it came from: the broker sends it again, or it stays parked, or a dead letter.
    pub fn give_back(mut self) {
        match self.origin.take() {
            Some(Origin::Parked { .. }) => self.tally.spooled(self.route),
            Some(Origin::Fleeting) => self.tally.settled(self.route, Outcome::Dropped),
            _ => self.tally.returned(self.route),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        match self.origin.take() {
            Some(Origin::Publish(ticket)) => {
                self.tally.returned(self.route);
                crate::telemetry::metrics::delivery_abandoned();
                tracing::error!(
                    epoch = ticket.epoch.0,
                    arrival = ticket.arrival,
                    "a delivery was dropped without a verdict; its acknowledgement is withheld and the broker will send it again"
                );
            }
            Some(Origin::Parked { .. }) => self.tally.spooled(self.route),
            Some(Origin::Fleeting) => self.tally.settled(self.route, Outcome::Dropped),
            Some(Origin::Replayed(_)) => self.tally.returned(self.route),
            None => {}
        }
    }
}

/// Who is told of outcomes. Cheap to clone.
#[derive(Clone)]
pub struct Acks {
    settled: Arc<Settled>,
    /// Holds what is parked, and what Redis does not take.
    pub spool: Spool,
    /// Where every message is.
    pub tally: Arc<Tally>,
}

impl Acks {
    /// `settled` is where the connection takes tickets from.
    #[must_use]
    pub fn new(settled: Arc<Settled>, spool: Spool, tally: Arc<Tally>) -> Self {
        Self { settled, spool, tally }
    }

    /// These outcomes are durable.
    pub async fn settle(&self, messages: impl IntoIterator<Item = (Open, Outcome)>) {
        let messages = messages.into_iter().map(|(open, outcome)| (open, (outcome, Replayed::Settled(outcome))));
        self.tell(messages, |tally, route, outcome| tally.settled(route, outcome)).await;
    }

    /// These are on the disk, and their outcome is still to come.
    pub async fn spooled(&self, messages: impl IntoIterator<Item = Open>) {
        let messages = messages.into_iter().map(|open| (open, ((), Replayed::Spooled)));
        self.tell(messages, |tally, route, ()| tally.spooled(route)).await;
    }

    async fn tell<T>(&self, messages: impl Iterator<Item = (Open, (T, Replayed))>, count: impl Fn(&Tally, usize, T)) {
        let mut tickets = Vec::new();
        let mut parked: Vec<(Line, Vec<u64>)> = Vec::new();
        for (mut open, (verdict, replayed)) in messages {
            count(&self.tally, open.route, verdict);
            match open.origin.take() {
                Some(Origin::Publish(ticket)) => tickets.push(ticket),
                Some(Origin::Parked { line, number }) => match parked.last_mut() {
                    Some((last, numbers)) if *last == line => numbers.push(number),
                    _ => parked.push((line, vec![number])),
                },
                // Whoever asked may be gone; then the letter stays, and is replayed again at the most.
                Some(Origin::Replayed(told)) => drop(told.send(replayed)),
                Some(Origin::Fleeting) | None => {}
            }
        }
        self.settled.settle(tickets);
        for (line, numbers) in parked {
            self.spool.done(line, numbers).await;
        }
    }
}
