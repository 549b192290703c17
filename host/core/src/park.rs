//! Which messages are parked, seen by the lane that owns their machines: whose later messages go behind, and what may be
//! taken out again.
//!
//! Messages have numbers in the order of their arrival, from 1. A message is parked when it needs more time than its
//! acknowledgement can wait; its machine's later ones of the same route go behind it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// The parked messages of one machine and route.
#[derive(Debug, Default)]
struct Line {
    /// On their way to the disk.
    unwritten: BTreeSet<u64>,
    /// On the disk and not taken out.
    written: usize,
    /// The lowest number since something is parked: what comes behind it has to wait.
    lowest: u64,
    /// The last one that was taken out, now or by an earlier line of this machine: those may stand on the disk for a while.
    behind: Option<u64>,
    /// Whether a turn is under way or due.
    turn: bool,
    /// Attempts of the first one since it was parked.
    attempts: u32,
}

/// All parked messages of one lane.
///
/// Invariant: of one machine and route, messages are taken out in the order of their numbers, and none that is not parked
/// passes one that is.
#[derive(Debug)]
pub struct Parking<K> {
    lines: HashMap<K, Line>,
}

/// What comes after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Another turn.
    Again,
    /// Nothing for now: what is still on its way to the disk begins the next turn.
    Wait,
    /// The line is empty: messages go straight again.
    Free,
}

impl<K> Default for Parking<K> {
    fn default() -> Self {
        Self { lines: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone> Parking<K> {
    /// So many were left by an earlier run. A turn of theirs is due.
    pub fn recovered(&mut self, key: K, messages: usize) {
        self.lines.insert(key, Line { written: messages, turn: true, ..Line::default() });
    }

    /// Whether a message that just arrived has to go behind parked ones.
    #[must_use]
    pub fn holds(&self, key: &K) -> bool {
        self.lines.contains_key(key)
    }

    /// Whether a message that waited in memory has to go behind parked ones: those that arrived before it.
    #[must_use]
    pub fn precedes(&self, key: &K, number: u64) -> bool {
        self.lines.get(key).is_some_and(|line| line.lowest < number)
    }

    /// A message is on its way to the disk.
    pub fn writing(&mut self, key: K, number: u64) {
        let line = self.lines.entry(key).or_insert_with(|| Line { lowest: u64::MAX, ..Line::default() });
        if number < line.lowest {
            // What was taken out before arrived before: a turn waits for its machine's messages that are under way.
            line.lowest = number;
            line.behind = Some(number - 1);
        }
        line.unwritten.insert(number);
    }

    /// The disk has it. True: a turn is to be begun.
    #[must_use]
    pub fn written(&mut self, key: &K, number: u64) -> bool {
        let Some(line) = self.lines.get_mut(key) else { return false };
        line.unwritten.remove(&number);
        line.written += 1;
        !std::mem::replace(&mut line.turn, true)
    }

    /// Behind which number the next one is to be read.
    #[must_use]
    pub fn behind(&self, key: &K) -> Option<u64> {
        self.lines.get(key).and_then(|line| line.behind)
    }

    /// How often the first one was tried since it was parked, or since the start.
    #[must_use]
    pub fn attempts(&self, key: &K) -> u32 {
        self.lines.get(key).map_or(0, |line| line.attempts)
    }

    /// The first one on the disk is this one: whether it may be taken. Not while one that arrived before it is still on its
    /// way: then the turn ends, and the write begins the next.
    #[must_use]
    pub fn may_take(&mut self, key: &K, number: u64) -> bool {
        let Some(line) = self.lines.get_mut(key) else { return false };
        let first = line.unwritten.first().is_none_or(|unwritten| number < *unwritten);
        line.turn = first;
        first
    }

    /// The first one failed and stays.
    pub fn failed(&mut self, key: &K) {
        if let Some(line) = self.lines.get_mut(key) {
            line.attempts += 1;
        }
    }

    /// The first one is done, or handed on.
    pub fn taken(&mut self, key: &K, number: u64) -> Then {
        let Some(line) = self.lines.get_mut(key) else { return Then::Free };
        line.behind = Some(number);
        line.written = line.written.saturating_sub(1);
        line.attempts = 0;
        self.next(key)
    }

    /// The disk has none where one was expected: it was damaged, and whoever read it said so.
    pub fn nothing_there(&mut self, key: &K) -> Then {
        if let Some(line) = self.lines.get_mut(key) {
            line.written = 0;
        }
        self.next(key)
    }

    fn next(&mut self, key: &K) -> Then {
        let Some(line) = self.lines.get_mut(key) else { return Then::Free };
        line.turn = line.written > 0;
        if line.turn {
            return Then::Again;
        }
        if line.unwritten.is_empty() {
            self.lines.remove(key);
            return Then::Free;
        }
        Then::Wait
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::order::Lanes;

    /// What stands in a machine's queue.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Task {
        Fresh(u64),
        Turn,
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A message arrives; `true`: there is no room in memory, so it is parked as it came.
        Arrive(bool),
        /// What is under way ends: done, or to be parked (a fresh one) or tried again (a parked one).
        End(bool),
        /// The disk has the oldest that is on its way.
        Sync,
        /// A delayed turn is due.
        Due,
    }

    /// One machine of a lane, as `uplink/lane` drives it.
    #[derive(Default)]
    struct Lane {
        parking: Parking<()>,
        machines: Lanes<(), Task>,
        under_way: Option<Task>,
        to_disk: VecDeque<u64>,
        disk: BTreeSet<u64>,
        due: usize,
        done: Vec<u64>,
    }

    impl Lane {
        fn enter(&mut self, task: Task) {
            if let Some(task) = self.machines.enter((), task) {
                self.begin(task);
            }
        }

        fn begin(&mut self, task: Task) {
            self.under_way = Some(task);
            match task {
                Task::Fresh(number) if self.parking.precedes(&(), number) => {
                    self.park(number);
                    self.leave();
                }
                Task::Turn if self.head().is_none() => self.leave(),
                _ => {}
            }
        }

        /// The record that this turn takes.
        fn head(&mut self) -> Option<u64> {
            let behind = self.parking.behind(&());
            let head = self.disk.iter().copied().find(|number| behind.is_none_or(|behind| *number > behind))?;
            self.parking.may_take(&(), head).then_some(head)
        }

        fn park(&mut self, number: u64) {
            self.parking.writing((), number);
            self.to_disk.push_back(number);
        }

        fn leave(&mut self) {
            self.under_way = None;
            if let Some(next) = self.machines.leave(&()) {
                self.begin(next);
            }
        }

        fn step(&mut self, step: Step, arrived: &mut u64) {
            match step {
                Step::Arrive(no_room) => {
                    *arrived += 1;
                    if no_room || self.parking.holds(&()) {
                        self.park(*arrived);
                    } else {
                        self.enter(Task::Fresh(*arrived));
                    }
                }
                Step::End(well) => match self.under_way {
                    None => {}
                    Some(Task::Fresh(number)) => {
                        if well {
                            self.done.push(number);
                        } else {
                            self.park(number);
                        }
                        self.leave();
                    }
                    Some(Task::Turn) => {
                        let behind = self.parking.behind(&());
                        let head = self.disk.iter().copied().find(|number| behind.is_none_or(|last| *number > last));
                        let head = head.expect("a turn under way has a record");
                        if well {
                            self.done.push(head);
                            if self.parking.taken(&(), head) == Then::Again {
                                self.enter(Task::Turn);
                            }
                        } else {
                            self.parking.failed(&());
                            self.due += 1;
                        }
                        self.leave();
                    }
                },
                Step::Sync => {
                    if let Some(number) = self.to_disk.pop_front() {
                        self.disk.insert(number);
                        if self.parking.written(&(), number) {
                            self.enter(Task::Turn);
                        }
                    }
                }
                Step::Due => {
                    if self.due > 0 {
                        self.due -= 1;
                        self.enter(Task::Turn);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Whatever fails, is short of room or slow to be written: everything is done once, in the order of arrival.
        #[test]
        fn everything_is_done_once_and_in_order(steps in prop::collection::vec(prop_oneof![
            4 => any::<bool>().prop_map(Step::Arrive),
            4 => any::<bool>().prop_map(Step::End),
            2 => Just(Step::Sync),
            1 => Just(Step::Due),
        ], 0..120)) {
            let mut lane = Lane::default();
            let mut arrived = 0;
            for step in steps {
                lane.step(step, &mut arrived);
            }
            for _ in 0..4 * arrived + 8 {
                for step in [Step::Sync, Step::Due, Step::End(true)] {
                    lane.step(step, &mut arrived);
                }
            }
            prop_assert_eq!(lane.done, (1..=arrived).collect::<Vec<_>>());
            prop_assert!(!lane.parking.holds(&()), "the line is free again");
        }
    }
}
