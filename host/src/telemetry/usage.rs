//! What a plugin uses: counted on the way of each call, read by status and metrics. It is the plugin's, over all of its builds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// Of one plugin, since the gateway started.
#[derive(Debug, Default)]
pub struct Usage {
    calls: AtomicU64,
    faults: AtomicU64,
    busy_nanos: AtomicU64,
    memory_peak: AtomicU64,
    instances: AtomicU64,
}

/// What [`Usage`] is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Used {
    /// Calls, good or not.
    pub calls: u64,
    /// Those that gave no answer.
    pub faults: u64,
    /// Time of the processor that its code took, and the host's code for it.
    pub busy_ms: u64,
    /// The most memory that one instance had.
    pub memory_peak_bytes: u64,
    /// Instances now.
    pub instances: u64,
}

impl Usage {
    /// A call came to its end.
    pub fn called(&self, fault: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if fault {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It had so much of the processor.
    pub fn busy(&self, time: Duration) {
        self.busy_nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// An instance has so much.
    pub fn memory(&self, bytes: usize) {
        let bytes = bytes as u64;
        // It seldom grows: read first, so that lanes do not take the line from each other at each call.
        if bytes > self.memory_peak.load(Ordering::Relaxed) {
            self.memory_peak.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// One instance more.
    pub fn started(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn ended(&self) {
        self.instances.fetch_sub(1, Ordering::Relaxed);
    }

    /// All of it, now.
    #[must_use]
    pub fn now(&self) -> Used {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Used {
            calls: of(&self.calls),
            faults: of(&self.faults),
            busy_ms: of(&self.busy_nanos) / 1_000_000,
            memory_peak_bytes: of(&self.memory_peak),
            instances: of(&self.instances),
        }
    }
}
