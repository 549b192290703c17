//! Names for commands: UUIDs of version 7 (RFC 9562, 5.7), which sort by when they were made.

use std::fmt::Write as _;

use jiff::Timestamp;

/// The id of a command that is made at `at`, from random bytes.
#[must_use]
pub fn message_id(at: Timestamp, random: [u8; 10]) -> String {
    let millis = u64::try_from(at.as_millisecond()).unwrap_or_default();
    let mut bytes = [0_u8; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&random);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    bytes.iter().enumerate().fold(String::with_capacity(36), |mut text, (place, byte)| {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_example_of_the_specification() {
        // RFC 9562, A.6: 2022-02-22T19:22:22.000Z.
        let at = Timestamp::from_millisecond(0x017F_22E2_79B0).expect("a time");
        let random = [0x0C, 0xC3, 0x18, 0xC4, 0xDC, 0x0C, 0x0C, 0x07, 0x39, 0x8F];
        assert_eq!(message_id(at, random), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    }
}
