//! The only reader of the wall clock and the only source of chance.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use sluicegate_core::settings::UtcOffset;

/// Now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the clock is read here alone")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Time since this was first asked for: it never jumps.
#[must_use]
pub fn uptime() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// RFC 3339 in whole seconds, as the envelope has it: `2026-04-14T09:00:00+08:00`.
#[must_use]
pub fn rfc3339(at: Timestamp, zone: UtcOffset) -> String {
    format(at, zone, "%Y-%m-%dT%H:%M:%S")
}

/// RFC 3339 with milliseconds, as plugins see it.
#[must_use]
pub fn rfc3339_millis(at: Timestamp, zone: UtcOffset) -> String {
    format(at, zone, "%Y-%m-%dT%H:%M:%S%.3f")
}

fn format(at: Timestamp, zone: UtcOffset, pattern: &str) -> String {
    // Invariant: an offset was checked when the settings were read, so it is one that exists.
    let offset = Offset::from_seconds(i32::from(zone.0) * 60).unwrap_or(Offset::UTC);
    let local = at.to_zoned_datetime(TimeZone::fixed(offset));
    let (sign, minutes) = if zone.0 < 0 { ('-', -zone.0) } else { ('+', zone.0) };
    format!("{}{sign}{:02}:{:02}", local.strftime(pattern), minutes / 60, minutes % 60)
}

/// A random number, for jitter. Not for secrets.
#[must_use]
pub fn chance() -> u32 {
    // Each `RandomState` has keys of its own, which the system's randomness seeded.
    let bits = RandomState::new().build_hasher().finish();
    u32::try_from(bits >> 32).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_configured_offset() {
        let at: Timestamp = "2026-04-14T01:00:00.1239Z".parse().expect("a time");
        assert_eq!(rfc3339(at, UtcOffset(480)), "2026-04-14T09:00:00+08:00");
        assert_eq!(rfc3339(at, UtcOffset(-210)), "2026-04-13T21:30:00-03:30");
        assert_eq!(rfc3339_millis(at, UtcOffset(0)), "2026-04-14T01:00:00.123+00:00");
    }
}
