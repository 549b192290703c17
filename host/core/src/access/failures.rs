//! Who has failed too often. It counts by user name and by where the attempt came from: somebody who tries the tokens of a machine from
//! elsewhere keeps nobody out but themselves.

use std::time::Duration;

use indexmap::IndexMap;

/// Pairs of user name and address that are remembered: about 200 bytes each.
const MOST: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Failures of each user name and address. Whoever has used them up is let try again once a share of the minute is over; that an attempt
/// was not looked at counts for nothing, so nobody is kept out longer than that.
#[derive(Debug, Default)]
pub struct Failures {
    /// When the last of its failures is forgotten, each of which takes a share of a minute: time since any moment.
    until: IndexMap<(Box<str>, Box<str>), Duration>,
    evicted: usize,
}

impl Failures {
    /// Whether an attempt is not to be looked at. `most` failures a minute are.
    #[must_use]
    pub fn limited(&self, user: &str, from: &str, most: u32, now: Duration) -> bool {
        let until = self.until.get(&(user.into(), from.into())).copied().unwrap_or_default();
        // There is room for one more: what is left of them and this one are forgotten within a minute.
        until.saturating_sub(now) + MINUTE / most.max(1) > MINUTE
    }

    /// A wrong token.
    pub fn failed(&mut self, user: &str, from: &str, most: u32, now: Duration) {
        let pair = (Box::from(user), Box::from(from));
        if self.until.len() >= MOST && !self.until.contains_key(&pair) {
            self.make_room(now);
        }
        let until = self.until.entry(pair).or_default();
        *until = (*until).max(now) + MINUTE / most.max(1);
    }

    /// Those that are forgotten go; where there are none, one does that is no newer than the others: its turn comes round.
    fn make_room(&mut self, now: Duration) {
        self.until.retain(|_, until| *until > now);
        if self.until.len() >= MOST {
            self.evicted = (self.evicted + 1) % MOST;
            self.until.swap_remove_index(self.evicted);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_secs(1_000);

    #[test]
    fn ten_in_a_minute_and_then_one_every_six_seconds() {
        let mut failures = Failures::default();
        for _ in 0..10 {
            assert!(!failures.limited("M-1", "10.0.0.1", 10, START));
            failures.failed("M-1", "10.0.0.1", 10, START);
        }
        assert!(failures.limited("M-1", "10.0.0.1", 10, START));
        // Neither the machine at its own address nor another machine is kept out.
        assert!(!failures.limited("M-1", "10.0.0.2", 10, START) && !failures.limited("M-2", "10.0.0.1", 10, START));
        assert!(failures.limited("M-1", "10.0.0.1", 10, START + Duration::from_millis(5_999)));
        assert!(!failures.limited("M-1", "10.0.0.1", 10, START + Duration::from_secs(6)));
        failures.failed("M-1", "10.0.0.1", 10, START + Duration::from_secs(6));
        assert!(failures.limited("M-1", "10.0.0.1", 10, START + Duration::from_secs(7)));
        assert!(!failures.limited("M-1", "10.0.0.1", 10, START + Duration::from_secs(12)));
    }

    #[test]
    fn it_remembers_no_more_than_its_bound() {
        let mut failures = Failures::default();
        for number in 0..3 * MOST {
            failures.failed(&number.to_string(), "x", 10, START);
        }
        assert_eq!(failures.until.len(), MOST);
        failures.failed("later", "x", 10, START + MINUTE);
        assert_eq!(failures.until.len(), 1);
    }

    proptest! {
        /// However many fail and whenever: after a minute without a failure anybody is let try.
        #[test]
        fn nobody_is_kept_out_for_ever(most in 1_u32..100, steps in prop::collection::vec(0_u64..10_000, 0..200)) {
            let (mut failures, mut now) = (Failures::default(), START);
            for step in steps {
                now += Duration::from_millis(step);
                if !failures.limited("M-1", "x", most, now) {
                    failures.failed("M-1", "x", most, now);
                }
            }
            prop_assert!(!failures.limited("M-1", "x", most, now + MINUTE / most));
        }
    }
}
