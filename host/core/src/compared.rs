//! Whether a new build does as well as the one before: in the rehearsal, where both are given the same messages, and as a canary and on
//! probation, where each has had messages of its own.

use std::fmt;
use std::time::Duration;

/// What calls of one build came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Calls that ended.
    pub calls: u64,
    /// Of those, in which the build refused its message, asked for another attempt, or gave no answer.
    pub failures: u64,
    /// How long all of them took.
    pub busy: Duration,
}

impl Sum {
    /// What was added since it was `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            failures: self.failures.saturating_sub(earlier.failures),
            busy: self.busy.saturating_sub(earlier.busy),
        }
    }

    fn rate(self) -> f64 {
        if self.calls == 0 { 0.0 } else { ratio(self.failures, self.calls) }
    }

    fn mean(self) -> Option<Duration> {
        Some(self.busy / u32::try_from(self.calls).ok().filter(|calls| *calls > 0)?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for people to read and to compare with a setting")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// What calls of one build took, each by itself, as all of them would have taken without the slowest twentieth (one at the least): those the
/// machine held up, which was busy with something else.
#[must_use]
pub fn undisturbed(mut calls: Vec<Duration>) -> Duration {
    calls.sort_unstable();
    let all = calls.len();
    if all > 1 {
        calls.truncate(all - (all / 20).max(1));
    }
    let (sum, all) = (calls.iter().sum::<Duration>(), u32::try_from(all).unwrap_or(u32::MAX));
    u32::try_from(calls.len()).ok().and_then(|kept| sum.checked_div(kept)).unwrap_or_default() * all
}

/// How much worse a new build may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// More failures than before, as a share of the calls: 0 to 1.
    pub new_failures: f64,
    /// How many times as long as before a call may take on average.
    pub slowdown: f64,
}

/// Below this a call's time is the machine's noise, not the build's doing.
const NOISE: Duration = Duration::from_micros(100);

/// Why a build is worse than the one before.
#[derive(Debug, Clone, PartialEq)]
pub enum Worse {
    /// It fails more often.
    Failures {
        /// Shares of the calls, 0 to 1.
        before: f64,
        /// The same of the new one.
        now: f64,
        /// How much more is allowed.
        most: f64,
    },
    /// It takes longer.
    Slow {
        /// Of a call, on average.
        before: Duration,
        /// The same of the new one.
        now: Duration,
        /// How many times as long is allowed.
        most: f64,
    },
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures { before, now, most } => write!(
                f,
                "{:.2} % of its calls fail, where {:.2} % did before; {:.2} % more are allowed",
                now * 100.0,
                before * 100.0,
                most * 100.0
            ),
            Self::Slow { before, now, most } => {
                write!(f, "a call takes {now:.1?} on average, where it took {before:.1?}; {most} times that is allowed")
            }
        }
    }
}

/// What is worse about the new one; nothing: it does as well as is asked.
///
/// One failure more among few calls is a large share: whoever asks sees to it that there were enough of them.
#[must_use]
pub fn compare(before: Sum, now: Sum, tolerance: Tolerance) -> Option<Worse> {
    // What a division of counts gives may lie a hair above what it stands for.
    if now.rate() > before.rate() + tolerance.new_failures + 1e-9 {
        return Some(Worse::Failures { before: before.rate(), now: now.rate(), most: tolerance.new_failures });
    }
    let (mean, then) = (now.mean()?, before.mean()?.max(NOISE));
    (mean.as_secs_f64() > then.as_secs_f64() * tolerance.slowdown).then_some(Worse::Slow {
        before: then,
        now: mean,
        most: tolerance.slowdown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Tolerance = Tolerance { new_failures: 0.0, slowdown: 5.0 };

    fn sum(calls: u64, failures: u64, micros: u64) -> Sum {
        Sum { calls, failures, busy: Duration::from_micros(micros) * u32::try_from(calls).expect("few") }
    }

    #[test]
    fn as_good_is_good_and_one_more_failure_is_not_unless_it_is_allowed() {
        assert_eq!(compare(sum(100, 3, 10), sum(200, 6, 10), STRICT), None);
        assert_eq!(compare(sum(100, 3, 10), sum(100, 2, 10), STRICT), None);
        let worse = compare(sum(100, 3, 10), sum(100, 4, 10), STRICT).expect("worse");
        assert_eq!(worse.to_string(), "4.00 % of its calls fail, where 3.00 % did before; 0.00 % more are allowed");
        let lenient = Tolerance { new_failures: 0.01, ..STRICT };
        assert_eq!(compare(sum(100, 3, 10), sum(100, 4, 10), lenient), None);
    }

    #[test]
    fn slow_is_told_from_noise() {
        assert_eq!(compare(sum(100, 0, 10), sum(100, 0, 450), STRICT), None);
        let worse = compare(sum(100, 0, 200), sum(100, 0, 1_100), STRICT).expect("worse");
        assert_eq!(worse.to_string(), "a call takes 1.1ms on average, where it took 200.0µs; 5 times that is allowed");
        assert_eq!(compare(sum(100, 0, 200), sum(100, 0, 900), STRICT), None);
    }

    #[test]
    fn what_the_machine_held_up_does_not_count() {
        let ms = |times: &[u64]| undisturbed(times.iter().map(|ms| Duration::from_millis(*ms)).collect()).as_millis();
        assert_eq!((ms(&[]), ms(&[5]), ms(&[1, 500])), (0, 5, 2));
        let mut many = vec![1; 100];
        many[..5].fill(500);
        assert_eq!(ms(&many), 100);
        // A build that is slow for a tenth of them is slow.
        many[..10].fill(500);
        assert!(ms(&many) > 2_000);
    }

    #[test]
    fn nothing_is_known_of_builds_that_were_not_called() {
        assert_eq!(compare(Sum::default(), Sum::default(), STRICT), None);
        assert_eq!(compare(sum(10, 0, 10), Sum::default(), STRICT), None);
        assert!(compare(Sum::default(), sum(10, 1, 10), STRICT).is_some());
    }
}
