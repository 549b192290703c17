//! Which command of each machine is under way, what waits behind it, and which machines are away. What waits for a machine that is away
//! does not count to `commands.in_flight`.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::away::Away;
use sluicegate_core::order::Lanes;
use tokio::sync::Semaphore;

use super::take::Taken;
use crate::telemetry::clock;

/// Commands for machines that are away, beside `commands.in_flight`. Beyond them they count to it, and hold up others for as long as
/// `commands.wait_for_subscriber`.
const WAITING: usize = 10_000;

/// The machines that something is under way for.
pub(super) struct Machines {
    lanes: Lanes<String, Taken>,
    away: Away<String>,
    waiting: Arc<Semaphore>,
}

impl Machines {
    pub(super) fn new() -> Self {
        Self { lanes: Lanes::default(), away: Away::default(), waiting: Arc::new(Semaphore::new(WAITING)) }
    }

    /// A command was taken. Given back where it is its machine's turn.
    pub(super) fn enter(&mut self, mut taken: Taken) -> Option<Taken> {
        let target = taken.target().to_owned();
        if self.away.is_away(&target) {
            set_aside(&self.waiting, &mut taken);
        }
        self.lanes.enter(target, taken)
    }

    /// The command that was under way for this machine is done: the next one.
    pub(super) fn leave(&mut self, target: &String) -> Option<Taken> {
        let mut next = self.lanes.leave(target);
        match &mut next {
            None => self.away.forget(target),
            Some(taken) if self.away.is_away(target) => set_aside(&self.waiting, taken),
            Some(_) => {}
        }
        next
    }

    /// The broker has it, and nobody is subscribed: neither this command nor those behind it count to `commands.in_flight` any more.
    pub(super) fn nobody(&mut self, taken: &mut Taken) {
        let target = taken.target().to_owned();
        set_aside(&self.waiting, taken);
        if self.away.nobody(target.clone(), clock::uptime()) {
            self.lanes.waiting_mut(&target).for_each(|taken| set_aside(&self.waiting, taken));
        }
    }

    /// Somebody is subscribed.
    pub(super) fn reached(&mut self, target: &str) {
        self.away.forget(target);
    }

    /// Whether a command has waited for so long for its machine.
    pub(super) fn waited(&self, taken: &Taken, wait: Duration) -> bool {
        let now = clock::uptime();
        self.away.is_over(taken.target(), now.saturating_sub(taken.at.0.elapsed()), now, wait)
    }
}

/// Where there is no place it keeps the one that it has.
fn set_aside(waiting: &Arc<Semaphore>, taken: &mut Taken) {
    if !Arc::ptr_eq(taken.permit.semaphore(), waiting)
        && let Ok(permit) = waiting.clone().try_acquire_owned()
    {
        taken.permit = permit;
    }
}
