//! Sizes and offsets, as people write them.

use std::fmt;
use std::time::Duration;

/// A number of bytes; written `64KiB`, `1MiB`, `1GiB` or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.into_iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// An offset from UTC in minutes, −14:00 to +14:00; written `+08:00` or `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UtcOffset(pub i16);

/// Reads `1MiB`, `64KiB`, `10` or `10B`.
#[must_use]
pub(super) fn parse_size(text: &str) -> Option<ByteSize> {
    let (number, unit) = split_number(text)?;
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit).map(ByteSize)
}

/// Reads `10s`, `100ms`, `1h30m`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, 0_u64);
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let unit = match &after[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(unit)?)?;
        rest = &after[end..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(sum))
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// As [`parse_duration`] reads it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    show_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn show_millis(millis: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.into_iter().find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// Reads `+08:00`, `-03:30` or `Z`.
#[must_use]
pub fn parse_offset(text: &str) -> Option<UtcOffset> {
    if text == "Z" {
        return Some(UtcOffset(0));
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |text: &str| if text.len() == 2 { text.parse::<u8>().ok() } else { None };
    let (hours, minutes) = (i16::from(two(hours)?), i16::from(two(minutes)?));
    let offset = hours * 60 + minutes;
    (minutes < 60 && offset <= 14 * 60).then_some(UtcOffset(sign * offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse_size("64KiB"), Some(ByteSize(65_536)));
        assert_eq!(parse_size("10"), Some(ByteSize(10)));
        assert_eq!(
            (parse_size("1MB"), parse_size(""), parse_size("-1"), parse_size("99999999999GiB")),
            (None, None, None, None)
        );
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(
            (parse_duration(""), parse_duration("5"), parse_duration("s"), parse_duration("1w")),
            (None, None, None, None)
        );
        assert_eq!(parse_offset("-03:30"), Some(UtcOffset(-210)));
        assert_eq!(
            (parse_offset("+8:00"), parse_offset("+15:00"), parse_offset("08:00"), parse_offset("+00:60")),
            (None, None, None, None)
        );
    }

    #[test]
    fn shows_as_it_reads() {
        for text in ["1d", "90m", "100ms", "61s"] {
            assert_eq!(show_duration(parse_duration(text).expect("a duration")), text);
        }
        for text in ["1GiB", "3KiB", "7B"] {
            assert_eq!(parse_size(text).expect("a size").to_string(), text);
        }
    }
}
