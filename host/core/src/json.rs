//! Whether a payload is JSON that every back end can read: the host embeds its bytes as they came, so they are walked once.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// How deep arrays and objects may be nested. PHP reads 512 levels, others fewer; no machine's message needs more than this.
pub const MAX_DEPTH: usize = 64;

/// Why a text is not JSON that every back end can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// JSON text is UTF-8 (RFC 8259, section 8.1).
    #[error("not UTF-8 from byte {at}")]
    NotUtf8 {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// Not the grammar of RFC 8259, nested too deeply, a surrogate without its partner, or a number out of range.
    #[error("not JSON: {0}")]
    Invalid(String),
}

/// Walks a text: UTF-8, RFC 8259's grammar, at most [`MAX_DEPTH`] levels, surrogates paired.
///
/// # Errors
/// [`JsonError`] says what is wrong and where.
pub fn check(text: &[u8]) -> Result<&str, JsonError> {
    let text = std::str::from_utf8(text).map_err(|error| JsonError::NotUtf8 { at: error.valid_up_to() })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    Level { left: MAX_DEPTH }.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| {
        let said = error.to_string();
        // In the library's words it is the end of an escape that never began.
        let alone = if said.contains("hex escape") { "half of a surrogate pair: " } else { "" };
        JsonError::Invalid(format!("{alone}{said}"))
    })?;
    Ok(text)
}

/// A value, and how many levels it may still open. Strings are decoded on the way, which is what finds a lone surrogate.
#[derive(Clone, Copy)]
struct Level {
    left: usize,
}

impl Level {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left }),
            None => Err(E::custom(format_args!("nested more than {MAX_DEPTH} deep"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let below = self.deeper()?;
        while items.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let below = self.deeper()?;
        while entries.next_key_seed(Key)?.is_some() {
            entries.next_value_seed(below)?;
        }
        Ok(())
    }
}

/// A key: decoded and dropped.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<(), E> {
        // PHP's json_decode into objects refuses a property whose name begins with NUL.
        if key.starts_with('\0') { Err(E::custom("a key begins with NUL")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(text: &str) {
        assert_eq!(check(text.as_bytes()), Ok(text));
    }

    #[track_caller]
    fn bad(text: &[u8], part: &str) {
        let error = check(text).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn takes_what_every_back_end_reads() {
        good(r#"{"a":12.30,"b":9007199254740993,"c":[],"d":"\ud83d\ude00","e":null}"#);
        good(" [1, 2.0e3 , true]\n");
        good(&"123456789".repeat(9));
        good(&format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)));
    }

    #[test]
    fn refuses_what_some_parser_chokes_on() {
        bad(b"{\"a\":\"\xff\"}", "not UTF-8 from byte 6");
        bad(br#"{"a":"\ud83d"}"#, "hex escape");
        bad(br#"{"a":"\ude00"}"#, "surrogate");
        bad(br#"{"\ud83d":1}"#, "hex escape");
        bad(br#"{"\u0000a":1}"#, "NUL");
        bad(b"", "EOF");
        bad(b"{\"a\":1}x", "trailing");
        bad(b"{'a':1}", "key must be a string");
        bad(b"NaN", "expected");
        bad(b"1e999", "out of range");
        bad(b"[1,]", "trailing comma");
        bad(format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1)).as_bytes(), "nested more than 64");
        bad("[".repeat(100_000).as_bytes(), "nested more than 64");
    }
}
