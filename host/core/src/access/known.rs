//! Tokens that were read from Redis, kept while Redis tells of every change. What is kept is what Redis told last.
//!
//! Invariant: what was read before a change was told is not kept after it.

use std::time::Duration;

use indexmap::IndexMap;

use super::token::TokenHash;

/// What a machine has.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    /// A token.
    Token(TokenHash),
    /// None: it was revoked.
    Revoked,
}

/// When something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(u64);

/// What is known of machines.
#[derive(Debug, Default)]
pub struct Known {
    /// With when it is forgotten: time since any moment.
    entries: IndexMap<Box<str>, (Entry, Duration)>,
    /// Grows with each change that is told of.
    changes: u64,
    /// Whether every change is told.
    told: bool,
    evicted: usize,
}

impl Known {
    /// Before something is read: only what was read since the last change is kept.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.changes)
    }

    /// What is known of a machine. That it was revoked is known while no changes are told, too: it takes somebody who reads to know better.
    #[must_use]
    pub fn get(&self, serial_no: &str, now: Duration) -> Option<Entry> {
        let (entry, until) = self.entries.get(serial_no)?;
        let stands = match entry {
            Entry::Token(_) => self.told && now < *until,
            Entry::Revoked => !self.told || now < *until,
        };
        stands.then_some(*entry)
    }

    /// Keeps what was read at that moment, until then, among at most so many.
    pub fn put(&mut self, serial_no: &str, entry: Entry, at: Moment, until: Duration, most: usize) {
        if !self.told || at.0 != self.changes || most == 0 {
            return;
        }
        while self.entries.len() >= most && !self.entries.contains_key(serial_no) {
            // Which one matters little: it is read again. The turn comes round.
            self.evicted = (self.evicted + 1) % self.entries.len();
            self.entries.swap_remove_index(self.evicted);
        }
        self.entries.insert(serial_no.into(), (entry, until));
    }

    /// A machine's token has changed.
    pub fn changed(&mut self, serial_no: &str) {
        self.changes += 1;
        self.entries.swap_remove(serial_no);
    }

    /// Every token may have changed.
    pub fn all_changed(&mut self) {
        self.changes += 1;
        self.entries.clear();
    }

    /// Changes are told from now on.
    pub fn begin(&mut self) {
        self.all_changed();
        self.told = true;
    }

    /// Nobody tells of changes any more: no token is known. Who was revoked is remembered.
    pub fn end(&mut self) {
        self.changes += 1;
        self.told = false;
        self.entries.retain(|_, (entry, _)| matches!(entry, Entry::Revoked));
    }

    /// How many machines are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const LATER: Duration = Duration::from_secs(10);

    fn token(known: &Known, serial_no: &str, now: Duration) -> bool {
        matches!(known.get(serial_no, now), Some(Entry::Token(_)))
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let mut known = Known::default();
        known.begin();
        let (hash, before) = (TokenHash::of("t"), known.moment());
        known.changed("M-1");
        known.put("M-1", Entry::Token(hash), before, LATER, 10);
        assert!(!token(&known, "M-1", Duration::ZERO));
        known.put("M-1", Entry::Token(hash), known.moment(), LATER, 10);
        assert!(token(&known, "M-1", Duration::ZERO) && !token(&known, "M-1", LATER));
        known.changed("M-1");
        assert!(!token(&known, "M-1", Duration::ZERO));
    }

    #[test]
    fn without_word_of_changes_no_token_is_known_and_the_revoked_are() {
        let mut known = Known::default();
        known.put("M-1", Entry::Token(TokenHash::of("t")), known.moment(), LATER, 10);
        assert!(known.is_empty());
        known.begin();
        known.put("M-1", Entry::Token(TokenHash::of("t")), known.moment(), LATER, 10);
        known.put("M-2", Entry::Revoked, known.moment(), LATER, 10);
        let before = known.moment();
        known.end();
        known.put("M-3", Entry::Token(TokenHash::of("t")), before, LATER, 10);
        assert!(!token(&known, "M-1", Duration::ZERO) && !token(&known, "M-3", Duration::ZERO));
        assert!(matches!(known.get("M-2", LATER), Some(Entry::Revoked)));
        known.begin();
        assert!(known.get("M-2", Duration::ZERO).is_none());
    }

    /// What happens, in one order: a read in two halves, a change in Redis and its word, the connection.
    #[derive(Debug, Clone)]
    enum Step {
        Read(u8),
        Keep(u8),
        Change(u8, bool),
        Begin,
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u8..4).prop_map(Step::Read),
            (0_u8..4).prop_map(Step::Keep),
            (0_u8..4, any::<bool>()).prop_map(|(machine, token)| Step::Change(machine, token)),
            Just(Step::Begin),
            Just(Step::End),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        /// A token that is known is the one that Redis has, and there are never too many.
        #[test]
        fn what_is_known_is_what_redis_has(steps in prop::collection::vec(step(), 0..60), most in 0_usize..4) {
            let (mut known, mut redis) = (Known::default(), HashMap::<u8, TokenHash>::new());
            let (mut reads, mut number) = (HashMap::<u8, (Moment, Option<TokenHash>)>::new(), 0);
            for step in steps {
                match step {
                    Step::Read(machine) => drop(reads.insert(machine, (known.moment(), redis.get(&machine).copied()))),
                    Step::Keep(machine) => {
                        if let Some((at, hash)) = reads.remove(&machine) {
                            let entry = hash.map_or(Entry::Revoked, Entry::Token);
                            known.put(&machine.to_string(), entry, at, LATER, most);
                        }
                    }
                    Step::Change(machine, token) => {
                        number += 1;
                        if token {
                            redis.insert(machine, TokenHash::of(&number.to_string()));
                        } else {
                            redis.remove(&machine);
                        }
                        // Whether somebody listens or not, it is told in this order.
                        if known.told {
                            known.changed(&machine.to_string());
                        }
                    }
                    Step::Begin => known.begin(),
                    Step::End => known.end(),
                }
                prop_assert!(known.len() <= most);
                for machine in 0..4 {
                    if let Some(Entry::Token(hash)) = known.get(&machine.to_string(), Duration::ZERO) {
                        prop_assert!(hash.is(redis.get(&machine)));
                    }
                }
            }
        }
    }
}
