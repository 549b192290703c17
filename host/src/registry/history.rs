//! What changed: the last hundred builds that went live, were refused, or left with their plugin, and who wanted it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Step;

/// Changes that are remembered.
const MOST: usize = 100;

/// What was to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A build was to go live.
    Load,
    /// The build before was to go live again.
    Rollback,
    /// The plugin was to leave the settings.
    Remove,
}

/// Who wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// The plugin's file changed.
    File,
    /// The admin API was asked, or the command line, which asks it.
    Api,
    /// The settings changed.
    Settings,
    /// The gateway started.
    Start,
    /// The gateway itself, since the live build did worse than the one before.
    Rollback,
    /// The gateway itself, by how a canary did.
    Canary,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The build is live.
    Live,
    /// It serves some machines before it serves all.
    Canary,
    /// It did, and does not any more; what was live serves all.
    Withdrawn,
    /// It is not; what was live goes on.
    Refused,
    /// No build of the plugin is live any more.
    Removed,
}

/// One change, or what was to be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When it ended.
    pub at: Timestamp,
    /// The settings' name of the plugin.
    pub plugin: String,
    /// What was to be done.
    pub what: What,
    /// What was live.
    pub from: Option<Digest>,
    /// What was to be; none: the file could not be read, or nothing was to be.
    pub to: Option<Digest>,
    /// How it ended.
    pub outcome: Outcome,
    /// The step at which.
    pub step: Step,
    /// Why it was refused or withdrawn.
    pub reason: Option<String>,
    /// Who wanted it.
    pub who: Who,
}

impl Change {
    /// Whether it went back to the build before.
    #[must_use]
    pub fn is_rollback(&self) -> bool {
        self.what == What::Rollback && self.outcome == Outcome::Live
    }

    /// Whether it says what the other one says, at another time: a start finds the bad file of the start before, or its canary; a build that is to
    /// come back is refused again.
    fn repeats(&self, other: &Self) -> bool {
        (self.who == Who::Start || self.who == Who::Rollback)
            && matches!(self.outcome, Outcome::Refused | Outcome::Canary)
            && self.outcome == other.outcome
            && (self.to, self.step, &self.reason) == (other.to, other.step, &other.reason)
    }
}

/// The last of them, the newest at the end.
///
/// The lock is held for a copy only, never across a wait.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Change>>);

impl History {
    fn changes(&self) -> MutexGuard<'_, VecDeque<Change>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an earlier run knew goes before what this one knows.
    pub(super) fn restore(&self, earlier: Vec<Change>) {
        let mut changes = self.changes();
        for change in earlier.into_iter().rev() {
            changes.push_front(change);
        }
        shorten(&mut changes);
    }

    pub(super) fn add(&self, change: Change) {
        let mut changes = self.changes();
        let last = changes.iter().rev().find(|other| other.plugin == change.plugin);
        if last.is_some_and(|last| change.repeats(last)) {
            return;
        }
        changes.push_back(change);
        shorten(&mut changes);
    }

    /// All of them, or one plugin's; the newest first.
    #[must_use]
    pub fn of(&self, plugin: Option<&str>) -> Vec<Change> {
        let wanted = |change: &&Change| plugin.is_none_or(|plugin| change.plugin == plugin);
        self.changes().iter().rev().filter(wanted).cloned().collect()
    }

    /// All of them, the newest at the end.
    pub(super) fn all(&self) -> Vec<Change> {
        self.changes().iter().cloned().collect()
    }
}

fn shorten(changes: &mut VecDeque<Change>) {
    let surplus = changes.len().saturating_sub(MOST);
    changes.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u8, who: Who, outcome: Outcome) -> Change {
        Change {
            at: Timestamp::from_second(i64::from(number)).expect("a time"),
            plugin: "guest".to_owned(),
            what: What::Load,
            from: None,
            to: Some(Digest([number; 32])),
            outcome,
            step: Step::Live,
            reason: None,
            who,
        }
    }

    #[test]
    fn the_last_hundred_are_kept_and_a_start_repeats_nothing() {
        let history = History::default();
        for number in 0..=120 {
            history.add(change(number, Who::File, Outcome::Live));
        }
        assert_eq!(history.all().len(), MOST);
        assert_eq!(history.of(None)[0].to, Some(Digest([120; 32])));
        assert_eq!(history.of(Some("another")), []);
        history.add(change(7, Who::Start, Outcome::Refused));
        history.add(Change { at: Timestamp::MAX, ..change(7, Who::Start, Outcome::Refused) });
        assert_eq!((history.of(None)[0].at.as_second(), history.of(None)[1].to), (7, Some(Digest([120; 32]))));
        // Nor does a build that cannot come back.
        (0..3).for_each(|_| history.add(change(8, Who::Rollback, Outcome::Refused)));
        assert_eq!((history.of(None)[0].to, history.of(None)[1].to), (Some(Digest([8; 32])), Some(Digest([7; 32]))));
        history.restore(vec![change(1, Who::File, Outcome::Live)]);
        assert_eq!((history.all().len(), history.all()[0].to), (MOST, Some(Digest([23; 32]))));
    }

    #[test]
    fn what_is_written_is_read() {
        let change = change(1, Who::Start, Outcome::Refused);
        let text = serde_json::to_string(&change).expect("JSON");
        assert_eq!(serde_json::from_str::<Change>(&text).expect("a change"), change);
    }
}
