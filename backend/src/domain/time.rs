//! Times as a database column holds them: `2026-04-14 01:00:00.000`, in the offset of the settings. Written so, they compare as text too.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// The offset from UTC that the columns are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone(Offset);

impl Zone {
    /// UTC, as Laravel has it unless told otherwise.
    pub const UTC: Self = Self(Offset::UTC);

    /// From minutes east of Greenwich.
    #[must_use]
    pub fn from_minutes(minutes: i16) -> Self {
        // Invariant: settings hold −14:00 to +14:00, all of which exist.
        Self(Offset::from_seconds(i32::from(minutes) * 60).unwrap_or(Offset::UTC))
    }

    /// As a database's session takes it: `+08:00`.
    #[must_use]
    pub fn session(self) -> String {
        let minutes = self.0.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
    }

    /// A time as a column holds it.
    #[must_use]
    pub fn write(self, at: Timestamp) -> String {
        at.to_zoned_datetime(TimeZone::fixed(self.0)).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
    }

    /// Reads what a column holds; none: it is no time.
    #[must_use]
    pub fn read(self, text: &str) -> Option<Timestamp> {
        let written: DateTime = text.parse().ok()?;
        self.0.to_timestamp(written).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let at: Timestamp = "2026-04-14T09:00:00.25+08:00".parse().expect("a time");
        for zone in [Zone::UTC, Zone::from_minutes(480), Zone::from_minutes(-210)] {
            assert_eq!(zone.read(&zone.write(at)), Some(at));
        }
        assert_eq!(Zone::UTC.write(at), "2026-04-14 01:00:00.250");
        assert_eq!(Zone::from_minutes(-210).session(), "-03:30");
        assert_eq!(Zone::UTC.read("2026-04-14 01:00:00"), "2026-04-14T01:00:00Z".parse().ok());
        assert_eq!(Zone::UTC.read("yesterday"), None);
    }
}
