//! Waiting for a condition, bounded.

use std::time::{Duration, Instant};

/// Looks again and again until `look` gives something.
///
/// # Panics
/// After 60 seconds, with what was awaited: a machine that does much else at once is slow, not wrong.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(Duration::from_secs(60), what, look).await
}

/// The same, with another limit.
///
/// # Panics
/// After that time, with what was awaited.
pub async fn within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(began.elapsed() < limit, "{} seconds are over, still waiting: {what}", limit.as_secs());
        // What took long already may take a little longer: each look is work for whoever is looked at, too.
        let pause = (began.elapsed() / 10).clamp(Duration::from_millis(10), Duration::from_millis(100));
        tokio::time::sleep(pause).await;
    }
}
