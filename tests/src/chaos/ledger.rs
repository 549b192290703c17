//! What was published and what was acknowledged, and how that compares with what the back end got.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::time::Instant;

/// One message: whose, of which route, and its place among those.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The serial number.
    pub machine: String,
    /// The route.
    pub route: String,
    /// From 0 on.
    pub seq: u64,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.machine, self.route, self.seq)
    }
}

impl Key {
    /// The message that this job was made of; none: of no machine of ours.
    #[must_use]
    pub fn of(job: &str) -> Option<Self> {
        let job: Value = serde_json::from_str(job).ok()?;
        Some(Self {
            machine: job["serial_no"].as_str()?.to_owned(),
            route: job["type"].as_str()?.to_owned(),
            seq: job["payload"]["seq"].as_u64()?,
        })
    }
}

/// Routes whose jobs have an idempotency key, and `dedupe`.
const DEDUPED: &str = "transaction";

#[derive(Debug, Default)]
struct Entry {
    acknowledged: Option<Instant>,
    /// How often it was published: the broker may have it as often.
    sends: u32,
    /// What was kept of it was destroyed.
    destroyed: bool,
}

/// What machines remember. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<Key, Entry>>>);

impl Ledger {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was published, perhaps not for the first time.
    pub fn sent(&self, key: &Key) {
        self.all().entry(key.clone()).or_default().sends += 1;
    }

    /// The machine was told that it is delivered.
    pub fn acknowledged(&self, key: &Key) {
        self.all().entry(key.clone()).or_default().acknowledged = Some(Instant::now());
    }

    /// How many are acknowledged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all().values().filter(|entry| entry.acknowledged.is_some()).count()
    }

    /// What was acknowledged since then may be lost, and nobody to blame: as if it were not acknowledged.
    pub fn doubt(&self, since: Instant) {
        for entry in self.all().values_mut().filter(|entry| entry.acknowledged.is_some_and(|at| at >= since)) {
            entry.acknowledged = None;
        }
    }

    /// What was kept of this one was destroyed: it may be lost, and where the broker still has it, it comes behind later ones.
    pub fn forgive(&self, key: &Key) {
        if let Some(entry) = self.all().get_mut(key) {
            (entry.acknowledged, entry.destroyed) = (None, true);
        }
    }

    /// How many publishes there were, those that were repeated too.
    #[must_use]
    pub fn sends(&self) -> u64 {
        self.all().values().map(|entry| u64::from(entry.sends)).sum()
    }

    /// Compares with the jobs that the back end got, in their order.
    #[must_use]
    pub fn compare(&self, jobs: &[String]) -> Comparison {
        let all = self.all();
        let mut comparison = Comparison::default();
        let mut counts: HashMap<Key, u32> = HashMap::new();
        let mut newest: HashMap<(String, String), u64> = HashMap::new();
        for job in jobs {
            let Some(key) = Key::of(job).filter(|key| all.contains_key(key)) else {
                comparison.strange.push(job.clone());
                continue;
            };
            let count = counts.entry(key.clone()).or_default();
            *count += 1;
            if *count == 1 {
                // What comes again later was there in its order already.
                let newest = newest.entry((key.machine.clone(), key.route.clone())).or_default();
                if key.seq < *newest && !all.get(&key).is_some_and(|entry| entry.destroyed) {
                    comparison.out_of_order.push(key.clone());
                }
                *newest = key.seq.max(*newest);
            } else if *count == 2 && key.route == DEDUPED {
                comparison.doubled.push(key);
            } else if key.route != DEDUPED && *count > all.get(&key).map_or(0, |entry| entry.sends) {
                comparison.again.push(key);
            }
        }
        for (key, _) in all.iter().filter(|(_, entry)| entry.acknowledged.is_some()) {
            comparison.acknowledged += 1;
            if counts.contains_key(key) {
                comparison.arrived += 1;
            } else {
                comparison.missing.push(key.clone());
            }
        }
        comparison
    }
}

/// What was acknowledged beside what arrived.
#[derive(Debug, Default)]
pub struct Comparison {
    /// How many were acknowledged to their machines.
    pub acknowledged: usize,
    /// How many of those the back end got.
    pub arrived: usize,
    /// Those that it did not get.
    pub missing: Vec<Key>,
    /// Of routes with `dedupe`: those that it got more than once.
    pub doubled: Vec<Key>,
    /// Of other routes: each time that it got one more often than its machine published it.
    pub again: Vec<Key>,
    /// Those that it got for the first time behind a later one of their machine and route.
    pub out_of_order: Vec<Key>,
    /// Jobs that nobody published.
    pub strange: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(route: &str, seq: u64) -> Key {
        Key { machine: "M-1".to_owned(), route: route.to_owned(), seq }
    }

    fn job(key: &Key) -> String {
        format!(r#"{{"type":"{}","serial_no":"{}","payload":{{"seq":{}}}}}"#, key.route, key.machine, key.seq)
    }

    #[test]
    fn says_what_is_missing_doubled_and_out_of_order() {
        let ledger = Ledger::default();
        let (beat, sale) = (|seq| key("heartbeat", seq), |seq| key("transaction", seq));
        for key in [beat(0), beat(1), beat(2), beat(3), sale(0), sale(1)] {
            ledger.sent(&key);
            ledger.acknowledged(&key);
        }
        ledger.sent(&beat(2));
        ledger.sent(&beat(4));
        let jobs =
            [beat(0), beat(0), beat(2), beat(2), beat(1), sale(0), sale(0), sale(0), beat(9)].map(|key| job(&key));
        let comparison = ledger.compare(&jobs);
        assert_eq!((comparison.acknowledged, comparison.arrived), (6, 4));
        assert_eq!(comparison.missing, [beat(3), sale(1)]);
        assert_eq!(comparison.doubled, [sale(0)]);
        assert_eq!(comparison.again, [beat(0)], "its machine published the other twice");
        assert_eq!(comparison.out_of_order, [beat(1)]);
        assert_eq!(comparison.strange, [job(&beat(9))]);
    }
}
