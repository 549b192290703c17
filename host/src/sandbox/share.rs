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

    /// It took so much.
    pub(super) fn took(&self, time: Duration) {
        if let Some(share) = self.each_second {
            self.take(share, time, clock::uptime());
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

/// What this thread had of the processor so far. On a busy machine the clock on the wall goes on while another thread has it.
pub(super) fn of_this_thread() -> Duration {
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
    fn who_waits_has_nothing_of_the_processor_and_who_works_has() {
        let ms = Duration::from_millis;
        let (before, began) = (of_this_thread(), Instant::now());
        std::thread::sleep(ms(100));
        assert!(of_this_thread() - before < ms(50), "{:?}", of_this_thread() - before);
        while of_this_thread() - before < ms(60) {
            assert!(began.elapsed() < Duration::from_secs(60), "a thread that works has time of the processor");
        }
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
