//! Where every message is: of all that were received, each is in exactly one place at any instant.
//!
//! ```text
//! received = pushed + suppressed + dead + dropped + spooled + in flight + returned
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;
use sluicegate_core::ticket::Outcome;

use super::metrics;

/// The messages of one route, by where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Taken from the broker, found in the spool at the start, or replayed.
    pub received: u64,
    /// Redis confirmed their jobs.
    pub pushed: u64,
    /// Redis knew all of their jobs already.
    pub suppressed: u64,
    /// In the dead letters.
    pub dead: u64,
    /// Dropped on purpose, or QoS 0 that found no room.
    pub dropped: u64,
    /// On the disk.
    pub spooled: u64,
    /// In memory.
    pub in_flight: u64,
    /// Left to the broker, which sends them again: their acknowledgement was withheld.
    pub returned: u64,
}

/// All counts.
///
/// A message moves from one place to another under the lock, so the equation holds for whoever looks. The lock is held for an
/// addition only, never across a wait.
#[derive(Debug)]
pub struct Tally {
    /// The names of all routes that there were since the start: what is counted as a route's has its place for good, whether or not the
    /// settings still name it. What no route took is counted as the first.
    names: ArcSwap<Vec<Arc<str>>>,
    counts: Mutex<Vec<Counts>>,
}

/// What messages without a route are counted as.
const NO_ROUTE: &str = "";

impl Tally {
    /// Nothing was received yet.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = String>) -> Self {
        let tally =
            Self { names: ArcSwap::from_pointee(vec![NO_ROUTE.into()]), counts: Mutex::new(vec![Counts::default()]) };
        for route in routes {
            tally.enter(&route);
        }
        tally.publish();
        tally
    }

    /// A route's place, which it has from now on.
    pub fn enter(&self, route: &str) -> usize {
        let mut counts = self.counts();
        let names = self.names.load();
        if let Some(place) = names.iter().position(|name| **name == *route) {
            return place;
        }
        counts.push(Counts::default());
        self.names.store(Arc::new(names.iter().cloned().chain([route.into()]).collect()));
        names.len()
    }

    /// A route's place; a name that there never was a route for counts as none.
    #[must_use]
    pub fn place(&self, route: Option<&str>) -> usize {
        route.and_then(|route| self.names.load().iter().position(|name| **name == *route)).unwrap_or(0)
    }

    /// Of one place.
    #[must_use]
    pub fn at(&self, place: usize) -> Counts {
        self.counts().get(place).copied().unwrap_or_default()
    }

    fn counts(&self) -> MutexGuard<'_, Vec<Counts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, route: usize, change: impl FnOnce(&mut Counts)) {
        if let Some(counts) = self.counts().get_mut(route) {
            change(counts);
        }
    }

    /// A message came into memory.
    pub fn received(&self, route: usize) {
        self.change(route, |counts| {
            counts.received += 1;
            counts.in_flight += 1;
        });
    }

    /// Messages of an earlier run stood in the spool.
    pub fn recovered(&self, route: usize, messages: u64) {
        self.change(route, |counts| {
            counts.received += messages;
            counts.spooled += messages;
        });
    }

    /// A message is on the disk, and no more in memory.
    pub fn spooled(&self, route: usize) {
        self.change(route, |counts| {
            counts.in_flight = counts.in_flight.saturating_sub(1);
            counts.spooled += 1;
        });
    }

    /// A parked message came back into memory.
    pub fn taken(&self, route: usize) {
        self.change(route, |counts| {
            counts.spooled = counts.spooled.saturating_sub(1);
            counts.in_flight += 1;
        });
    }

    /// A message in memory has its outcome.
    pub fn settled(&self, route: usize, outcome: Outcome) {
        self.change(route, |counts| {
            counts.in_flight = counts.in_flight.saturating_sub(1);
            counts.count(outcome);
        });
    }

    /// A job on the disk has its outcome.
    pub fn drained(&self, route: usize, outcome: Outcome) {
        self.change(route, |counts| {
            counts.spooled = counts.spooled.saturating_sub(1);
            counts.count(outcome);
        });
    }

    /// A message leaves memory without an outcome: the broker has it still.
    pub fn returned(&self, route: usize) {
        self.change(route, |counts| {
            counts.in_flight = counts.in_flight.saturating_sub(1);
            counts.returned += 1;
        });
    }

    /// All routes together.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.counts().iter().fold(Counts::default(), |sum, one| Counts {
            received: sum.received + one.received,
            pushed: sum.pushed + one.pushed,
            suppressed: sum.suppressed + one.suppressed,
            dead: sum.dead + one.dead,
            dropped: sum.dropped + one.dropped,
            spooled: sum.spooled + one.spooled,
            in_flight: sum.in_flight + one.in_flight,
            returned: sum.returned + one.returned,
        })
    }

    /// Gives the metrics one consistent look.
    pub fn publish(&self) {
        let counts = self.counts().clone();
        for (name, counts) in self.names.load().iter().zip(counts) {
            metrics::messages(name, &counts);
        }
    }
}

impl Counts {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Pushed => self.pushed += 1,
            Outcome::Suppressed => self.suppressed += 1,
            Outcome::Dead => self.dead += 1,
            Outcome::Dropped => self.dropped += 1,
        }
    }

    /// Whether every message is in exactly one place.
    #[must_use]
    pub fn balance(&self) -> bool {
        let Self { received, pushed, suppressed, dead, dropped, spooled, in_flight, returned } = *self;
        received == pushed + suppressed + dead + dropped + spooled + in_flight + returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_in_one_place_at_a_time() {
        let tally = Tally::new(["a".to_owned()]);
        assert_eq!((tally.place(Some("a")), tally.place(Some("unknown")), tally.place(None)), (1, 0, 0));
        tally.recovered(1, 3);
        tally.received(1);
        tally.received(0);
        tally.settled(1, Outcome::Pushed);
        tally.spooled(0);
        tally.taken(1);
        tally.settled(1, Outcome::Dead);
        tally.drained(1, Outcome::Suppressed);
        tally.received(1);
        tally.returned(1);
        assert_eq!((tally.enter("b"), tally.enter("a"), tally.place(Some("b"))), (2, 1, 2));
        let total = tally.total();
        assert!(total.balance(), "{total:?}");
        let expected = Counts {
            received: 6,
            pushed: 1,
            suppressed: 1,
            dead: 1,
            dropped: 0,
            spooled: 2,
            in_flight: 0,
            returned: 1,
        };
        assert_eq!(total, expected);
    }
}
