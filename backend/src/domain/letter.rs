//! A dead letter of this list: a job that no attempt could process, as it came, and why; and which of them are meant. The Laravel package
//! writes the same.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluicegate_core::dead_letter::{LetterId, bytes_of};

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter<'a> {
    /// What came, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Cow<'a, str>>,
    /// What came, in base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_base64: Option<Cow<'a, str>>,
    /// Which field, what it was and what it must be; or what the database said.
    pub reason: Cow<'a, str>,
    /// How often it was tried.
    pub attempts: u32,
    /// The whole key of the list that it came from.
    pub list: Cow<'a, str>,
    /// Who gave it up.
    pub instance: Cow<'a, str>,
    /// When (RFC 3339).
    pub dead_at: Cow<'a, str>,
}

/// What a job says of itself, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// Its `type`; none: it is a result of a command, or cannot be read.
    pub kind: Option<String>,
    /// Whose it is.
    pub serial_no: Option<String>,
}

impl<'a> Letter<'a> {
    /// Its JSON text.
    ///
    /// # Panics
    /// Never: strings and numbers always serialize.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("invariant: strings and numbers serialize")
    }

    /// Reads an entry of the list, which others may have written.
    ///
    /// # Errors
    /// Where it is no dead letter of this kind.
    pub fn from_json(entry: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(entry)
    }

    /// What came, byte for byte; none: the letter holds no job, or one that is not base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        bytes_of(self.job.as_deref(), self.job_base64.as_deref())
    }

    /// What the job says of itself.
    #[must_use]
    pub fn about(&self) -> About {
        let value = self.bytes().and_then(|job| serde_json::from_slice::<serde_json::Value>(&job).ok());
        let word = |name: &str| value.as_ref().and_then(|value| value[name].as_str()).map(str::to_owned);
        About { kind: word("type"), serial_no: word("serial_no").or_else(|| word("target")) }
    }
}

/// Which letters are meant: those for which all that is said holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// One of these; empty: any.
    pub ids: Vec<LetterId>,
    /// Of this `type`.
    pub kind: Option<String>,
    /// Of this machine.
    pub machine: Option<String>,
    /// The reason contains this, whatever the case of its letters.
    pub reason: Option<String>,
    /// Given up then or later.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Whether it says nothing, so that every letter is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this entry is meant; what is no letter (none) has an id and nothing else.
    #[must_use]
    pub fn matches(&self, id: LetterId, letter: Option<&Letter<'_>>) -> bool {
        let named = self.ids.is_empty() || self.ids.contains(&id);
        let Some(letter) = letter else { return named && Self { ids: self.ids.clone(), ..Self::default() } == *self };
        let about = letter.about();
        let same = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        named
            && same(&self.kind, &about.kind)
            && same(&self.machine, &about.serial_no)
            && self.reason.as_ref().is_none_or(|part| letter.reason.to_lowercase().contains(&part.to_lowercase()))
            && self.since.is_none_or(|since| letter.dead_at.parse::<Timestamp>().is_ok_and(|at| at >= since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluicegate_core::dead_letter::text_or_base64;

    use super::*;

    fn letter() -> Letter<'static> {
        Letter {
            job: Some(r#"{"type":"transaction","serial_no":"M-1"}"#.into()),
            job_base64: None,
            reason: "`amount` is missing".into(),
            attempts: 1,
            list: "mqtt_incoming_jobs".into(),
            instance: "backend-1".into(),
            dead_at: "2026-04-14T01:00:05Z".into(),
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_byte_for_byte(job in prop::collection::vec(any::<u8>(), 0..60), reason in ".*") {
            let (text, base64) = text_or_base64(&job);
            let written = Letter {
                job: text.map(Into::into),
                job_base64: base64.map(Into::into),
                reason: reason.into(),
                ..letter()
            };
            let json = written.to_json();
            let read = Letter::from_json(json.as_bytes()).expect("a letter");
            let bytes = read.bytes().map(Cow::into_owned);
            prop_assert_eq!(bytes.as_ref(), Some(&job));
            prop_assert_eq!(read, written);
        }

        #[test]
        fn any_bytes_are_a_letter_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Letter::from_json(&bytes).map(|letter| letter.about());
        }
    }

    #[test]
    fn all_that_a_filter_says_must_hold() {
        let (letter, id) = (letter(), LetterId::of(b"1"));
        let every = Filter {
            ids: vec![LetterId::of(b"2"), id],
            kind: Some("transaction".into()),
            machine: Some("M-1".into()),
            reason: Some("AMOUNT".into()),
            since: "2026-04-14T01:00:05Z".parse().ok(),
        };
        let holds = |filter: &Filter| filter.matches(id, Some(&letter));
        assert!(holds(&Filter::default()) && Filter::default().is_empty());
        assert!(holds(&every) && !every.is_empty());
        assert!(!holds(&Filter { ids: vec![LetterId::of(b"2")], ..every.clone() }));
        assert!(!holds(&Filter { kind: Some("error".into()), ..every.clone() }));
        assert!(!holds(&Filter { machine: Some("M-2".into()), ..every.clone() }));
        assert!(!holds(&Filter { reason: Some("slot".into()), ..every.clone() }));
        assert!(!holds(&Filter { since: "2026-04-14T01:00:06Z".parse().ok(), ..every }));
        // What cannot be read is named by its id alone.
        assert!(Filter::default().matches(id, None));
        assert!(Filter { ids: vec![id], ..Filter::default() }.matches(id, None));
        assert!(!Filter { kind: Some("error".into()), ..Filter::default() }.matches(id, None));
    }

    #[test]
    fn a_command_s_result_is_its_target_s() {
        let letter = Letter { job: Some(r#"{"message_id":"1","target":"M-7"}"#.into()), ..letter() };
        assert_eq!(letter.about(), About { kind: None, serial_no: Some("M-7".into()) });
    }
}
