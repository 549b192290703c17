//! A state in the test's own thread. Writes are made at once: whether a call succeeds is the gateway's to see.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::state::StateError;

thread_local! {
    static KEYS: RefCell<HashMap<String, Vec<u8>>> = RefCell::default();
    static AWAY: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `test` with these keys, and no others.
pub fn with_state<T>(keys: &[(&str, &str)], test: impl FnOnce() -> T) -> T {
    KEYS.set(keys.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect());
    let result = test();
    KEYS.take();
    result
}

/// Runs `test` while the state is not to be had.
pub fn without_state<T>(test: impl FnOnce() -> T) -> T {
    AWAY.set(Some("Redis is away".to_owned()));
    let result = test();
    AWAY.take();
    result
}

fn keys<T>(with: impl FnOnce(&mut HashMap<String, Vec<u8>>) -> T) -> Result<T, StateError> {
    match AWAY.with_borrow(Clone::clone) {
        Some(reason) => Err(StateError::Unavailable(reason)),
        None => Ok(KEYS.with_borrow_mut(with)),
    }
}

fn check(key: &str, ttl_ms: Option<u64>) -> Result<(), StateError> {
    if key.is_empty() || key.len() > 256 {
        return Err(StateError::Limit(format!("the key has {} bytes; it must be 1 to 256", key.len())));
    }
    match ttl_ms {
        Some(ttl) if ttl == 0 || ttl > 365 * 86_400_000 => {
            Err(StateError::Limit(format!("a time to live is 1 ms to 365 days, not {ttl} ms")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn get(key: &str) -> Result<Option<Vec<u8>>, StateError> {
    check(key, None)?;
    keys(|keys| keys.get(key).cloned())
}

pub(crate) fn set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), StateError> {
    check(key, ttl_ms)?;
    keys(|keys| drop(keys.insert(key.to_owned(), value.to_vec())))
}

pub(crate) fn delete(key: &str) -> Result<(), StateError> {
    check(key, None)?;
    keys(|keys| drop(keys.remove(key)))
}

pub(crate) fn increment(key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64, StateError> {
    check(key, ttl_ms)?;
    let before = match get(key)? {
        None => 0,
        Some(value) => std::str::from_utf8(&value).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(|| {
            StateError::Limit("the key's value is no whole number of 64 bits, so nothing can be added to it".to_owned())
        })?,
    };
    let sum = before.checked_add(by).ok_or_else(|| StateError::Limit("the sum is beyond 64 bits".to_owned()))?;
    set(key, sum.to_string().as_bytes(), None).map(|()| sum)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Failure, state};

    #[test]
    fn it_does_what_the_gateways_does() {
        with_state(&[("a", "1"), ("text", "x")], || {
            assert_eq!(state::get("a"), Ok(Some(b"1".to_vec())));
            assert_eq!(state::increment("a", 2, None), Ok(3));
            assert_eq!(state::increment("new", -1, Some(Duration::from_secs(1))), Ok(-1));
            assert_eq!(state::delete("a"), Ok(()));
            assert_eq!(state::get("a"), Ok(None));
            assert!(matches!(state::increment("text", 1, None), Err(StateError::Limit(_))));
            assert!(matches!(state::set("", "x", None), Err(StateError::Limit(_))));
            assert!(matches!(state::set("a", "x", Some(Duration::ZERO)), Err(StateError::Limit(_))));
        });
        with_state(&[], || assert_eq!(state::get("text"), Ok(None)));
        let failure: Failure = without_state(|| state::set("a", "x", None)).expect_err("away").into();
        assert!(matches!(failure, Failure::Retry(reason) if reason.contains("Redis is away")));
    }
}
