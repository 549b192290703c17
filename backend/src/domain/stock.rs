//! What is taken from a slot, and what does not add up. A slot never holds less than nothing; what a machine sold is sold all the same.

use std::collections::BTreeMap;

/// A slot of a machine: the machine's row, the slot's number.
pub type Slot = (i64, i64);

/// What is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// From where.
    pub slot: Slot,
    /// How many.
    pub quantity: i64,
}

/// What is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discrepancy {
    /// The machine has no such slot.
    NoSlot,
    /// There was less in it than was sold.
    Short {
        /// So many were in it.
        stock: i64,
    },
}

/// What comes of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many leave each slot, in the slots' order.
    pub slots: BTreeMap<Slot, i64>,
    /// What does not add up, by its place among what was wanted.
    pub discrepancies: Vec<(usize, Discrepancy)>,
}

/// Takes what is wanted, one after the other, from what the slots hold.
#[must_use]
pub fn take(wanted: &[Wanted], stock: &BTreeMap<Slot, i64>) -> Taken {
    let mut left = stock.clone();
    let mut taken = Taken::default();
    for (place, Wanted { slot, quantity }) in wanted.iter().enumerate() {
        let Some(stock) = left.get_mut(slot) else {
            taken.discrepancies.push((place, Discrepancy::NoSlot));
            continue;
        };
        let held = (*stock).max(0);
        let part = held.min(*quantity);
        if part < *quantity {
            taken.discrepancies.push((place, Discrepancy::Short { stock: held }));
        }
        if part > 0 {
            *stock -= part;
            *taken.slots.entry(*slot).or_default() += part;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_gives_what_it_has() {
        let stock = BTreeMap::from([((1, 5), 3), ((2, 5), 0)]);
        let want = |machine, slot_no, quantity| Wanted { slot: (machine, slot_no), quantity };
        let taken = take(&[want(1, 5, 2), want(1, 5, 2), want(1, 6, 1), want(2, 5, 1)], &stock);
        assert_eq!(taken.slots, BTreeMap::from([((1, 5), 3)]));
        assert_eq!(
            taken.discrepancies,
            [(1, Discrepancy::Short { stock: 1 }), (2, Discrepancy::NoSlot), (3, Discrepancy::Short { stock: 0 })]
        );
    }

    proptest! {
        /// All at once is as one after the other, and nothing ever falls below zero.
        #[test]
        fn all_at_once_is_one_by_one(
            stock in prop::collection::btree_map((0..2_i64, 0..3_i64), 0..9_i64, 0..6),
            wanted in prop::collection::vec(((0..2_i64, 0..3_i64), 1..5_i64), 0..20),
        ) {
            let wanted: Vec<Wanted> = wanted.into_iter().map(|(slot, quantity)| Wanted { slot, quantity }).collect();
            let whole = take(&wanted, &stock);
            let mut left = stock.clone();
            let mut short = 0;
            for one in &wanted {
                let step = take(std::slice::from_ref(one), &left);
                short += step.discrepancies.len();
                for (slot, part) in step.slots {
                    *left.entry(slot).or_default() -= part;
                }
            }
            prop_assert_eq!(short, whole.discrepancies.len());
            for (slot, held) in &stock {
                let rest = held - whole.slots.get(slot).copied().unwrap_or_default();
                prop_assert!(rest >= 0);
                prop_assert_eq!(rest, left[slot]);
            }
        }
    }
}
