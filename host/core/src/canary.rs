//! Which machines a new build serves first: a share of them by a hash of the serial number, so that a machine does not change between builds
//! from one message to the next, and those that are named.

use std::hash::{DefaultHasher, Hasher as _};

/// Whose messages a canary handles.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Canary {
    /// Of all machines, 0 to 100.
    pub percent: f64,
    /// Serial numbers; `*` stands for any characters.
    pub machines: Vec<String>,
}

/// Of how many parts the share is counted.
const PARTS: u64 = 10_000;

impl Canary {
    /// Whether it handles this machine's messages: always the same answer.
    #[must_use]
    pub fn takes(&self, serial_no: &str) -> bool {
        self.machines.iter().any(|pattern| matches(pattern, serial_no)) || in_share(serial_no, self.percent)
    }
}

fn in_share(serial_no: &str, percent: f64) -> bool {
    let mut hasher = DefaultHasher::new();
    hasher.write(serial_no.as_bytes());
    // At most a hundred times a hundred.
    #[expect(clippy::cast_precision_loss, reason = "it is below 10,000")]
    let place = (hasher.finish() % PARTS) as f64;
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
        let named = Canary { percent: 0.0, machines: vec!["M-0000*".to_owned()] };
        assert_eq!(machines.iter().filter(|machine| named.takes(machine)).count(), 10);
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
