//! Machines that are away: nobody is subscribed to their topics. Since when, and how long what is for them waits.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Since when each machine is away. `now` is the time since any fixed moment, on a clock that never jumps.
///
/// It holds the machines alone that something waits for: whoever waits no more for one forgets it.
#[derive(Debug)]
pub struct Away<K> {
    since: HashMap<K, Duration>,
}

impl<K> Default for Away<K> {
    fn default() -> Self {
        Self { since: HashMap::new() }
    }
}

impl<K: Eq + Hash> Away<K> {
    /// The broker says that nobody is subscribed. True: it did not say so before.
    pub fn nobody(&mut self, machine: K, now: Duration) -> bool {
        match self.since.entry(machine) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(now);
                true
            }
        }
    }

    /// Somebody is subscribed, or nothing waits for it any more.
    pub fn forget<Q: Eq + Hash + ?Sized>(&mut self, machine: &Q)
    where
        K: Borrow<Q>,
    {
        self.since.remove(machine);
    }

    /// Whether it is away, as far as is known.
    #[must_use]
    pub fn is_away<Q: Eq + Hash + ?Sized>(&self, machine: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.since.contains_key(machine)
    }

    /// Whether a command that was taken at `taken` has waited for so long for the machine: what queues behind another waits at the same
    /// time as that one, not after it.
    #[must_use]
    pub fn is_over<Q: Eq + Hash + ?Sized>(&self, machine: &Q, taken: Duration, now: Duration, wait: Duration) -> bool
    where
        K: Borrow<Q>,
    {
        self.since.get(machine).is_some_and(|since| now >= taken.max(*since) + wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Pass(u64),
        Nobody(u8),
        Reached(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                2 => (0..40_000_u64).prop_map(Step::Pass),
                3 => (0..3_u8).prop_map(Step::Nobody),
                1 => (0..3_u8).prop_map(Step::Reached),
            ],
            0..60,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// A command waits from when it was taken, or from the first of the answers that nobody is there, without another between.
        #[test]
        fn what_waits_counts_from_the_first_answer_in_a_row(steps in steps(), taken in 0..400_000_u64) {
            let (taken, wait) = (Duration::from_millis(taken), Duration::from_secs(30));
            let mut away = Away::default();
            let mut history: Vec<(Duration, u8, bool)> = Vec::new();
            let mut now = Duration::ZERO;
            for step in steps {
                match step {
                    Step::Pass(millis) => now += Duration::from_millis(millis),
                    Step::Nobody(machine) => {
                        let first = away.nobody(machine, now);
                        let last = history.iter().rev().find(|(_, of, _)| *of == machine);
                        prop_assert_eq!(first, last.is_none_or(|(_, _, nobody)| !nobody));
                        history.push((now, machine, true));
                    }
                    Step::Reached(machine) => {
                        away.forget(&machine);
                        history.push((now, machine, false));
                    }
                }
                for machine in 0..3 {
                    let row = history.iter().rev().filter(|(_, of, _)| *of == machine).take_while(|(_, _, nobody)| *nobody);
                    let since = row.last().map(|(at, _, _)| *at);
                    prop_assert_eq!(away.is_away(&machine), since.is_some());
                    let over = since.is_some_and(|since| now >= since + wait && now >= taken + wait);
                    prop_assert_eq!(away.is_over(&machine, taken, now, wait), over);
                }
            }
        }
    }
}
