//! What no attempt could process, with the reason, as it stands in the list of dead letters; and which of them are meant.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter<'a> {
    /// `message` or `command`.
    pub kind: Kind,
    /// Which field, what it was and what it must be; or what the plugin did.
    pub reason: Cow<'a, str>,
    /// The route that took it.
    pub route: Option<Cow<'a, str>>,
    /// The topic that it was published on.
    pub topic: Option<Cow<'a, str>>,
    /// The machine, where known.
    pub serial_no: Option<Cow<'a, str>>,
    /// The plugin that refused it or failed.
    pub plugin: Option<Cow<'a, str>>,
    /// Its version.
    pub plugin_version: Option<Cow<'a, str>>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was received (RFC 3339); a replay keeps it.
    pub received_at: Cow<'a, str>,
    /// When it was given up (RFC 3339).
    #[serde(default)]
    pub dead_at: Option<Cow<'a, str>>,
    /// The MQTT 5 user properties, in order: name and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// What came, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Cow<'a, str>>,
    /// What came, in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<Cow<'a, str>>,
}

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Kind {
    Message,
    Command,
}

/// A payload as a dead letter holds it: the text, or base64 where it is not UTF-8.
#[must_use]
pub fn text_or_base64(payload: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(payload) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(payload))),
    }
}

/// What [`text_or_base64`] was given; none: there is neither of the two, or one that is not base64.
#[must_use]
pub fn bytes_of<'a>(text: Option<&'a str>, base64: Option<&str>) -> Option<Cow<'a, [u8]>> {
    match (text, base64) {
        (Some(text), _) => Some(Cow::Borrowed(text.as_bytes())),
        (None, Some(base64)) => STANDARD.decode(base64).ok().map(Cow::Owned),
        (None, None) => None,
    }
}

impl<'a> DeadLetter<'a> {
    /// Its JSON text.
    ///
    /// # Panics
    /// Never: strings and numbers always serialize.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: strings and numbers serialize")
    }

    /// Reads an entry of the list, which others may have written too.
    ///
    /// # Errors
    /// Where it is no dead letter.
    pub fn from_json(entry: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(entry)
    }

    /// What came; none: the letter holds no payload, or one that is not base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        bytes_of(self.payload.as_deref(), self.payload_base64.as_deref()).map(Cow::into_owned)
    }

    /// When it was given up, or else received; none: neither is a time.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        self.dead_at.as_ref().unwrap_or(&self.received_at).parse().ok()
    }
}

/// Names an entry of the list: the first 64 bits of its SHA-256, in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(u64);

impl LetterId {
    /// Of an entry.
    #[must_use]
    pub fn of(entry: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(entry).into();
        Self(digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Reads what [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| digits).map(Self)
    }
}

impl Serialize for LetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LetterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "`{}` is no dead letter's id: 16 hexadecimal digits",
                text.escape_debug()
            ))
        })
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which letters are meant: those for which all that is said holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// One of these; empty: any.
    pub ids: Vec<LetterId>,
    /// Of this route.
    pub route: Option<String>,
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

    /// Whether this letter is meant.
    #[must_use]
    pub fn matches(&self, id: LetterId, letter: &DeadLetter<'_>) -> bool {
        let same = |wanted: &Option<String>, found: &Option<Cow<'_, str>>| {
            wanted.as_ref().is_none_or(|wanted| found.as_deref() == Some(wanted.as_str()))
        };
        (self.ids.is_empty() || self.ids.contains(&id))
            && same(&self.route, &letter.route)
            && same(&self.machine, &letter.serial_no)
            && self.reason.as_ref().is_none_or(|part| letter.reason.to_lowercase().contains(&part.to_lowercase()))
            && self.since.is_none_or(|since| letter.at().is_some_and(|at| at >= since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letter() -> DeadLetter<'static> {
        DeadLetter {
            kind: Kind::Message,
            reason: "`slot_no` is 0; it must be 1 or more".into(),
            route: Some("transaction".into()),
            topic: Some("machine/M-1/transaction".into()),
            serial_no: Some("M-1".into()),
            plugin: Some("transaction".into()),
            plugin_version: Some("0.1.0".into()),
            attempts: 1,
            received_at: "2026-04-14T09:00:00+08:00".into(),
            dead_at: Some("2026-04-14T09:00:05+08:00".into()),
            properties: vec![("a".into(), "b".into())],
            payload: Some("{}".into()),
            payload_base64: None,
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(payload in prop::collection::vec(any::<u8>(), 0..60), reason in ".*") {
            let (text, base64) = text_or_base64(&payload);
            let written = DeadLetter {
                reason: reason.into(),
                payload: text.map(Into::into),
                payload_base64: base64.map(Into::into),
                ..letter()
            };
            let json = written.to_json();
            let read = DeadLetter::from_json(&json).expect("a letter");
            let bytes = read.bytes();
            prop_assert_eq!(bytes, Some(payload.clone()));
            prop_assert_eq!(read, written);
        }

        #[test]
        fn any_bytes_are_a_letter_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = DeadLetter::from_json(&bytes).map(|letter| letter.bytes());
            let id = LetterId::of(&bytes);
            prop_assert_eq!(LetterId::parse(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn a_letter_of_an_older_version_has_no_time_of_its_end() {
        let old = r#"{"kind":"command","reason":"r","route":null,"topic":null,"serial_no":null,"plugin":null,
            "plugin_version":null,"attempts":0,"received_at":"2026-04-14T09:00:00+08:00","payload":"[]"}"#;
        let letter = DeadLetter::from_json(old.as_bytes()).expect("a letter");
        assert_eq!((letter.kind, letter.dead_at.as_ref()), (Kind::Command, None));
        assert_eq!(letter.at(), "2026-04-14T01:00:00Z".parse().ok());
    }

    #[test]
    fn all_that_a_filter_says_must_hold() {
        let (letter, id) = (letter(), LetterId::of(b"1"));
        let holds = |filter: &Filter| filter.matches(id, &letter);
        let every = Filter {
            ids: vec![LetterId::of(b"2"), id],
            route: Some("transaction".into()),
            machine: Some("M-1".into()),
            reason: Some("SLOT_NO".into()),
            since: "2026-04-14T01:00:05Z".parse().ok(),
        };
        assert!(holds(&Filter::default()) && Filter::default().is_empty());
        assert!(holds(&every) && !every.is_empty());
        assert!(!holds(&Filter { ids: vec![LetterId::of(b"2")], ..every.clone() }));
        assert!(!holds(&Filter { route: Some("error".into()), ..every.clone() }));
        assert!(!holds(&Filter { machine: Some("M-2".into()), ..every.clone() }));
        assert!(!holds(&Filter { reason: Some("amount".into()), ..every.clone() }));
        assert!(!holds(&Filter { since: "2026-04-14T01:00:06Z".parse().ok(), ..every }));
    }

    #[test]
    fn a_filter_that_is_misspelt_does_not_mean_all() {
        let read = serde_json::from_str::<Filter>;
        let id = LetterId::of(b"1");
        let filter = Filter { ids: vec![id], since: "2026-04-14T01:00:05Z".parse().ok(), ..Filter::default() };
        let json = serde_json::to_string(&filter).expect("JSON");
        assert_eq!(read(&json).expect("a filter"), filter);
        assert!(read(r#"{"maschine":"M-1"}"#).is_err());
        assert!(read(r#"{"ids":["1"]}"#).is_err_and(|error| error.to_string().contains("16 hexadecimal digits")));
    }

    #[test]
    fn an_id_is_sixteen_hexadecimal_digits() {
        assert_eq!(LetterId::parse("00000000000000ff").map(|id| id.to_string()).as_deref(), Some("00000000000000ff"));
        for text in ["", "ff", "+0000000000000ff", "00000000000000fg", "00000000000000ff0"] {
            assert_eq!(LetterId::parse(text), None, "{text}");
        }
    }
}
