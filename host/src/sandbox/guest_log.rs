//! What a plugin says: bounded and escaped, since it is a stranger's words, and written on the lane's thread.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sluicegate_core::settings::Limits;

use super::bindings::handler::sluicegate::plugin::host::Level;
use crate::telemetry::clock;

/// Where the lines of one build go: so many of them, and so many bytes, in a second, over all lanes.
#[derive(Debug)]
pub(super) struct GuestLog {
    plugin: String,
    max_lines: u32,
    max_bytes: u64,
    /// The second that is counted, since the gateway started.
    second: AtomicU64,
    lines: AtomicU32,
    bytes: AtomicU64,
    left_out: AtomicU32,
}

impl GuestLog {
    pub(super) fn new(plugin: &str, limits: &Limits) -> Self {
        Self {
            plugin: plugin.to_owned(),
            max_lines: limits.log_lines,
            max_bytes: limits.log_bytes.0,
            second: AtomicU64::new(0),
            lines: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            left_out: AtomicU32::new(0),
        }
    }

    /// Writes a line, unless the plugin has had its share of this second.
    pub(super) fn line(&self, level: Level, text: &str) {
        let plugin = &*self.plugin;
        // A newline or an ANSI sequence would forge other lines.
        let text = text.escape_debug();
        let length = text.clone().map(char::len_utf8).sum();
        let (written, left_out) = self.count(clock::uptime().as_secs(), length);
        if left_out > 0 {
            tracing::warn!(target: "sluicegate::plugin", plugin, lines = left_out, "lines were left out: more in a second than limits.log_lines or limits.log_bytes");
        }
        if !written {
            return;
        }
        match level {
            Level::Debug => tracing::debug!(target: "sluicegate::plugin", plugin, "{text}"),
            Level::Info => tracing::info!(target: "sluicegate::plugin", plugin, "{text}"),
            Level::Warn => tracing::warn!(target: "sluicegate::plugin", plugin, "{text}"),
            Level::Error => tracing::error!(target: "sluicegate::plugin", plugin, "{text}"),
        }
    }

    /// Whether one more may be written in this second; and how many were left out of the one before.
    fn count(&self, second: u64, length: usize) -> (bool, u32) {
        // Who was held up since it looked at the clock has no second of its own.
        let before = self.second.fetch_max(second, Ordering::Relaxed);
        let left_out = if before >= second {
            0
        } else {
            self.lines.store(0, Ordering::Relaxed);
            self.bytes.store(0, Ordering::Relaxed);
            self.left_out.swap(0, Ordering::Relaxed)
        };
        let length = length as u64;
        let written = self.lines.fetch_add(1, Ordering::Relaxed) < self.max_lines
            && self.bytes.fetch_add(length, Ordering::Relaxed).saturating_add(length) <= self.max_bytes;
        if !written {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        (written, left_out)
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_core::settings::ByteSize;

    use super::*;

    #[test]
    fn what_is_beyond_its_share_of_a_second_is_left_out_and_counted() {
        let log = GuestLog::new("a", &Limits { log_lines: 200, log_bytes: ByteSize(1_000), ..Limits::default() });
        let written = (0..350).filter(|_| log.count(7, 5).0).count();
        assert_eq!(written, 200);
        assert_eq!(log.count(8, 600), (true, 150));
        assert_eq!(log.count(8, 401), (false, 0));
        assert_eq!(log.count(7, 1), (false, 0), "a second that is over does not come again");
        assert_eq!(log.count(9, 1_000), (true, 2));
        assert_eq!(log.count(9, 1), (false, 0));
        assert_eq!(log.count(10, 1_001), (false, 1));
    }
}
