//! What people are told of, and when again. Of one machine, kind and code one alert goes out in a window; the rest are counted.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The machine told of an error.
    Error,
    /// It sold what its slot did not hold.
    Stock,
    /// Nothing was heard of it for too long.
    Offline,
    /// It is heard again.
    Recovered,
}

impl Kind {
    /// Its word, in the database and in the webhook.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Stock => "stock",
            Self::Offline => "offline",
            Self::Recovered => "recovered",
        }
    }
}

/// What makes two alerts the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The machine.
    pub serial_no: String,
    /// What it is about.
    pub kind: &'static str,
    /// The machine's code, or the kind again.
    pub code: String,
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What makes it the same as another.
    pub key: Key,
    /// `info`, `warning`, `error` or `critical`.
    pub level: String,
    /// For people.
    pub message: String,
    /// For programs: a JSON object.
    pub details: String,
}

/// An alert as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its row.
    pub id: i64,
    /// Whether it still waits to be told.
    pub pending: bool,
    /// When it came.
    pub raised_at: Timestamp,
    /// When it was told last; none: never.
    pub told_at: Option<Timestamp>,
}

/// What becomes of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is new: a row of its own.
    Raise,
    /// Its window is over: the row is told again.
    Again(i64),
    /// It is counted on the row that was told, or waits to be.
    Count(i64),
}

/// Decides. The window begins when people were told, which may be long after it came. A row that waits to be told is never raised anew, however long the webhook is away: it is one alert then.
#[must_use]
pub fn decide(known: Option<Known>, now: Timestamp, window: Duration) -> Decision {
    match known {
        None => Decision::Raise,
        Some(known) => {
            let began = known.told_at.map_or(known.raised_at, |told_at| told_at.max(known.raised_at));
            let is_over = now.duration_since(began).unsigned_abs() >= window;
            if is_over && !known.pending { Decision::Again(known.id) } else { Decision::Count(known.id) }
        }
    }
}

/// The same alert many times in a batch is one, and how often it came.
#[must_use]
pub fn gather(alerts: Vec<Alert>) -> BTreeMap<Key, (Alert, i64)> {
    let mut gathered: BTreeMap<Key, (Alert, i64)> = BTreeMap::new();
    for alert in alerts {
        gathered.entry(alert.key.clone()).or_insert_with(|| (alert, 0)).1 += 1;
    }
    gathered
}

/// How long to wait before the next attempt, after so many: from a second, doubled, to ten minutes.
#[must_use]
pub fn retry_after(attempts: u32) -> Duration {
    Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1))).min(Duration::from_mins(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    #[test]
    fn one_goes_out_in_a_window() {
        let window = Duration::from_secs(60);
        let told = |pending, raised, told: Option<i64>| {
            Some(Known { id: 7, pending, raised_at: at(raised), told_at: told.map(at) })
        };
        let known = |pending, raised| told(pending, raised, None);
        assert_eq!(decide(None, at(100), window), Decision::Raise);
        assert_eq!(decide(known(false, 50), at(100), window), Decision::Count(7));
        assert_eq!(decide(known(false, 40), at(100), window), Decision::Again(7));
        assert_eq!(decide(known(true, 0), at(100), window), Decision::Count(7));
        // A clock that was set back does not open it.
        assert_eq!(decide(known(false, 110), at(100), window), Decision::Count(7));
        assert_eq!(decide(known(false, 100), at(100), Duration::ZERO), Decision::Again(7));
        // The webhook was away: people were told a moment ago. And what was given up is not told earlier for the time before.
        assert_eq!(decide(told(false, 10, Some(90)), at(100), window), Decision::Count(7));
        assert_eq!(decide(told(false, 10, Some(40)), at(100), window), Decision::Again(7));
        assert_eq!(decide(told(false, 90, Some(10)), at(100), window), Decision::Count(7));
    }

    #[test]
    fn attempts_are_spread() {
        let seconds: Vec<u64> = (1..=12).map(|attempts| retry_after(attempts).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(retry_after(u32::MAX).as_secs(), 600);
    }
}
