//! State in this process, empty at first: what samples, `plugin test` and `try` run with.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use sluicegate_core::state::{Change, Committed, Write};

use super::Store;

/// All plugins' keys.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Keys>>);

/// One plugin's: each with its value, and when its time is over.
#[derive(Default)]
struct Keys(HashMap<String, (Bytes, Option<Instant>)>);

impl Keys {
    fn get(&self, key: &str, now: Instant) -> Option<&(Bytes, Option<Instant>)> {
        self.0.get(key).filter(|(_, until)| until.is_none_or(|until| until > now))
    }

    fn commit(&mut self, changes: &[Change], most: u64, now: Instant) -> Committed {
        let is = |change: &Change| self.get(&change.key, now).map(|(value, _)| value);
        if changes.iter().any(|change| change.seen.as_ref().is_some_and(|seen| seen.as_ref() != is(change))) {
            return Committed::Changed;
        }
        let makes = |change: &&Change| {
            matches!(change.write, Some(Write::Set(..) | Write::Keep(_))) && self.get(&change.key, now).is_none()
        };
        let goes = |change: &&Change| change.write == Some(Write::Delete) && self.get(&change.key, now).is_some();
        let (new, gone) = (changes.iter().filter(makes).count(), changes.iter().filter(goes).count());
        self.0.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        if new > gone && (self.0.len() + new - gone) as u64 > most {
            return Committed::Full;
        }
        for Change { key, write, .. } in changes {
            match write {
                Some(Write::Set(value, ttl)) => {
                    self.0.insert(key.clone(), (value.clone(), ttl.map(|ttl| now + ttl)));
                }
                Some(Write::Keep(value)) => {
                    let until = self.0.get(key).and_then(|(_, until)| *until);
                    self.0.insert(key.clone(), (value.clone(), until));
                }
                Some(Write::Delete) => drop(self.0.remove(key)),
                None => {}
            }
        }
        Committed::Done
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, plugin: &'a str, key: &'a str, _: Duration) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        let plugins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = plugins.get(plugin).and_then(|keys| keys.get(key, Instant::now()));
        ready(Ok(value.map(|(value, _)| value.clone()))).boxed()
    }

    fn commit<'a>(
        &'a self,
        plugin: &'a str,
        changes: &'a [Change],
        most: u64,
    ) -> BoxFuture<'a, Result<Committed, String>> {
        let mut plugins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = plugins.entry(plugin.to_owned()).or_default();
        ready(Ok(keys.commit(changes, most, Instant::now()))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, seen: Option<Option<&str>>, value: &str, ttl: Option<u64>) -> Change {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let write = Write::Set(bytes(value), ttl.map(Duration::from_millis));
        Change { key: key.to_owned(), seen: seen.map(|seen| seen.map(bytes)), write: Some(write) }
    }

    #[test]
    fn what_is_over_is_gone_and_counts_for_nothing() {
        let (mut keys, now) = (Keys::default(), Instant::now());
        assert_eq!(
            keys.commit(&[set("a", Some(None), "1", Some(10)), set("b", None, "2", None)], 2, now),
            Committed::Done
        );
        assert_eq!(keys.commit(&[set("a", Some(None), "3", None)], 2, now), Committed::Changed);
        assert_eq!(keys.commit(&[set("c", None, "3", None)], 2, now), Committed::Full);
        assert_eq!(keys.commit(&[set("b", Some(Some("2")), "4", None)], 2, now), Committed::Done);
        let later = now + Duration::from_millis(10);
        assert!(keys.get("a", later).is_none());
        assert_eq!(keys.commit(&[set("c", None, "3", None)], 2, later), Committed::Done);
        assert_eq!(keys.get("b", later).map(|(value, _)| value.as_ref()), Some(b"4".as_slice()));
    }
}
