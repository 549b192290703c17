//! A command's states, and what moves it from one to another.

use std::fmt;

use jiff::Timestamp;

/// The reason of a command that expired by this program's own guess: the only state that something earlier in the list replaces, since whoever knows better
/// was only late.
pub const PRESUMED: &str = "its time was over, and nobody told what became of it";

/// How a command stands. It only ever moves down this list: what is told twice, late or in another order changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is in the database, and in the gateway's list or on the way there.
    Queued,
    /// The broker has it.
    Sent,
    /// Its time was over, or nobody listened, before it could be sent.
    Expired,
    /// The gateway's validator or the machine said no.
    Rejected,
    /// The machine did it.
    Acknowledged,
}

impl State {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Sent, Self::Expired, Self::Rejected, Self::Acknowledged];

    /// Its word, in the database and over HTTP.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Acknowledged => "acknowledged",
        }
    }

    /// Those that may become this one.
    pub fn before(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |state| *state < self)
    }

    /// What a word of the gateway's results means; none: the command stands as it did (`waiting`, `duplicate`).
    ///
    /// # Errors
    /// The word, where the gateway has none like it.
    pub fn of_result(status: &str) -> Result<Option<Self>, String> {
        match status {
            "sent" => Ok(Some(Self::Sent)),
            "expired" | "no-subscriber" => Ok(Some(Self::Expired)),
            "rejected" | "failed" => Ok(Some(Self::Rejected)),
            "waiting" | "duplicate" => Ok(None),
            other => Err(other.to_owned()),
        }
    }

    /// What a word of the machine means. A machine that says nothing but the id has done it.
    ///
    /// # Errors
    /// The word, where it is none of these.
    pub fn of_acknowledgement(status: Option<&str>) -> Result<Self, String> {
        match status {
            None | Some("acknowledged" | "ok" | "done" | "success") => Ok(Self::Acknowledged),
            Some("rejected" | "error" | "failed") => Ok(Self::Rejected),
            Some(other) => Err(other.to_owned()),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Something that moves a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which command.
    pub message_id: String,
    /// Whose it is, as the broker or the gateway has it: nobody moves another machine's.
    pub serial_no: String,
    /// Where to.
    pub state: State,
    /// Why, where somebody said.
    pub reason: Option<String>,
    /// When that was so.
    pub at: Timestamp,
}

/// Of one command's steps in a batch the furthest; the first of its kind, where it was told twice. In the order of their ids, so that two
/// batches never wait for each other's rows.
#[must_use]
pub fn furthest(steps: Vec<Step>) -> Vec<Step> {
    let mut kept: std::collections::BTreeMap<(String, String), Step> = std::collections::BTreeMap::new();
    for step in steps {
        // Another machine may name the same id: it says nothing of this one's command.
        let whose = (step.message_id.clone(), step.serial_no.clone());
        match kept.get(&whose) {
            Some(before) if before.state >= step.state => {}
            _ => {
                kept.insert(whose, step);
            }
        }
    }
    kept.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(id: &str, state: State) -> Step {
        Step { message_id: id.to_owned(), serial_no: "M-1".to_owned(), state, reason: None, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn the_gateways_words_are_states() {
        assert_eq!(State::of_result("sent"), Ok(Some(State::Sent)));
        assert_eq!(State::of_result("no-subscriber"), Ok(Some(State::Expired)));
        assert_eq!(State::of_result("failed"), Ok(Some(State::Rejected)));
        assert_eq!(State::of_result("waiting"), Ok(None));
        assert_eq!(State::of_result("Sent"), Err("Sent".to_owned()));
    }

    #[test]
    fn a_machine_says_yes_or_no() {
        assert_eq!(State::of_acknowledgement(None), Ok(State::Acknowledged));
        assert_eq!(State::of_acknowledgement(Some("failed")), Ok(State::Rejected));
        assert_eq!(State::of_acknowledgement(Some("perhaps")), Err("perhaps".to_owned()));
    }

    #[test]
    fn another_machines_step_hides_none() {
        let other = Step { serial_no: "M-2".to_owned(), ..step("1", State::Acknowledged) };
        let own = step("1", State::Sent);
        assert_eq!(furthest(vec![other.clone(), own.clone()]), [own, other]);
    }

    proptest! {
        /// Whatever is told, how often and in whatever order: where a command ends is the furthest of it.
        #[test]
        fn a_command_ends_at_the_furthest_that_was_told(told in prop::collection::vec((0..3_u8, 0..5_usize), 0..40)) {
            let steps: Vec<Step> =
                told.iter().map(|(id, state)| step(&id.to_string(), State::ALL[*state])).collect();
            let at_once = furthest(steps.clone());
            // One by one, as the statement does it: only from a state before.
            let mut rows = std::collections::BTreeMap::new();
            for step in steps {
                let row = rows.entry(step.message_id).or_insert(State::Queued);
                if step.state.before().any(|before| before == *row) {
                    *row = step.state;
                }
            }
            for step in at_once {
                prop_assert_eq!(rows[&step.message_id], step.state);
            }
        }
    }
}
