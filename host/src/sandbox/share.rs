//! A build's share of the processor: what it takes beyond, it waits for, and nobody else does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

use crate::telemetry::clock;

/// What may be saved up, and so taken at once: the share of one second.
const SECOND: Duration = Duration::from_secs(1);

/// What a build took, over all lanes, measured in the time that its share is given in: with 100 ms a second, 10 ms of work are 100 ms.
#[derive(Debug)]
pub(super) struct Share {
    /// A second's; none: as much as there is.
    each_second: Option<Duration>,
    /// Until when, since the gateway started, what was taken is paid for; in nanoseconds.
    paid_until: AtomicU64,
}

impl Share {
    pub(super) fn new(each_second: Option<Duration>) -> Self {
        Self { each_second, paid_until: AtomicU64::new(0) }
    }

    /// What this thread had of the processor so far, where that is asked for: time in which another thread had it is not the build's.
    pub(super) fn now(&self) -> Option<Duration> {
        self.each_second.map(|_| of_this_thread())
    }

    /// All that this thread had since then, it took.
    pub(super) fn took_since(&self, before: Option<Duration>) {
        if let Some((share, before)) = self.each_second.zip(before) {
            self.take(share, of_this_thread().saturating_sub(before), clock::uptime());
        }
    }

    fn take(&self, share: Duration, time: Duration, now: Duration) {
        let cost = nanos(time.mul_f64(SECOND.as_secs_f64() / share.as_secs_f64().max(0.001)));
        let from = nanos(now.saturating_sub(SECOND));
        let take = |until: u64| Some(until.max(from).saturating_add(cost));
        // The closure always answers.
        let _ = self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    fn debt(&self, now: Duration) -> Duration {
        Duration::from_nanos(self.paid_until.load(Ordering::Relaxed)).saturating_sub(now)
    }

    /// Waits until there is something of it again.
    ///
    /// # Cancel safety
    /// Dropped, nothing was taken.
    pub(super) async fn wait(&self) {
        if self.each_second.is_none() {
            return;
        }
        loop {
            let debt = self.debt(clock::uptime());
            if debt.is_zero() {
                return;
            }
            sleep(debt).await;
        }
    }
}

fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_waits_takes_nothing_and_what_works_does() {
        let share = Share::new(Some(SECOND));
        let before = share.now();
        std::thread::sleep(Duration::from_millis(50));
        share.took_since(before);
        let waited = share.paid_until.load(Ordering::Relaxed);
        let (before, began) = (share.now(), Instant::now());
        while share.now() < before.map(|before| before + Duration::from_millis(20)) {
            assert!(began.elapsed() < Duration::from_secs(60), "a thread that works has time of the processor");
        }
        share.took_since(before);
        let worked = share.paid_until.load(Ordering::Relaxed) - waited;
        // What is saved up begins a second ago.
        assert!(waited <= nanos(clock::uptime()) && worked >= 20_000_000, "{waited} {worked}");
        assert_eq!(Share::new(None).now(), None);
    }

    #[test]
    fn what_is_beyond_the_share_is_waited_for() {
        let (ms, share) = (Duration::from_millis, Duration::from_millis(100));
        let of = Share::new(Some(share));
        // A second's share was saved up.
        of.take(share, ms(99), ms(5_000));
        assert_eq!(of.debt(ms(5_000)), ms(0));
        of.take(share, ms(51), ms(5_000));
        assert_eq!(of.debt(ms(5_000)), ms(500));
        assert_eq!(of.debt(ms(5_500)), ms(0));
        // No more than that is ever saved up.
        of.take(share, ms(200), ms(60_000));
        assert_eq!(of.debt(ms(60_000)), ms(1_000));
    }
}
