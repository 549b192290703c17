//! Numbers of money and of measurement, as text: a binary fraction cannot hold 12.30.

use std::fmt;

/// A decimal number without an exponent: a sign, digits, a point where there is a fraction. The digits are those that were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    text: String,
    integer: usize,
    scale: usize,
}

/// More digits than any column holds, so that `1e999999999` makes no text of that length.
const MAX_DIGITS: usize = 128;

impl Decimal {
    /// Reads what JSON calls a number (RFC 8259, section 6); none: it is no number, or one of more than 128 digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], rest[at + 1..].parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) || !digits(whole) || !digits(fraction) {
            return None;
        }
        // The point moves through the digits.
        let all = format!("{whole}{fraction}");
        let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
        let most = i64::try_from(MAX_DIGITS).ok()?;
        if point.abs() > most || all.len() > MAX_DIGITS {
            return None;
        }
        let (whole, fraction) = match usize::try_from(point) {
            Ok(point) if point >= all.len() => (format!("{all:0<point$}"), String::new()),
            Ok(point) if point > 0 => (all[..point].to_owned(), all[point..].to_owned()),
            _ => (String::new(), format!("{}{all}", "0".repeat(usize::try_from(-point).ok()?))),
        };
        let whole = whole.trim_start_matches('0');
        let zero = whole.is_empty() && fraction.bytes().all(|byte| byte == b'0');
        let sign = if negative && !zero { "-" } else { "" };
        let shown = if whole.is_empty() { "0" } else { whole };
        let text = if fraction.is_empty() { format!("{sign}{shown}") } else { format!("{sign}{shown}.{fraction}") };
        // What a column must have room for: noughts at the end say nothing.
        let scale = fraction.trim_end_matches('0').len();
        Some(Self { text, integer: whole.len(), scale })
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a column of `precision` digits, `scale` of them behind the point, holds it as it is.
    #[must_use]
    pub fn fits(&self, precision: usize, scale: usize) -> bool {
        self.scale <= scale && self.integer + scale <= precision
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn reads(text: &str, shown: &str) {
        assert_eq!(Decimal::parse(text).expect("a number").as_str(), shown);
    }

    #[test]
    fn keeps_the_digits_that_were_sent() {
        reads("12.30", "12.30");
        reads("0.1", "0.1");
        reads("-0.50", "-0.50");
        reads("-0", "0");
        reads("9007199254740993", "9007199254740993");
        reads("0.000000000000000000001", "0.000000000000000000001");
    }

    #[test]
    fn moves_the_point_of_an_exponent() {
        reads("1e2", "100");
        reads("1.25E1", "12.5");
        reads("12.5e-3", "0.0125");
        reads("1.5e+1", "15");
        reads("0e5", "0");
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", "-", ".5", "5.", "01", "1e", "1e1.5", "+1", "NaN", "1 ", "0x1", "1e999999999999999999999"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
        assert_eq!(Decimal::parse("1e999"), None);
        assert_eq!(Decimal::parse(&"1".repeat(MAX_DIGITS + 1)), None);
    }

    #[test]
    fn a_column_holds_what_it_has_digits_for() {
        let fits = |text: &str| Decimal::parse(text).expect("a number").fits(10, 2);
        assert!(fits("12345678.90") && fits("0.50") && fits("12.3000"));
        assert!(!fits("123456789") && !fits("12.305"));
    }

    proptest! {
        #[test]
        fn any_integer_with_any_fraction_is_itself(whole in 0_u64.., fraction in "[0-9]{1,20}") {
            let text = format!("{whole}.{fraction}");
            prop_assert_eq!(Decimal::parse(&text).map(|read| read.to_string()), Some(text));
        }

        #[test]
        fn any_text_is_a_number_or_none(text in ".*") {
            let _ = Decimal::parse(&text);
        }
    }
}
