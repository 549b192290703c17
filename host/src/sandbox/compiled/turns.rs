//! Who may compile: one at a time, and whoever is more urgent first. What is compiled for others is given up for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often who waits looks whether anybody still wants it.
const LOOK: Duration = Duration::from_millis(100);

/// What code is for; the later in this list, the more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Urgency {
    /// A new build.
    #[default]
    New,
    /// Other settings need it, and somebody waits for them.
    Settings,
    /// A build is to come back that served before.
    Back,
}

/// What code is for, and whether it is still wanted.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// What for.
    pub urgency: Urgency,
    /// Nobody wants it any more, or something else is more urgent.
    pub given_up: CancellationToken,
}

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Default)]
struct State {
    has_it: Option<Claim>,
    waiting: Vec<Urgency>,
}

impl State {
    fn may(&self, urgency: Urgency) -> bool {
        self.has_it.is_none() && self.waiting.iter().all(|other| *other <= urgency)
    }
}

/// A turn, until it is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn; none: it was given up. It takes as long as the one before takes.
    pub(super) fn wait(&self, claim: &Claim) -> Option<Turn<'_>> {
        let mut state = self.state();
        if let Some(has_it) = state.has_it.as_ref().filter(|has_it| has_it.urgency < claim.urgency) {
            has_it.given_up.cancel();
        }
        state.waiting.push(claim.urgency);
        while !state.may(claim.urgency) && !claim.given_up.is_cancelled() {
            let waited = self.over.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(index) = state.waiting.iter().position(|urgency| *urgency == claim.urgency) {
            state.waiting.swap_remove(index);
        }
        if claim.given_up.is_cancelled() {
            // Others may have waited for this one.
            self.over.notify_all();
            return None;
        }
        state.has_it = Some(claim.clone());
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().has_it = None;
        self.0.over.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::{scope, yield_now};

    use super::*;

    fn claim(urgency: Urgency) -> Claim {
        Claim { urgency, ..Claim::default() }
    }

    #[test]
    fn the_most_urgent_goes_first_and_what_is_less_is_given_up_for_it() {
        let (turns, (order, came)) = (Turns::default(), channel());
        let (first, second) = (claim(Urgency::New), claim(Urgency::New));
        let turn = turns.wait(&first).expect("nobody has it");
        scope(|threads| {
            for claim in [second.clone(), claim(Urgency::Settings), claim(Urgency::Back)] {
                let (turns, order) = (&turns, order.clone());
                threads.spawn(move || {
                    let turn = turns.wait(&claim);
                    order.send(turn.is_some().then_some(claim.urgency)).expect("it is awaited");
                });
            }
            while turns.state().waiting.len() < 3 {
                yield_now();
            }
            assert!(first.given_up.is_cancelled() && !second.given_up.is_cancelled());
            drop(turn);
            let came: Vec<_> = came.iter().take(3).collect();
            assert_eq!(came, [Some(Urgency::Back), Some(Urgency::Settings), Some(Urgency::New)]);
        });
    }

    #[test]
    fn who_gives_up_waits_no_longer_and_holds_up_nobody() {
        let turns = Turns::default();
        let turn = turns.wait(&claim(Urgency::Back)).expect("nobody has it");
        let (other, last) = (claim(Urgency::Settings), claim(Urgency::New));
        scope(|threads| {
            let waiting = threads.spawn(|| turns.wait(&other).is_none());
            let behind = threads.spawn(|| turns.wait(&last).is_some());
            while turns.state().waiting.len() < 2 {
                yield_now();
            }
            other.given_up.cancel();
            assert!(waiting.join().expect("no panic"));
            drop(turn);
            assert!(behind.join().expect("no panic"));
        });
    }
}
