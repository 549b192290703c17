//! What a plugin says: bounded and escaped, since it is a stranger's words, and written on the lane's thread.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::bindings::handler::sluicegate::plugin::host::Level;
use crate::telemetry::clock;

/// Lines of one plugin in a second, over all lanes.
const MAX_LINES: u32 = 200;

/// Where the lines of one build go.
#[derive(Debug)]
pub(super) struct GuestLog {
    plugin: String,
    /// The second that is counted, since the gateway started.
    second: AtomicU64,
    lines: AtomicU32,
}

impl GuestLog {
    pub(super) fn new(plugin: &str) -> Self {
        Self { plugin: plugin.to_owned(), second: AtomicU64::new(0), lines: AtomicU32::new(0) }
    }

    /// Writes a line, unless the plugin has had its share of this second.
    pub(super) fn line(&self, level: Level, text: &str) {
        let plugin = &*self.plugin;
        let (written, left_out) = self.count(clock::uptime().as_secs());
        if left_out > 0 {
            tracing::warn!(target: "sluicegate::plugin", plugin, lines = left_out, "lines were left out: more than {MAX_LINES} in a second");
        }
        if !written {
            return;
        }
        // A newline or an ANSI sequence would forge other lines.
        let text = text.escape_debug();
        match level {
            Level::Debug => tracing::debug!(target: "sluicegate::plugin", plugin, "{text}"),
            Level::Info => tracing::info!(target: "sluicegate::plugin", plugin, "{text}"),
            Level::Warn => tracing::warn!(target: "sluicegate::plugin", plugin, "{text}"),
            Level::Error => tracing::error!(target: "sluicegate::plugin", plugin, "{text}"),
        }
    }

    /// Whether one more may be written in this second; and how many were left out of the one before.
    fn count(&self, second: u64) -> (bool, u32) {
        let before = self.second.swap(second, Ordering::Relaxed);
        let left_out =
            if before == second { 0 } else { self.lines.swap(0, Ordering::Relaxed).saturating_sub(MAX_LINES) };
        (self.lines.fetch_add(1, Ordering::Relaxed) < MAX_LINES, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_its_share_of_a_second_is_left_out_and_counted() {
        let log = GuestLog::new("a");
        let written = (0..350).filter(|_| log.count(7).0).count();
        assert_eq!(written, 200);
        assert_eq!(log.count(8), (true, 150));
        assert_eq!(log.count(8), (true, 0));
        assert_eq!(log.count(9), (true, 0));
    }
}
