//! Waiting for a condition, bounded.

use std::time::{Duration, Instant};

/// Looks again and again until `look` gives something.
///
/// # Panics
/// After 30 seconds, with what was awaited.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "30 seconds are over, still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
