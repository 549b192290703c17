//! Which acknowledgements may go: MQTT 5 wants them in the order of arrival [MQTT-4.6.0-2], while lanes and batches finish
//! in any order.

use std::collections::VecDeque;

use crate::ticket::{Epoch, Ticket};

struct Slot<A> {
    acknowledgement: A,
    settled: bool,
}

/// The publishes of the current connection, in order of arrival, from the oldest one that is not acknowledged.
pub struct Ledger<A> {
    epoch: Epoch,
    first: u64,
    slots: VecDeque<Slot<A>>,
}

impl<A> Default for Ledger<A> {
    fn default() -> Self {
        Self { epoch: Epoch(0), first: 0, slots: VecDeque::new() }
    }
}

impl<A> Ledger<A> {
    /// A new connection: what was not acknowledged on the old one never will be; the broker sends it again.
    pub fn reconnected(&mut self) -> Epoch {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.first = 0;
        self.slots.clear();
        self.epoch
    }

    /// A publish arrived; `acknowledgement` is what will acknowledge it. One of QoS 0 has none, and no place here.
    pub fn arrived(&mut self, acknowledgement: A) -> Ticket {
        let arrival = self.first + self.slots.len() as u64;
        self.slots.push_back(Slot { acknowledgement, settled: false });
        Ticket { epoch: self.epoch, arrival }
    }

    /// Its outcome is durable. A ticket of an older connection, or one that was settled before, changes nothing.
    pub fn settle(&mut self, ticket: Ticket) {
        if ticket.epoch == self.epoch
            && let Some(index) = ticket.arrival.checked_sub(self.first)
            && let Some(slot) = usize::try_from(index).ok().and_then(|index| self.slots.get_mut(index))
        {
            slot.settled = true;
        }
    }

    /// The next acknowledgement that may go, oldest first; none while the oldest publish is not settled.
    pub fn next_due(&mut self) -> Option<A> {
        let slot = self.slots.pop_front_if(|slot| slot.settled)?;
        self.first += 1;
        Some(slot.acknowledgement)
    }

    /// Publishes that are not acknowledged yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Arrive,
        /// Settles the ticket at this place among all that were ever handed out.
        Settle(prop::sample::Index),
        Reconnect,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                4 => Just(Step::Arrive),
                4 => any::<prop::sample::Index>().prop_map(Step::Settle),
                1 => Just(Step::Reconnect),
            ],
            0..200,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// The model: on each connection what was acknowledged is exactly the longest settled beginning of what arrived.
        #[test]
        fn acknowledges_the_settled_beginning_of_each_connection(steps in steps()) {
            let mut ledger = Ledger::default();
            ledger.reconnected();
            let mut all: Vec<Ticket> = Vec::new();
            let mut settled: Vec<bool> = Vec::new();
            let mut acknowledged = 0;
            for step in steps {
                match step {
                    Step::Arrive => {
                        let number = settled.len();
                        all.push(ledger.arrived(number));
                        settled.push(false);
                    }
                    Step::Settle(index) if !all.is_empty() => {
                        let ticket = *index.get(&all);
                        ledger.settle(ticket);
                        if ticket.epoch == ledger.epoch {
                            settled[usize::try_from(ticket.arrival).expect("small")] = true;
                        }
                    }
                    Step::Settle(_) => {}
                    Step::Reconnect => {
                        ledger.reconnected();
                        settled.clear();
                        acknowledged = 0;
                    }
                }
                while let Some(number) = ledger.next_due() {
                    prop_assert_eq!(number, acknowledged);
                    acknowledged += 1;
                }
                let beginning = settled.iter().take_while(|done| **done).count();
                prop_assert_eq!(acknowledged, beginning);
                prop_assert_eq!(ledger.open(), settled.len() - beginning);
            }
        }
    }
}
