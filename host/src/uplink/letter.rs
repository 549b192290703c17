//! What becomes a dead letter, and what stands in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sluicegate_core::dead_letter::{DeadLetter, Kind};

use sluicegate_core::spooled::{Entry, Job};

use crate::uplink::chain::Failed;

/// A message that no attempt could process.
pub struct Letter<'a> {
    /// Why.
    pub reason: &'a str,
    /// The route that took it.
    pub route: Option<&'a str>,
    /// Its topic.
    pub topic: &'a str,
    /// Its machine, as the topic names it.
    pub serial_no: Option<&'a str>,
    /// The handler that refused it.
    pub failed: Option<&'a Failed>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was received.
    pub received_at: &'a str,
    /// What came.
    pub payload: &'a Bytes,
}

impl Letter<'_> {
    /// For the list of dead letters; `route` counts it.
    #[must_use]
    pub fn job(&self, route: Option<&str>) -> Job {
        let (payload, payload_base64) = text_or_base64(self.payload);
        let by = self.failed.filter(|failed| !failed.plugin.is_empty());
        let letter = DeadLetter {
            kind: Kind::Message,
            reason: self.reason,
            route: self.route,
            topic: Some(self.topic),
            serial_no: self.serial_no,
            plugin: by.map(|failed| failed.plugin.as_str()),
            plugin_version: by.map(|failed| failed.version.as_str()),
            attempts: self.attempts,
            received_at: self.received_at,
            payload,
            payload_base64,
        };
        let entry = Entry { value: letter.to_json().into(), once: None };
        Job { route: route.map(Into::into), dead: true, entries: vec![entry] }
    }
}

/// A payload as a dead letter holds it: the text, or base64 where it is not UTF-8.
#[must_use]
pub fn text_or_base64(payload: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(payload) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(payload))),
    }
}
