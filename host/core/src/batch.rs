//! When the sink pushes what it has: at once with little traffic, after a short wait for more under load.

use std::time::Duration;

/// The most messages that one batch carries.
pub const MAX_MESSAGES: usize = 1_000;
/// The most bytes after which a batch is closed.
pub const MAX_BYTES: usize = 1 << 20;
/// How long a batch may wait for more under load. System calls are the cost and batching is the cure; with little traffic
/// waiting would only be latency.
pub const LINGER: Duration = Duration::from_millis(1);
/// A batch of so many says that there is load. Smaller ones are what a few machines at once look like.
const UNDER_LOAD: usize = 8;

/// Remembers how full batches were, and decides how long the next one waits.
#[derive(Debug, Default)]
pub struct Batching {
    last: usize,
}

impl Batching {
    /// How long a batch that holds `messages` and `bytes` now may wait for more; zero: push it.
    #[must_use]
    pub fn wait(&self, messages: usize, bytes: usize) -> Duration {
        let full = messages >= MAX_MESSAGES || bytes >= MAX_BYTES;
        if full || self.last.max(messages) < UNDER_LOAD { Duration::ZERO } else { LINGER }
    }

    /// A batch of `messages` was pushed.
    pub fn pushed(&mut self, messages: usize) {
        self.last = messages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_only_under_load_and_never_when_full() {
        let mut batching = Batching::default();
        assert_eq!(batching.wait(1, 100), Duration::ZERO);
        assert_eq!(batching.wait(8, 800), LINGER);
        batching.pushed(200);
        assert_eq!(batching.wait(1, 100), LINGER);
        assert_eq!(batching.wait(MAX_MESSAGES, 100), Duration::ZERO);
        assert_eq!(batching.wait(1, MAX_BYTES), Duration::ZERO);
        batching.pushed(1);
        assert_eq!(batching.wait(1, 100), Duration::ZERO);
    }
}
