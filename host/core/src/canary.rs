//! A canary: a new build that serves some machines before it serves all. Which machines: a share of them by a hash of the serial number, so that
//! a machine does not change between builds from one message to the next, and those that are named. And whether it does as well as the live build.

use sha2::{Digest as _, Sha256};

use crate::compared::{Sum, Tolerance, Worse, compare};

/// Whose messages a canary handles.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Machines {
    /// Of all machines, 0 to 100.
    pub percent: f64,
    /// Serial numbers; `*` stands for any characters.
    pub named: Vec<String>,
}

/// Of how many parts the share is counted.
const PARTS: u64 = 10_000;

impl Machines {
    /// Whether this machine's messages are its: always the same answer.
    #[must_use]
    pub fn take(&self, serial_no: &str) -> bool {
        self.named.iter().any(|pattern| matches(pattern, serial_no)) || in_share(serial_no, self.percent)
    }
}

/// What is to become of a canary.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is not known yet.
    Wait,
    /// It does worse than the live build: it is withdrawn.
    Worse(Worse),
    /// It may serve all.
    Passed,
}

/// Compares a canary with the live build, each by its own calls of the same while; or a build on probation with the one before it. `over`: that
/// while is over.
///
/// From `min_calls` on it is judged as it runs. Where it never has so many, it is judged at its end by those that it had: one failure
/// says nothing then, and what few calls took neither.
#[must_use]
pub fn judge(live: Sum, canary: Sum, min_calls: u64, tolerance: Tolerance, over: bool) -> Verdict {
    match compare(live, canary, tolerance) {
        Some(worse) if canary.calls >= min_calls => Verdict::Worse(worse),
        Some(worse @ Worse::Failures { .. }) if over && canary.failures > 1 => Verdict::Worse(worse),
        _ if over => Verdict::Passed,
        _ => Verdict::Wait,
    }
}

/// The same in each build of this program, in each instance and after each restart, so it is no hash of the standard library's. Of every plugin it is
/// the same share: where a chain has two canaries, they are met together.
fn in_share(serial_no: &str, percent: f64) -> bool {
    let digest: [u8; 32] = Sha256::digest(serial_no).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    // At most a hundred times a hundred.
    #[expect(clippy::cast_precision_loss, reason = "it is below 10,000")]
    let place = (u64::from_be_bytes([a, b, c, d, e, f, g, h]) % PARTS) as f64;
    place < percent * 100.0
}

/// Whether a pattern with any number of `*` matches a whole text. Each star takes as little as it can: the work is bounded by the
/// product of both lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("M-00*", "M-001", true),
            ("M-00*", "M-011", false),
            ("*", "", true),
            ("M-1", "M-1", true),
            ("M-1", "M-12", false),
            ("*-9", "M-9", true),
            ("a*b*a", "aba", true),
            ("a*a", "a", false),
            ("a**b", "ab", true),
            ("*é*", "caféteria", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_share_is_about_its_size_and_grows_without_machines_leaving_it() {
        let machines: Vec<String> = (0..10_000).map(|number| format!("M-{number:05}")).collect();
        let count = |percent| machines.iter().filter(|machine| in_share(machine, percent)).count();
        assert_eq!((count(0.0), count(100.0)), (0, 10_000));
        assert!((400..600).contains(&count(5.0)), "{}", count(5.0));
        assert!(machines.iter().all(|machine| !in_share(machine, 5.0) || in_share(machine, 20.0)));
        // Written down: a machine must not flip with another build of this program.
        assert_eq!(
            machines.iter().filter(|machine| in_share(machine, 0.05)).collect::<Vec<_>>(),
            ["M-01342", "M-05585", "M-06482", "M-07420", "M-08326", "M-09012"]
        );
        let named = Machines { percent: 0.0, named: vec!["M-0000*".to_owned()] };
        assert_eq!(machines.iter().filter(|machine| named.take(machine)).count(), 10);
    }

    fn sum(calls: u64, failures: u64) -> Sum {
        Sum { calls, failures, busy: Duration::from_micros(10) * u32::try_from(calls).expect("few") }
    }

    #[test]
    fn it_is_judged_from_enough_calls_on_and_by_what_it_had_at_its_end() {
        let tolerance = Tolerance { new_failures: 0.1, slowdown: 5.0 };
        let judge = |live, canary, over| match judge(live, canary, 100, tolerance, over) {
            Verdict::Wait => "wait",
            Verdict::Worse(_) => "worse",
            Verdict::Passed => "passed",
        };
        assert_eq!(judge(sum(1_000, 0), sum(99, 99), false), "wait");
        assert_eq!(judge(sum(1_000, 0), sum(100, 11), false), "worse");
        assert_eq!(judge(sum(1_000, 0), sum(100, 10), false), "wait");
        assert_eq!(judge(sum(1_000, 0), sum(100, 10), true), "passed");
        // What fails with both is no doing of the new one's.
        assert_eq!(judge(sum(1_000, 500), sum(100, 55), true), "passed");
        // Few calls: one failure is no proof.
        assert_eq!(judge(sum(1_000, 0), sum(5, 1), true), "passed");
        assert_eq!(judge(sum(1_000, 0), sum(5, 2), true), "worse");
        assert_eq!(judge(sum(0, 0), sum(0, 0), true), "passed");
        // Nor is the time that a few took.
        let slow = |calls| Sum { busy: Duration::from_secs(1), ..sum(calls, 0) };
        assert_eq!(judge(sum(1_000, 0), slow(5), true), "passed");
        assert_eq!(judge(sum(1_000, 0), slow(100), false), "worse");
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[a*é]{0,12}", text in "[aé]{0,24}") {
            let regular = pattern.chars().all(|c| c != '*');
            prop_assert!(!regular || matches(&pattern, &text) == (pattern == text));
            prop_assert!(matches("*", &text));
        }
    }
}
