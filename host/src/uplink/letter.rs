//! What becomes a dead letter, and what stands in it.

use bytes::Bytes;
use jiff::Timestamp;
use sluicegate_core::dead_letter::{DeadLetter, Kind, text_or_base64};
use sluicegate_core::message::Field;
use sluicegate_core::settings::UtcOffset;
use sluicegate_core::spooled::{Entry, Job};

use super::chain::Failed;
use crate::telemetry::clock;

/// A message that no attempt could process.
pub(super) struct Letter<'a> {
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
    pub received_at: Timestamp,
    /// Its user properties.
    pub properties: &'a [Field],
    /// What came.
    pub payload: &'a Bytes,
}

impl Letter<'_> {
    /// For the list of dead letters; `route` counts it.
    #[must_use]
    pub(super) fn job(&self, route: Option<&str>, zone: UtcOffset) -> Job {
        let (payload, payload_base64) = text_or_base64(self.payload);
        let by = self.failed.filter(|failed| !failed.plugin.is_empty());
        let properties = self.properties.iter().map(|field| (field.name.as_str().into(), field.value.as_str().into()));
        let letter = DeadLetter {
            kind: Kind::Message,
            reason: self.reason.into(),
            route: self.route.map(Into::into),
            topic: Some(self.topic.into()),
            serial_no: self.serial_no.map(Into::into),
            plugin: by.map(|failed| failed.plugin.as_str().into()),
            plugin_version: by.map(|failed| failed.version.as_str().into()),
            attempts: self.attempts,
            received_at: clock::rfc3339(self.received_at, zone).into(),
            dead_at: Some(clock::rfc3339(clock::now(), zone).into()),
            properties: properties.collect(),
            payload: payload.map(Into::into),
            payload_base64: payload_base64.map(Into::into),
        };
        let entry = Entry { value: letter.to_json().into(), once: None };
        Job { route: route.map(Into::into), dead: true, entries: vec![entry] }
    }
}
