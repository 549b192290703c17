//! The contract with the back end, downlink: one JSON object per list entry, published byte for byte, or with another
//! `payload` and nothing else changed.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
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
    raw: Bytes,
    payload: Option<Range<usize>>,
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
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    message_id: Option<&'a RawValue>,
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
        let payload = written.payload.map(|value| {
            let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
            start..start + value.get().len()
        });
        Ok(Self { target, name, message_id, payload, raw })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Command, CommandError> {
        Command::parse(Bytes::copy_from_slice(text.as_bytes()))
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
