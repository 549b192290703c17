//! What a rehearsal on real messages came to.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use sluicegate_core::compared::{Sum, Tolerance, Worse, compare, undisturbed};

/// Differences that are kept.
const MAX_DIFFERENCES: usize = 20;
/// Lines of one side of a difference that are kept, and characters of a line.
const MAX_LINES: usize = 10;
const MAX_TEXT: usize = 2_000;

/// Messages from which on it is judged how long they took: of fewer, what a busy machine held up can be most of it.
const MIN_TIMED: u64 = 50;

/// What both builds made of the same messages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Digests: of the live build, and of the new one.
    pub before: String,
    /// The same of the new one.
    pub now: String,
    /// Messages that both were given.
    pub messages: u64,
    /// Of those, which the new build fails at and the live one does not.
    pub new_failures: u64,
    /// Of those, which the live build fails at and the new one does not.
    pub mended: u64,
    /// Of those, of which they make something else.
    pub differing: u64,
    /// Average of a call, in microseconds, without the slowest twentieth.
    pub before_us: f64,
    /// The same of the new one.
    pub now_us: f64,
    /// Why it was refused.
    pub refused: Option<String>,
    /// The first of those that differ.
    pub differences: Vec<Difference>,
}

/// One message of which they make something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its topic.
    pub topic: String,
    /// What was published; replacement characters stand for what is no text.
    pub payload: String,
    /// What the live build makes of it: lines.
    pub before: Vec<String>,
    /// What the new one does.
    pub now: Vec<String>,
}

/// Gathers what both make of one message after another.
#[derive(Debug, Default)]
pub struct Gathered {
    /// How long each call took.
    took: (Vec<Duration>, Vec<Duration>),
    /// Those of messages that the live build takes.
    new_failures: u64,
    mended: u64,
    differing: u64,
    differences: Vec<Difference>,
    /// A message that the new build is at: topic, payload, and what the live one made of it.
    under_way: Option<(String, Vec<u8>, Side)>,
}

/// What one build made of a message.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) failed: bool,
    pub(super) took: Duration,
    /// What would be sent, or why not.
    pub(super) lines: Vec<String>,
}

impl Gathered {
    pub(super) fn add(&mut self, topic: &str, payload: &[u8], before: Side, now: Side) {
        self.took.0.push(before.took);
        self.took.1.push(now.took);
        self.new_failures += u64::from(now.failed && !before.failed);
        self.mended += u64::from(before.failed && !now.failed);
        if before.lines == now.lines {
            return;
        }
        self.differing += 1;
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(Difference {
                topic: topic.to_owned(),
                payload: String::from_utf8_lossy(payload).chars().take(MAX_TEXT).collect(),
                before: cut(before.lines),
                now: cut(now.lines),
            });
        }
    }

    /// The live build did its part of a message; the new one is at it.
    pub(super) fn began(&mut self, topic: &str, payload: &[u8], before: Side) {
        self.under_way = Some((topic.to_owned(), payload.to_vec(), before));
    }

    /// The new one did its part.
    pub(super) fn ended(&mut self, now: Side) {
        if let Some((topic, payload, before)) = self.under_way.take() {
            self.add(&topic, &payload, before, now);
        }
    }

    /// The time is over: where the new build is at a message, it failed at it.
    pub(super) fn cut(&mut self, after: Duration) {
        let lines = vec![format!("failed: it was not done with it when {after:?} were over")];
        self.ended(Side { failed: true, took: after, lines });
    }

    /// Nothing was tried.
    pub(super) fn is_empty(&self) -> bool {
        self.took.0.is_empty()
    }

    /// What both came to.
    fn sums(&self) -> (Sum, Sum) {
        let calls = u64::try_from(self.took.0.len()).unwrap_or(u64::MAX);
        let sum = |took: &Vec<Duration>, failures| Sum { calls, failures, busy: undisturbed(took.clone()) };
        (sum(&self.took.0, 0), sum(&self.took.1, self.new_failures))
    }

    pub(super) fn worse(&self, tolerance: Tolerance) -> Option<Worse> {
        let (before, now) = self.sums();
        let slowdown = if now.calls < MIN_TIMED { f64::INFINITY } else { tolerance.slowdown };
        compare(before, now, Tolerance { slowdown, ..tolerance })
    }

    /// What it came to; the two builds by their digests, and why the new one is refused.
    #[must_use]
    pub fn report(self, before: String, now: String, refused: Option<String>) -> Report {
        let (then, new) = self.sums();
        let mean = |sum: Sum| if sum.calls == 0 { 0.0 } else { sum.busy.as_secs_f64() * 1e6 / calls(sum) };
        Report {
            before,
            now,
            messages: new.calls,
            new_failures: new.failures,
            mended: self.mended,
            differing: self.differing,
            before_us: mean(then),
            now_us: mean(new),
            refused,
            differences: self.differences,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred messages")]
fn calls(sum: Sum) -> f64 {
    sum.calls as f64
}

impl Report {
    /// For people: what differed, with `-` before what the live build made and `+` before what the new one makes.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_of("messages")
    }

    /// The same, where they are called something else.
    #[must_use]
    pub fn text_of(&self, what: &str) -> String {
        let mut text = format!(
            "{} {what}: {} new failures, {} mended, {} differ; a call takes {:.0} µs, {:.0} µs before\n",
            self.messages, self.new_failures, self.mended, self.differing, self.now_us, self.before_us
        );
        for Difference { topic, payload, before, now } in &self.differences {
            let _ = writeln!(text, "\n  {topic} {}", one_line(payload));
            for (mark, lines) in [('-', before), ('+', now)] {
                for line in lines {
                    let _ = writeln!(text, "{mark} {}", one_line(line));
                }
            }
        }
        let shown = u64::try_from(self.differences.len()).unwrap_or(u64::MAX);
        if self.differing > shown {
            let _ = writeln!(text, "\n{} more differ", self.differing - shown);
        }
        if let Some(refused) = &self.refused {
            let _ = writeln!(text, "\nrefused: {refused}");
        }
        text
    }
}

/// What came from outside may hold lines of its own, which would read as the report's.
fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

fn cut(lines: Vec<String>) -> Vec<String> {
    let rest = lines.len().saturating_sub(MAX_LINES);
    let mut kept: Vec<String> =
        lines.into_iter().take(MAX_LINES).map(|line| line.chars().take(MAX_TEXT).collect()).collect();
    if rest > 0 {
        kept.push(format!("and {rest} more"));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_few_messages_nothing_is_said_about_their_time_and_all_about_their_failures() {
        let side = |took, failed| Side { failed, took: Duration::from_millis(took), lines: Vec::new() };
        let worse = |messages, failed| {
            let mut gathered = Gathered::default();
            (0..messages).for_each(|_| gathered.add("t", b"{}", side(1, false), side(100, failed)));
            gathered.worse(Tolerance { new_failures: 0.0, slowdown: 5.0 })
        };
        assert_eq!(worse(MIN_TIMED - 1, false), None);
        assert!(matches!(worse(MIN_TIMED, false), Some(Worse::Slow { .. })));
        assert!(matches!(worse(1, true), Some(Worse::Failures { .. })));
    }
}
