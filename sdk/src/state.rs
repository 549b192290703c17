//! The plugin's own keys, which outlast a call: for plugins that were granted it (`grants.state = true`).
//!
//! What a call writes is held back until it has succeeded; it sees its own writes. Nothing is written where it rejects, asks for another
//! attempt, traps, or takes too long. What it was told holds: where somebody else changes one of the keys that it read before its own writes
//! are made, it is run again from the beginning. So two machines that add to one counter at the same time are told two sums.
//!
//! A message may be handled more than once, after a fault of the gateway or of Redis, and then its writes may be made more than once: where
//! that matters, keep what was done under a name that the message has.
//!
//! ```
//! use std::time::Duration;
//!
//! use sluicegate_sdk::{Failure, Message, Output, capture, job, state};
//!
//! /// Passes the first ten errors that a machine sends in an hour.
//! fn handle(message: Message) -> Result<Vec<Output>, Failure> {
//!     let key = format!("errors:{}", capture(&message, "serial_no"));
//!     let count = state::increment(&key, 1, Some(Duration::from_secs(3_600)))?;
//!     if count > 10 { Ok(Vec::new()) } else { job(message.payload).unkeyed() }
//! }
//!
//! use sluicegate_sdk::testing::{message, with_state};
//! let passed = with_state(&[("errors:M-001", "8")], || {
//!     (0..5).filter(|_| handle(message("{}")).is_ok_and(|outputs| !outputs.is_empty())).count()
//! });
//! assert_eq!(passed, 2);
//! ```

use std::time::Duration;

use crate::Failure;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::state as host;

/// Why the state could not be had. With `?` it is another attempt, since the message is not wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateError {
    /// Redis does not answer. However often that comes to be, it is counted to no message's attempts.
    Unavailable(String),
    /// A limit of number or size is reached, or what the key has is no number to add to.
    Limit(String),
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Unavailable(reason) => Self::Retry(format!("the state is not to be had: {reason}")),
            StateError::Limit(reason) => Self::Retry(format!("the state has a limit: {reason}")),
        }
    }
}

/// The value of a key; none where it is not there, or its time is over.
///
/// # Errors
/// [`StateError`].
pub fn get(key: &str) -> Result<Option<Vec<u8>>, StateError> {
    host::get(key)
}

/// Sets a key, for so long where given: 1 ms to 365 days, counted from now.
///
/// # Errors
/// [`StateError`].
pub fn set(key: &str, value: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<(), StateError> {
    host::set(key, value.as_ref(), ttl.map(millis))
}

/// Removes a key; removing what is not there is no error.
///
/// # Errors
/// [`StateError`].
pub fn delete(key: &str) -> Result<(), StateError> {
    host::delete(key)
}

/// Adds to a key's number, which is 0 where it is not there, and gives the sum. `ttl` counts from its first increment.
///
/// # Errors
/// [`StateError`]; its `limit` also where the key's value is no whole number, or the sum is beyond 64 bits.
pub fn increment(key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, StateError> {
    host::increment(key, by, ttl.map(millis))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The gateway's, in this module's words.
#[cfg(target_arch = "wasm32")]
mod host {
    use super::StateError;
    use crate::bindings::handler::sluicegate::plugin::state;

    fn told(error: state::StateError) -> StateError {
        match error {
            state::StateError::Unavailable(reason) => StateError::Unavailable(reason),
            state::StateError::Limit(reason) => StateError::Limit(reason),
        }
    }

    pub(super) fn get(key: &str) -> Result<Option<Vec<u8>>, StateError> {
        state::get(key).map_err(told)
    }

    pub(super) fn set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), StateError> {
        state::set(key, value, ttl_ms).map_err(told)
    }

    pub(super) fn delete(key: &str) -> Result<(), StateError> {
        state::delete(key).map_err(told)
    }

    pub(super) fn increment(key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64, StateError> {
        state::increment(key, by, ttl_ms).map_err(told)
    }
}
