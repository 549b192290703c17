//! What a build made of a message, as lines for people.

use crate::uplink::chain::Reason;

/// A job.
pub(super) fn job(payload: &[u8], key: Option<&str>) -> String {
    let payload = String::from_utf8_lossy(payload);
    match key {
        Some(key) => format!("job {payload} (once: {key})"),
        None => format!("job {payload}"),
    }
}

/// A publication.
pub(super) fn publication(topic: &str, payload: &[u8], retain: bool) -> String {
    let retained = if retain { ", retained" } else { "" };
    format!("publishes on {}{retained}: {}", topic.escape_debug(), String::from_utf8_lossy(payload))
}

/// What is to be sent of a command.
pub(super) fn payload(payload: &[u8]) -> String {
    format!("payload {}", String::from_utf8_lossy(payload))
}

/// Why there is nothing of it.
pub(super) fn failed(reason: &Reason) -> String {
    format!("failed: {reason}")
}

/// All that it made, where it made anything.
pub(super) fn or_dropped(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        lines.push("dropped".to_owned());
    }
    lines
}
