//! JSON objects read field by field, byte for byte: what is not asked for is not touched, and numbers are not printed anew.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{Failure, reject};

/// How much of a wrong value a reason shows, in characters.
const SHOWN: usize = 64;

/// A JSON object and where its fields stand in the text.
#[derive(Debug)]
pub struct Object<'a> {
    text: &'a str,
    fields: Vec<(String, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Reads a payload that must be a JSON object.
    ///
    /// # Errors
    /// `reject`, where it is something else.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Failure> {
        let Ok(text) = std::str::from_utf8(payload) else {
            return reject("payload: is not UTF-8, must be a JSON object");
        };
        match serde_json::from_str::<Fields<'a>>(text) {
            Ok(Fields(fields)) => Ok(Self { text, fields }),
            Err(error) => reject(format!("payload: was `{}`, must be a JSON object ({error})", shown(text))),
        }
    }

    /// A field; none where it is not there.
    ///
    /// # Errors
    /// `reject`, where it stands there twice: parsers differ in which one they take.
    pub fn optional(&self, name: &'static str) -> Result<Option<Value<'a>>, Failure> {
        let mut found = self.fields.iter().filter(|(field, _)| field == name);
        match (found.next(), found.next()) {
            (_, Some(_)) => reject(format!("{name}: stands there twice, must stand there once")),
            (Some((_, raw)), None) => Ok(Some(Value { name, raw })),
            (None, None) => Ok(None),
        }
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// `reject`, where it is missing or stands there twice.
    pub fn required(&self, name: &'static str) -> Result<Value<'a>, Failure> {
        match self.optional(name)? {
            Some(value) => Ok(value),
            None => reject(format!("{name}: is missing, must be there")),
        }
    }

    /// The text with one value replaced and no other byte changed.
    #[must_use]
    pub fn with(&self, value: &Value<'a>, replacement: &str) -> Vec<u8> {
        let raw = value.raw.get();
        let start = raw.as_ptr() as usize - self.text.as_ptr() as usize;
        [&self.text[..start], replacement, &self.text[start + raw.len()..]].concat().into_bytes()
    }
}

/// A field's value, as it stands in the text.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    name: &'static str,
    raw: &'a RawValue,
}

/// An integer that is not negative, and how it was written. It may be larger than any type of Rust holds: what passes
/// unchanged is the back end's to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integer {
    /// Its digits, without zeros before them.
    pub digits: String,
    /// Whether it stood there as a string of digits.
    pub quoted: bool,
}

impl Integer {
    /// Its value; none where it is larger than this type holds.
    #[must_use]
    pub fn value(&self) -> Option<u64> {
        self.digits.parse().ok()
    }

    fn read(text: &str, least: u64, quoted: bool) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = text.trim_start_matches('0');
        let digits = if digits.is_empty() { "0" } else { digits };
        let integer = Self { digits: digits.to_owned(), quoted };
        // What is too large for the type is larger than any `least`.
        integer.value().is_none_or(|value| value >= least).then_some(integer)
    }
}

impl<'a> Value<'a> {
    /// Its JSON text.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.raw.get()
    }

    /// The failure that says that it is wrong, and what it must be.
    #[must_use]
    pub fn must_be(&self, what: impl fmt::Display) -> Failure {
        Failure::Reject(format!("{}: was `{}`, must be {what}", self.name, shown(self.text())))
    }

    fn is_number(&self) -> bool {
        self.text().starts_with(|c: char| c == '-' || c.is_ascii_digit())
    }

    /// The content, where it is a string.
    fn content(&self) -> Option<String> {
        serde_json::from_str(self.text()).ok()
    }

    /// Any string.
    ///
    /// # Errors
    /// `reject`, for anything else.
    pub fn any_string(&self) -> Result<String, Failure> {
        self.content().ok_or_else(|| self.must_be("a string"))
    }

    /// A string of so many characters.
    ///
    /// # Errors
    /// `reject`, for anything else.
    pub fn string(&self, chars: RangeInclusive<usize>) -> Result<String, Failure> {
        self.content()
            .filter(|content| chars.contains(&content.chars().count()))
            .ok_or_else(|| self.must_be(format_args!("a string of {} to {} characters", chars.start(), chars.end())))
    }

    /// One of these strings.
    ///
    /// # Errors
    /// `reject`, for anything else.
    pub fn one_of(&self, words: &[&str]) -> Result<(), Failure> {
        match self.content() {
            Some(content) if words.contains(&content.as_str()) => Ok(()),
            _ => Err(self.must_be(format_args!("one of {}", words.join(", ")))),
        }
    }

    /// A number within a range.
    ///
    /// # Errors
    /// `reject`, for anything else.
    pub fn number(&self, range: RangeInclusive<f64>) -> Result<f64, Failure> {
        let number = if self.is_number() { self.text().parse::<f64>().ok() } else { None };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.must_be(format_args!("a number from {} to {}", range.start(), range.end())))
    }

    /// An integer that is at least `least`: digits, without fraction or exponent.
    ///
    /// # Errors
    /// `reject`, for anything else.
    pub fn integer(&self, least: u64) -> Result<Integer, Failure> {
        Integer::read(self.text(), least, false)
            .ok_or_else(|| self.must_be(format_args!("an integer of at least {least}")))
    }

    /// Any integer, negative ones too.
    ///
    /// # Errors
    /// `reject`, for anything else.
    pub fn any_integer(&self) -> Result<(), Failure> {
        let text = self.text();
        match Integer::read(text.strip_prefix('-').unwrap_or(text), 0, false) {
            Some(_) => Ok(()),
            None => Err(self.must_be("an integer")),
        }
    }

    /// An integer that is at least `least`, or the same as a string of digits.
    ///
    /// # Errors
    /// `reject`, for anything else.
    pub fn integer_or_digits(&self, least: u64) -> Result<Integer, Failure> {
        let content = self.content();
        Integer::read(content.as_deref().unwrap_or(self.text()), least, content.is_some()).ok_or_else(|| {
            self.must_be(format_args!("an integer of at least {least}, or the same as a string of digits"))
        })
    }

    /// A number that is not negative, or the same as a string. It is looked at as text: an amount never goes through a
    /// float.
    ///
    /// # Errors
    /// `reject`, for anything else.
    pub fn amount(&self) -> Result<(), Failure> {
        let content = self.content();
        let text = content.as_deref().unwrap_or(self.text());
        let unsigned = text.starts_with(|c: char| c.is_ascii_digit());
        // What begins with a digit and is JSON is a number; nothing may stand around it in a string.
        let number = unsigned && text.trim_end().len() == text.len() && serde_json::from_str::<&RawValue>(text).is_ok();
        if number { Ok(()) } else { Err(self.must_be("a number of at least 0, or the same as a string")) }
    }

    /// Whether it is a string.
    #[must_use]
    pub fn is_string(&self) -> bool {
        self.text().starts_with('"')
    }
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    // Quotes are no danger in a reason, and JSON is full of them.
    shown = shown.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}

/// Every field of an object, in order, doubles too.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Entries).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{ "a" : 12.30, "big":9007199254740993, "s":"7", "d":1, "d":2, "n":null }"#;

    fn object() -> Object<'static> {
        Object::parse(TEXT.as_bytes()).expect("an object")
    }

    #[track_caller]
    fn rejected<T: fmt::Debug>(answer: Result<T, Failure>, reason: &str) {
        match answer {
            Err(Failure::Reject(text)) => assert_eq!(text, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replaces_one_value_and_no_other_byte() {
        let object = object();
        let value = object.required("s").expect("there");
        assert_eq!(object.with(&value, "7"), TEXT.replace("\"7\"", "7").into_bytes());
    }

    #[test]
    fn says_which_field_what_it_was_and_what_it_must_be() {
        let object = object();
        rejected(object.optional("d"), "d: stands there twice, must stand there once");
        rejected(object.required("x").map(|_| ()), "x: is missing, must be there");
        let value = |name| object.required(name).expect("there");
        rejected(value("a").integer(0), "a: was `12.30`, must be an integer of at least 0");
        rejected(value("a").string(1..=2), "a: was `12.30`, must be a string of 1 to 2 characters");
        rejected(value("n").number(0.0..=1.0), "n: was `null`, must be a number from 0 to 1");
        assert_eq!(value("big").integer(1).expect("an integer").value(), Some(9_007_199_254_740_993));
        let seven = value("s").integer_or_digits(0).expect("an integer");
        assert_eq!((seven.digits.as_str(), seven.value(), seven.quoted), ("7", Some(7), true));
        assert!(value("a").amount().is_ok());
    }

    #[test]
    fn refuses_what_is_no_object() {
        rejected(Object::parse(b"\xff").map(|_| ()), "payload: is not UTF-8, must be a JSON object");
        for text in ["", "[]", "5", "{\"a\":1", "{\"a\":1} x"] {
            assert!(matches!(Object::parse(text.as_bytes()), Err(Failure::Reject(_))), "{text}");
        }
    }

    #[test]
    fn an_integer_may_be_larger_than_any_type() {
        let text = r#"{"a":9223372036854775808,"b":-9223372036854775808,"c":"00340282366920938463463374607431768211456","d":"0"}"#;
        let object = Object::parse(text.as_bytes()).expect("an object");
        let value = |name| object.required(name).expect("there");
        assert_eq!(value("a").integer(1).expect("an integer").value(), Some(9_223_372_036_854_775_808));
        assert!(value("b").any_integer().is_ok());
        let huge = value("c").integer_or_digits(u64::MAX).expect("an integer");
        assert_eq!((huge.digits.as_str(), huge.value()), ("340282366920938463463374607431768211456", None));
        assert_eq!(value("d").integer_or_digits(0).expect("an integer").digits, "0");
        rejected(value("b").integer(0), "b: was `-9223372036854775808`, must be an integer of at least 0");
        rejected(
            value("a").integer(u64::MAX),
            "a: was `9223372036854775808`, must be an integer of at least 18446744073709551615",
        );
    }

    #[test]
    fn amounts_are_text() {
        let amount = |text: &str| {
            let payload = format!("{{\"x\":{text}}}");
            Object::parse(payload.as_bytes()).and_then(|object| object.required("x")?.amount()).is_ok()
        };
        for good in ["0", "12.30", "\"12.30\"", "99999999999999999999.99", "1e2", "\"0\""] {
            assert!(amount(good), "{good}");
        }
        for bad in
            ["-1", "\"-1\"", "\"\"", "\" 1\"", "\"1 \"", "\"1,5\"", "\"01\"", "null", "true", "[]", "\"1x\"", "\"0x1\""]
        {
            assert!(!amount(bad), "{bad}");
        }
    }
}
