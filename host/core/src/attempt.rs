//! A message that failed in a way that may pass: again, parked, or given up. `now` is the time since any fixed moment.

use std::time::Duration;

use crate::backoff::Backoff;

/// How long a message is tried while its acknowledgement waits. MQTT 5 wants acknowledgements in the order of arrival
/// [MQTT-4.6.0-2], so all others wait with it.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How long messages wait for a plugin that fails at everything; then they are what their route's `on_failure` says.
pub const REPAIR: Duration = Duration::from_secs(86_400);

/// What comes after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another one, after so long.
    Again(Duration),
    /// It needs more time than its acknowledgement can wait.
    Park,
    /// Its attempts are used up.
    GiveUp,
}

/// The attempts of a message in memory.
#[derive(Debug)]
pub struct Attempts {
    most: u32,
    began: Duration,
    backoff: Backoff,
}

impl Attempts {
    /// `most` is the route's `attempts`.
    #[must_use]
    pub fn new(most: u32, began: Duration) -> Self {
        Self { most, began, backoff: Backoff::for_messages() }
    }

    /// How long the next attempt may take before the message is parked.
    #[must_use]
    pub fn rest(&self, now: Duration) -> Duration {
        PATIENCE.saturating_sub(now.saturating_sub(self.began))
    }

    /// Attempt number `attempt`, the first being 1, failed. `broken`: its plugin fails at everything, so it is not the message
    /// that is wrong.
    pub fn failed(&mut self, attempt: u32, broken: bool, now: Duration, chance: u32) -> Next {
        if broken {
            return Next::Park;
        }
        if attempt >= self.most {
            return Next::GiveUp;
        }
        let delay = self.backoff.next(chance);
        if delay > self.rest(now) { Next::Park } else { Next::Again(delay) }
    }
}

/// Whether a parked message that failed is given up: it was tried so often, `most` is the route's `attempts`, and its plugin fails at
/// everything for so long, if it does.
#[must_use]
pub fn gives_up(attempts: u32, most: u32, broken_for: Option<Duration>) -> bool {
    match broken_for {
        Some(broken_for) => broken_for > REPAIR,
        None => attempts >= most,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// However long attempts take and whenever the plugin is broken: a message is tried no more often than its route says while the
        /// plugin is not, its acknowledgement waits for no attempt that begins after its patience is over, and it comes to an end.
        #[test]
        fn a_message_comes_to_its_end(
            most in 1_u32..20,
            took in prop::collection::vec((0_u64..400, any::<bool>(), any::<u32>()), 60),
        ) {
            let began = Duration::from_secs(7);
            let (mut now, mut attempt, mut blamed) = (began, 1, 0);
            let mut attempts = Attempts::new(most, began);
            let mut steps = took.into_iter();
            let mut parked = false;
            for (millis, broken, chance) in steps.by_ref() {
                now += Duration::from_millis(millis);
                blamed += u32::from(!broken);
                prop_assert!(blamed <= most);
                match attempts.failed(attempt, broken, now, chance) {
                    Next::Again(delay) => {
                        now += delay;
                        attempt += 1;
                        prop_assert!(now - began <= PATIENCE, "{:?}", now - began);
                    }
                    Next::Park => {
                        prop_assert!(broken || now - began + Duration::from_secs(1) >= PATIENCE);
                        parked = true;
                        break;
                    }
                    Next::GiveUp => {
                        prop_assert_eq!((attempt, broken), (most, false));
                        break;
                    }
                }
            }
            let mut ended = !parked;
            for (_, broken, _) in steps.take_while(|_| parked) {
                attempt += 1;
                if gives_up(attempt, most, broken.then_some(Duration::from_secs(60))) {
                    prop_assert!(!broken && attempt >= most);
                    ended = true;
                    break;
                }
            }
            // The last word: a plugin that is never repaired.
            prop_assert!(ended || gives_up(attempt, most, Some(REPAIR + Duration::from_secs(1))));
        }
    }

    #[test]
    fn the_last_attempt_is_followed_by_none() {
        let mut attempts = Attempts::new(2, Duration::ZERO);
        assert!(matches!(attempts.failed(1, false, Duration::ZERO, 0), Next::Again(_)));
        assert_eq!(attempts.failed(2, false, Duration::ZERO, 0), Next::GiveUp);
        assert_eq!(Attempts::new(2, Duration::ZERO).failed(1, true, Duration::ZERO, 0), Next::Park);
        assert_eq!(Attempts::new(9, Duration::ZERO).failed(1, false, PATIENCE, 0), Next::Park);
    }
}
