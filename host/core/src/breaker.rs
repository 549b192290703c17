//! A plugin that fails at everything: its messages wait for its repair, rather than becoming dead letters one by one.

use std::time::Duration;

/// So many faults behind one another, without a good call between them, say that it is the plugin and not a message.
const FAULTS: u32 = 5;
/// The first try after it opened, and the longest time between two.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(10);

/// Counts the faults of one build. `now` is the time since any fixed moment.
#[derive(Debug, Default)]
pub struct Breaker {
    faults: u32,
    /// The machine that the first of them came from: one machine's poison is no proof.
    first: Option<String>,
    several: bool,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    since: Duration,
    next: Duration,
    delay: Duration,
}

/// Whether a message may be handed to the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Go,
    /// The breaker is open; not before so long.
    Wait(Duration),
}

impl Breaker {
    /// Asks before a call. While it is open one call at a time is let through as a test.
    pub fn ask(&mut self, now: Duration) -> Verdict {
        match &mut self.open {
            None => Verdict::Go,
            Some(open) if now >= open.next => {
                // Whoever asks next waits for this one.
                open.delay = (open.delay * 2).min(MOST);
                open.next = now + open.delay;
                Verdict::Go
            }
            Some(open) => Verdict::Wait(open.next - now),
        }
    }

    /// A call gave no answer. True: the breaker opened just now.
    pub fn failed(&mut self, machine: &str, now: Duration) -> bool {
        self.faults = self.faults.saturating_add(1);
        match &self.first {
            None => self.first = Some(machine.to_owned()),
            Some(first) => self.several |= first != machine,
        }
        let opens = self.open.is_none() && self.several && self.faults >= FAULTS;
        if opens {
            self.open = Some(Open { since: now, next: now + FIRST, delay: FIRST });
        }
        opens
    }

    /// A call gave an answer, whatever it was. True: the breaker closed just now.
    pub fn answered(&mut self) -> bool {
        let closes = self.open.is_some();
        *self = Self::default();
        closes
    }

    /// How long it has been open; none: it is not.
    #[must_use]
    pub fn open_for(&self, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(self.open?.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for fault in 1..=FAULTS {
            assert_eq!(breaker.failed(&format!("M-{fault}"), NOW), fault == FAULTS);
        }
        breaker
    }

    #[test]
    fn opens_after_faults_of_several_machines_behind_one_another() {
        let breaker = opened();
        assert_eq!(breaker.open_for(NOW + FIRST), Some(FIRST));
        assert_eq!(Breaker::default().open_for(NOW), None);
    }

    #[test]
    fn one_machine_does_not_open_it() {
        let mut breaker = Breaker::default();
        assert!((0..100).all(|_| !breaker.failed("M-1", NOW)));
        assert_eq!(breaker.ask(NOW), Verdict::Go);
    }

    #[test]
    fn a_good_call_between_faults_says_that_it_is_the_messages() {
        let mut breaker = Breaker::default();
        for fault in 0..100 {
            assert!(!breaker.failed(&format!("M-{fault}"), NOW));
            if fault % 3 == 0 {
                breaker.answered();
            }
        }
    }

    #[test]
    fn lets_one_through_at_a_time_and_less_often_each_time() {
        let mut breaker = opened();
        assert_eq!(breaker.ask(NOW), Verdict::Wait(FIRST));
        let mut now = NOW + FIRST;
        for delay in [2, 4, 8, 10, 10] {
            let delay = Duration::from_secs(delay);
            assert_eq!(breaker.ask(now), Verdict::Go);
            assert_eq!(breaker.ask(now), Verdict::Wait(delay));
            assert!(!breaker.failed("M-1", now), "it is open already");
            now += delay;
        }
        assert_eq!(breaker.ask(now), Verdict::Go);
        assert!(breaker.answered());
        assert_eq!(breaker.ask(now), Verdict::Go);
    }
}
