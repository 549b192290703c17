//! The contract with the back end, downlink: one JSON object per list entry, published byte for byte, or with another
//! `payload` and nothing else changed.

use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::{self, JsonError};
use crate::topic::{self, TargetError};

/// A command as the back end pushed it, and where its `payload` stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The machine: one level of a topic.
    pub target: String,
    /// What it is to do; empty where the entry has no `command`.
    pub name: String,
    /// The back end's name for it; empty where it has none.
    pub message_id: String,
    /// Until when it may be sent, where it says so itself.
    pub expires: Option<Expires>,
    raw: Bytes,
    payload: Option<Range<usize>>,
}

/// Until when a command may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    /// `expires_at`: RFC 3339, or seconds since 1970.
    At(Timestamp),
    /// `expires_in`: seconds, from when the gateway took it.
    In(Duration),
}

/// Why an entry of the list is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not JSON that every machine can read.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Not an object, or a field twice.
    #[error("not a command: {0}; it must be an object with `target`, `command`, `payload` and `message_id`")]
    Shape(String),
    /// A field that must be a string is none.
    #[error("`{field}` is {found}; it must be a string")]
    NotAString {
        /// Its name.
        field: &'static str,
        /// Its JSON text, shortened.
        found: String,
    },
    /// `expires_at` or `expires_in` says nothing.
    #[error("`{field}` is {found}; it must be {expected}")]
    Expires {
        /// Its name.
        field: &'static str,
        /// Its JSON text, shortened.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// It names no machine.
    #[error(transparent)]
    Target(#[from] TargetError),
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    target: Option<&'a RawValue>,
    #[serde(borrow)]
    command: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_at: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
}

/// A payload of `null` is there: told from one that is left out, so that it is replaced and not written twice.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// How an entry that is no command names itself, as far as it can be read: its `target` and its `message_id`, else empty.
#[must_use]
pub fn named(raw: &[u8]) -> (String, String) {
    let value: serde_json::Value = serde_json::from_slice(raw).unwrap_or_default();
    let text = |name: &str| value[name].as_str().unwrap_or_default().chars().take(128).collect();
    (text("target"), text("message_id"))
}

impl Command {
    /// Reads an entry. What is checked here is what the host itself needs: where it goes, and that it is JSON; the rest is
    /// the validator's.
    ///
    /// # Errors
    /// [`CommandError`] says what is wrong with it.
    pub fn parse(raw: Bytes) -> Result<Self, CommandError> {
        let text = json::check(&raw)?;
        // A derived struct would take an array for its fields in order.
        if !text.trim_start().starts_with('{') {
            return Err(CommandError::Shape("it is no object".to_owned()));
        }
        let written: Written<'_> =
            serde_json::from_str(text).map_err(|error| CommandError::Shape(error.to_string()))?;
        let target = string("target", written.target)?;
        topic::check_target(&target)?;
        let name = string("command", written.command)?;
        let message_id = string("message_id", written.message_id)?;
        let expires = match (written.expires_at, written.expires_in) {
            (Some(at), _) => Some(Expires::At(expires_at(at)?)),
            (None, Some(seconds)) => Some(Expires::In(expires_in(seconds)?)),
            (None, None) => None,
        };
        let payload = written.payload.map(|value| {
            let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
            start..start + value.get().len()
        });
        Ok(Self { target, name, message_id, expires, payload, raw })
    }

    /// The JSON text of its `payload`; empty where it has none.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.payload.clone().map_or_else(Bytes::new, |range| self.raw.slice(range))
    }

    /// The entry as it was pushed.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// What is published: the entry byte for byte where `payload` is what came in, else the entry with it replaced.
    ///
    /// # Errors
    /// [`JsonError`], where the validator's payload is not JSON that every machine can read.
    pub fn body(&self, payload: &Bytes) -> Result<Bytes, JsonError> {
        if *payload == self.payload() {
            return Ok(self.raw.clone());
        }
        json::check(payload)?;
        let mut out = BytesMut::with_capacity(self.raw.len() + payload.len() + 16);
        if let Some(range) = &self.payload {
            out.extend_from_slice(&self.raw[..range.start]);
            out.extend_from_slice(payload);
            out.extend_from_slice(&self.raw[range.end..]);
        } else {
            // Invariant: an object without `payload` has a `target`, so there is a field to put a comma after.
            let end = self.raw.iter().rposition(|&byte| byte == b'}').unwrap_or(self.raw.len());
            out.extend_from_slice(&self.raw[..end]);
            out.extend_from_slice(br#","payload":"#);
            out.extend_from_slice(payload);
            out.extend_from_slice(&self.raw[end..]);
        }
        Ok(out.freeze())
    }
}

fn string(field: &'static str, value: Option<&RawValue>) -> Result<String, CommandError> {
    let Some(value) = value else { return Ok(String::new()) };
    serde_json::from_str(value.get())
        .map_err(|_| CommandError::NotAString { field, found: value.get().chars().take(64).collect() })
}

fn expires_at(value: &RawValue) -> Result<Timestamp, CommandError> {
    let text = value.get();
    let read = match serde_json::from_str::<&str>(text) {
        Ok(text) => text.parse().ok(),
        Err(_) => text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok()),
    };
    read.ok_or_else(|| CommandError::Expires {
        field: "expires_at",
        found: text.chars().take(64).collect(),
        expected: "a time such as \"2026-04-14T09:00:00+08:00\", or seconds since 1970",
    })
}

fn expires_in(value: &RawValue) -> Result<Duration, CommandError> {
    let seconds = value.get().parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| CommandError::Expires {
        field: "expires_in",
        found: value.get().chars().take(64).collect(),
        expected: "a number of seconds from 0",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Command, CommandError> {
        Command::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn what_is_no_command_is_named_as_far_as_it_can_be_read() {
        let both = |target: &str, id: &str| (target.to_owned(), id.to_owned());
        assert_eq!(named(br#"{"target":"A/B","command":"reboot","message_id":"corr-1"}"#), both("A/B", "corr-1"));
        assert_eq!(named(br#"{"target":7,"message_id":"corr-1"}"#), both("", "corr-1"));
        assert_eq!(named(b"[1"), both("", ""));
    }

    #[test]
    fn reads_the_contract() {
        let text = r#"{"target":"M-001","command":"dispense","payload":{"slot_no":5},"message_id":"MSG_1"}"#;
        let command = parse(text).expect("a command");
        assert_eq!((command.target.as_str(), command.name.as_str()), ("M-001", "dispense"));
        assert_eq!(command.payload(), r#"{"slot_no":5}"#);
        assert_eq!(command.body(&command.payload()).expect("JSON"), text);
    }

    #[test]
    fn another_payload_changes_nothing_else() {
        let command = parse(r#" {"x": 1.0, "payload" : [] ,"target":"M-1","message_id":"1"} "#).expect("a command");
        let body = command.body(&Bytes::from_static(br#"{"a":12.30}"#)).expect("JSON");
        assert_eq!(body, r#" {"x": 1.0, "payload" : {"a":12.30} ,"target":"M-1","message_id":"1"} "#);
        let without = parse(r#"{"target":"M-1"}"#).expect("a command");
        assert_eq!(without.payload(), "");
        assert_eq!(without.body(&Bytes::from_static(b"[]")).expect("JSON"), r#"{"target":"M-1","payload":[]}"#);
        assert!(without.body(&Bytes::from_static(b"[")).is_err());
    }

    #[test]
    fn a_payload_of_null_is_replaced_and_not_written_twice() {
        let command = parse(r#"{"target":"M-1","payload":null}"#).expect("a command");
        assert_eq!(command.payload(), "null");
        assert_eq!(command.body(&Bytes::from_static(b"[]")).expect("JSON"), r#"{"target":"M-1","payload":[]}"#);
    }

    #[test]
    fn reads_until_when_it_may_be_sent() {
        let expires = |text: &str| parse(&format!(r#"{{"target":"a",{text}}}"#)).expect("a command").expires;
        let at = Some(Expires::At(Timestamp::from_second(1_776_128_400).expect("a time")));
        assert_eq!(expires(r#""expires_at":"2026-04-14T09:00:00+08:00""#), at);
        assert_eq!(expires(r#""expires_at":1776128400,"expires_in":5"#), at);
        assert_eq!(expires(r#""expires_in":1.5"#), Some(Expires::In(Duration::from_millis(1500))));
        assert_eq!(expires(r#""expires_in":null"#), None);
        assert_eq!(expires(r#""x":1"#), None);
        for wrong in [r#""expires_at":"soon""#, r#""expires_at":[]"#, r#""expires_in":"5""#, r#""expires_in":-1"#] {
            refused(&format!(r#"{{"target":"a",{wrong}}}"#), "it must be a");
        }
    }

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let error = parse(text).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn refuses_with_the_reason() {
        refused("", "not JSON");
        refused("[]", "it is no object");
        refused(r#"["M-1","reboot",[],"x"]"#, "it is no object");
        refused(r#"{"command":"reboot"}"#, "`target` is empty");
        refused(r#"{"target":5}"#, "`target` is 5; it must be a string");
        refused(r#"{"target":null}"#, "`target` is empty");
        refused(r#"{"target":"a/b"}"#, "`target` holds /");
        refused(r#"{"target":"a","target":"b"}"#, "duplicate field");
        refused(r#"{"target":"a","message_id":12}"#, "`message_id` is 12");
        refused(r#"{"target":"a","x":"\ud800"}"#, "hex escape");
    }
}
