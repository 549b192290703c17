//! The envelope: JSON whatever stands in it, with the payload's own bytes.

use serde::Deserialize;
use serde_json::value::RawValue;
use sluicegate_core::envelope::EnvelopeWriter;
use sluicegate_core::json;

use super::halves;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: String,
    serial_no: String,
    #[serde(borrow)]
    payload: &'a RawValue,
    received_at: String,
}

/// Two texts, with NUL between them: a serial number (and type), and a payload.
///
/// # Panics
/// Where another reader finds another envelope than was written.
pub fn envelope(bytes: &[u8]) {
    let (serial_no, payload) = halves(bytes);
    let serial_no = String::from_utf8_lossy(serial_no);
    let Ok(text) = json::check(payload) else { return };
    let written = EnvelopeWriter::new(&serial_no).write(&serial_no, payload, "2026-04-14T09:00:00+08:00");
    let read: Envelope<'_> = serde_json::from_slice(&written).expect("an envelope is JSON with its four fields");
    assert_eq!((read.kind.as_str(), read.serial_no.as_str()), (&*serial_no, &*serial_no));
    assert_eq!(read.received_at, "2026-04-14T09:00:00+08:00");
    assert_eq!(read.payload.get(), text.trim_matches([' ', '\t', '\n', '\r']), "the payload's own bytes");
}
