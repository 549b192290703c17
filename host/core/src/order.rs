//! One thing at a time per machine: a queue of its own for each key, so that a machine that waits holds up nobody else.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Keys that are busy, each with what waits behind.
///
/// Invariant: of one key at most one item is under way, and items of one key start in the order in which they came.
pub struct Lanes<K, T> {
    busy: HashMap<K, VecDeque<T>>,
}

impl<K: Eq + Hash, T> Default for Lanes<K, T> {
    fn default() -> Self {
        Self { busy: HashMap::new() }
    }
}

impl<K: Eq + Hash, T> Lanes<K, T> {
    /// An item came. Given back where its key is free: it is to be started now; else it waits.
    pub fn enter(&mut self, key: K, item: T) -> Option<T> {
        match self.busy.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut waiting) => {
                waiting.get_mut().push_back(item);
                None
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Some(item)
            }
        }
    }

    /// The item that was under way for this key is done. The next one, where one waits, is to be started now.
    pub fn leave(&mut self, key: &K) -> Option<T> {
        let next = self.busy.get_mut(key)?.pop_front();
        if next.is_none() {
            self.busy.remove(key);
        }
        next
    }

    /// What waits behind the item that is under way for this key, the next one first.
    pub fn waiting_mut(&mut self, key: &K) -> impl Iterator<Item = &mut T> {
        self.busy.get_mut(key).into_iter().flatten()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.busy.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// `Some(key)` is an item of that machine; `None` ends the oldest one under way.
        #[test]
        fn one_at_a_time_and_in_order(steps in prop::collection::vec(prop::option::of(0u8..4), 0..200)) {
            let mut lanes = Lanes::default();
            let mut under_way: VecDeque<(u8, usize)> = VecDeque::new();
            let mut started: HashMap<u8, Vec<usize>> = HashMap::new();
            let mut came: HashMap<u8, Vec<usize>> = HashMap::new();
            let mut start = |under_way: &mut VecDeque<(u8, usize)>, key, item| {
                assert!(under_way.iter().all(|(busy, _)| *busy != key), "two of one machine at once");
                under_way.push_back((key, item));
                started.entry(key).or_default().push(item);
            };
            for (item, step) in steps.into_iter().enumerate() {
                if let Some(key) = step {
                    came.entry(key).or_default().push(item);
                    if let Some(item) = lanes.enter(key, item) {
                        start(&mut under_way, key, item);
                    }
                } else if let Some((key, _)) = under_way.pop_front()
                    && let Some(item) = lanes.leave(&key)
                {
                    start(&mut under_way, key, item);
                }
            }
            while let Some((key, _)) = under_way.pop_front() {
                if let Some(item) = lanes.leave(&key) {
                    start(&mut under_way, key, item);
                }
            }
            prop_assert!(lanes.is_idle());
            prop_assert_eq!(started, came);
        }
    }
}
