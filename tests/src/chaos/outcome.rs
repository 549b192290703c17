//! What a scenario found, judged by what is promised for its fault.

use std::fmt;
use std::time::Duration;

use super::ledger::Comparison;

/// What is promised. Nothing acknowledged may be missing, ever.
#[derive(Debug, Clone)]
pub struct Promise {
    /// Of routes with `dedupe` nothing arrives twice.
    pub deduped: bool,
    /// Of other routes nothing arrives more often than it was published.
    pub once: bool,
    /// Of one machine and route what arrives does so in the order of its publishes.
    pub ordered: bool,
}

impl Promise {
    /// At least once, once with `dedupe`, in order: whatever dies.
    pub const ALWAYS: Self = Self { deduped: true, once: false, ordered: true };
    /// And nothing is repeated: neither a push nor its acknowledgement is lost.
    pub const ONCE: Self = Self { deduped: true, once: true, ordered: true };
}

/// What one run of a scenario found.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Acknowledged to machines, or pushed as commands.
    pub acknowledged: usize,
    /// Of those, what arrived.
    pub arrived: usize,
    /// Of those, what did not.
    pub missing: usize,
    /// What arrived twice and must not.
    pub doubled: usize,
    /// What arrived again and may.
    pub again: usize,
    /// What arrived behind a later one, and must not.
    pub out_of_order: usize,
    /// The longest time in which nothing arrived, although something was under way.
    pub stall: Duration,
    /// What is wrong, one sentence each.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// Judges a comparison.
    #[must_use]
    pub fn judge(comparison: &Comparison, promise: &Promise, stall: Duration) -> Self {
        let Comparison { acknowledged, arrived, missing, doubled, again, out_of_order, strange } = comparison;
        let mut outcome =
            Self { acknowledged: *acknowledged, arrived: *arrived, missing: missing.len(), stall, ..Self::default() };
        outcome.say("missing although acknowledged", missing);
        outcome.say("of nobody", strange);
        for (promised, what, keys) in
            [(promise.deduped, "doubled although deduped", doubled), (promise.once, "doubled", again)]
        {
            if promised {
                outcome.doubled += keys.len();
                outcome.say(what, keys);
            } else {
                outcome.again += keys.len();
            }
        }
        if promise.ordered {
            outcome.out_of_order = out_of_order.len();
            outcome.say("out of order", out_of_order);
        }
        if *acknowledged == 0 {
            outcome.wrong.push("nothing was acknowledged: the scenario shows nothing".to_owned());
        }
        outcome
    }

    fn say(&mut self, what: &str, all: &[impl fmt::Display]) {
        if all.is_empty() {
            return;
        }
        let mut text = format!("{} {what}: ", all.len());
        let shown: Vec<String> = all.iter().take(10).map(ToString::to_string).collect();
        text.push_str(&shown.join(", "));
        if all.len() > shown.len() {
            text.push_str(", …");
        }
        self.wrong.push(text);
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.arrived += other.arrived;
        self.missing += other.missing;
        self.doubled += other.doubled;
        self.again += other.again;
        self.out_of_order += other.out_of_order;
        self.stall = self.stall.max(other.stall);
    }
}
