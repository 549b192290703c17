//! Turns at keys: whoever is to add to a key waits for those who are at it. They only save calls from being run again: the store tells who
//! came too late, whatever happens here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The keys that somebody is at.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<Semaphore>>>);

/// A turn at a key, until it is dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    key: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits for the turn at a key; none: it took too long, as it does where two calls wait for each other.
    ///
    /// # Cancel safety
    /// Dropped, nothing is held.
    pub(super) async fn wait(self: &Arc<Self>, key: &str, within: Duration) -> Option<Turn> {
        let semaphore = {
            let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            keys.entry(key.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        let mut turn = Turn { turns: self.clone(), key: key.to_owned(), permit: None };
        turn.permit = timeout(within, semaphore.acquire_owned()).await.ok()?.ok();
        turn.permit.is_some().then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut keys = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A permit holds its semaphore too: only without it, and without anybody who waits, the table's own is the last.
        self.permit = None;
        if keys.get(&self.key).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            keys.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_in_their_order_and_nothing_is_left() {
        let turns = Arc::<Turns>::default();
        let (at_once, next) = (Cell::new(0), Cell::new(0));
        let work = |number: u32| {
            let (turns, at_once, next) = (turns.clone(), &at_once, &next);
            async move {
                let turn = turns.wait("a", Duration::from_secs(60)).await;
                assert!(turn.is_some());
                assert_eq!((at_once.replace(1), next.replace(number + 1)), (0, number));
                tokio::time::sleep(Duration::from_millis(1)).await;
                at_once.set(0);
            }
        };
        join_all((0..50).map(work)).await;
        let held = turns.wait("a", Duration::ZERO).await;
        assert!(turns.wait("a", Duration::from_millis(5)).await.is_none(), "it is held");
        assert!(turns.wait("b", Duration::from_millis(5)).await.is_some(), "another key is not");
        drop(held);
        assert!(turns.0.lock().expect("whole").is_empty());
    }
}
