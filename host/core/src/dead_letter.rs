//! What no attempt could process, with the reason, as it stands in the list of dead letters.

use serde::Serialize;

/// One entry of the list.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter<'a> {
    /// `message` or `command`.
    pub kind: Kind,
    /// Which field, what it was and what it must be; or what the plugin did.
    pub reason: &'a str,
    /// The route that took it.
    pub route: Option<&'a str>,
    /// The topic that it was published on.
    pub topic: Option<&'a str>,
    /// The machine, where known.
    pub serial_no: Option<&'a str>,
    /// The plugin that refused it or failed.
    pub plugin: Option<&'a str>,
    /// Its version.
    pub plugin_version: Option<&'a str>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was received (RFC 3339).
    pub received_at: &'a str,
    /// What came, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<&'a str>,
    /// What came, in base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Kind {
    Message,
    Command,
}

impl DeadLetter<'_> {
    /// Its JSON text.
    ///
    /// # Panics
    /// Never: strings and numbers always serialize.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: strings and numbers serialize")
    }
}
