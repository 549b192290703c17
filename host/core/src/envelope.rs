//! The contract with the back end, uplink: one JSON object per list entry. The host writes it; a plugin can change the
//! payload, never who sent it or when.

use bytes::{BufMut, Bytes, BytesMut};

/// What is the same in every envelope of a route: its `type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeWriter {
    head: String,
}

impl EnvelopeWriter {
    /// For a route's `type`.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self { head: format!(r#"{{"type":{},"serial_no":"#, quoted(kind)) }
    }

    /// One envelope. `payload` is JSON text that [`crate::json::check`] has walked; its bytes are embedded as they are.
    #[must_use]
    pub fn write(&self, serial_no: &str, payload: &[u8], received_at: &str) -> Bytes {
        self.write_with(serial_no, payload, received_at, "")
    }

    /// One envelope with the payload as it came, which no handler could take: `passed_through` says so.
    #[must_use]
    pub fn write_passed_through(&self, serial_no: &str, payload: &[u8], received_at: &str) -> Bytes {
        self.write_with(serial_no, payload, received_at, r#","passed_through":true"#)
    }

    fn write_with(&self, serial_no: &str, payload: &[u8], received_at: &str, more: &str) -> Bytes {
        let serial_no = quoted(serial_no);
        let mut out = BytesMut::with_capacity(
            self.head.len() + serial_no.len() + payload.len() + received_at.len() + more.len() + 32,
        );
        out.put_slice(self.head.as_bytes());
        out.put_slice(serial_no.as_bytes());
        out.put_slice(br#","payload":"#);
        out.put_slice(payload);
        out.put_slice(br#","received_at":""#);
        // RFC 3339 holds nothing that JSON escapes.
        out.put_slice(received_at.as_bytes());
        out.put_slice(b"\"");
        out.put_slice(more.as_bytes());
        out.put_slice(b"}");
        out.freeze()
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_contract_word_for_word() {
        let written = EnvelopeWriter::new("heartbeat").write(
            "M-001",
            br#"{"current_page":1,"temperature":25.5}"#,
            "2026-04-14T09:00:00+08:00",
        );
        assert_eq!(
            written,
            r#"{"type":"heartbeat","serial_no":"M-001","payload":{"current_page":1,"temperature":25.5},"received_at":"2026-04-14T09:00:00+08:00"}"#
        );
    }

    #[test]
    fn what_no_handler_took_is_marked() {
        let written = EnvelopeWriter::new("heartbeat").write_passed_through("M-001", b"{}", "t");
        assert_eq!(
            written,
            r#"{"type":"heartbeat","serial_no":"M-001","payload":{},"received_at":"t","passed_through":true}"#
        );
    }

    #[test]
    fn a_serial_number_cannot_break_out() {
        let written = EnvelopeWriter::new("a\"b").write("M\"\\1", b"12.30", "t");
        let read: serde_json::Value = serde_json::from_slice(&written).expect("JSON");
        assert_eq!(read["type"], "a\"b");
        assert_eq!(read["serial_no"], "M\"\\1");
        assert!(written.windows(15).any(|w| w == br#""payload":12.30"#));
    }
}
