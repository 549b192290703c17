//! How long to wait before the next attempt: exponential, with jitter, bounded.

use std::time::Duration;

/// Delays that double from `first` to `most`.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl Backoff {
    /// For servers that are away: from 50 ms to 5 s, for ever, since nothing is given up while they are.
    #[must_use]
    pub fn for_servers() -> Self {
        Self { first: Duration::from_millis(50), most: Duration::from_secs(5), attempts: 0 }
    }

    /// For a build that is to come back and is refused: from 1 s to 5 minutes. Each attempt may take a while of the processor.
    #[must_use]
    pub fn for_rollbacks() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(300), attempts: 0 }
    }

    /// For a message in memory, whose acknowledgement waits: from 50 ms on. Whoever counts to a second parks it then.
    #[must_use]
    pub fn for_messages() -> Self {
        Self { first: Duration::from_millis(50), most: Duration::from_secs(1), attempts: 0 }
    }

    /// For a parked message: from 1 s to 30 s.
    #[must_use]
    pub fn for_parked(attempts: u32) -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(30), attempts: attempts.min(31) }
    }

    /// The next delay: between half and all of the exponential one. `chance` is drawn by the caller.
    pub fn next(&mut self, chance: u32) -> Duration {
        let whole = self.first.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX)).min(self.most);
        self.attempts = (self.attempts + 1).min(31);
        let half = whole / 2;
        half + half.mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    /// It went well: the next failure starts from the beginning.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_its_bounds() {
        let mut backoff = Backoff::for_servers();
        assert_eq!(backoff.next(u32::MAX), Duration::from_millis(50));
        assert_eq!(backoff.next(u32::MAX), Duration::from_millis(100));
        assert_eq!(backoff.next(0), Duration::from_millis(100));
        for _ in 0..100 {
            let delay = backoff.next(7);
            assert!(delay <= Duration::from_secs(5));
        }
        assert_eq!(backoff.next(0), Duration::from_millis(2500));
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX), Duration::from_millis(50));
    }
}
