//! The wall clock, how long this process has run, and the system's randomness: nothing else in this crate asks for them.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The time since the first call, on a clock that never jumps.
#[must_use]
pub fn uptime() -> Duration {
    STARTED.elapsed()
}

/// A random number, for jitter. Not for secrets.
#[must_use]
pub fn chance() -> u32 {
    // Each `RandomState` has keys of its own, which the system's randomness seeded.
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// Random bytes, fit for secrets.
///
/// # Errors
/// Where the system gives none.
pub fn secret<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
