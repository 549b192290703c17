//! Clients that wait for an element of a list: who came first is served first, and an element taken for a client that is
//! gone goes back to the end that it came from.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::frame::Reply;
use super::store::{End, Millis, Place, Store, WrongType};

/// What a client waits for.
#[derive(Debug, Clone)]
pub(super) enum Want {
    /// An element of the first of these lists that has one.
    Pop { keys: Vec<Bytes>, end: End },
    /// An element of one list, moved to another.
    Move { from: Bytes, to: Bytes, take: End, put: End },
}

/// What a client that waited is given.
#[derive(Debug)]
pub(super) struct Served {
    /// What to tell it.
    pub reply: Reply,
    /// What is to be put back if it cannot be told.
    pub taken: Option<Taken>,
}

/// An element that is in no list any more.
#[derive(Debug)]
pub(super) struct Taken {
    db: usize,
    key: Bytes,
    end: End,
    item: Bytes,
}

#[derive(Debug)]
struct Waiter {
    db: usize,
    want: Want,
    answer: oneshot::Sender<Served>,
}

impl Waiter {
    fn keys(&self) -> &[Bytes] {
        match &self.want {
            Want::Pop { keys, .. } => keys,
            Want::Move { from, .. } => std::slice::from_ref(from),
        }
    }
}

/// Who waits, by key and in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    last: u64,
    waiters: HashMap<u64, Waiter>,
    by_key: HashMap<(usize, Bytes), VecDeque<u64>>,
    /// Keys that somebody waits for and that may have elements now.
    touched: VecDeque<(usize, Bytes)>,
}

impl Waiting {
    /// Queues a client; the number is for [`Self::forget`].
    pub(super) fn wait(&mut self, db: usize, want: Want) -> (u64, oneshot::Receiver<Served>) {
        let (answer, served) = oneshot::channel();
        self.last += 1;
        let waiter = Waiter { db, want, answer };
        for key in waiter.keys() {
            let queue = self.by_key.entry((db, key.clone())).or_default();
            // A key named twice is waited for once.
            if queue.back() != Some(&self.last) {
                queue.push_back(self.last);
            }
        }
        self.waiters.insert(self.last, waiter);
        (self.last, served)
    }

    /// How many clients wait.
    pub(super) fn count(&self) -> usize {
        self.waiters.len()
    }

    /// The client does not wait any more. Whether it had not been served.
    pub(super) fn forget(&mut self, number: u64) -> bool {
        self.take(number).is_some()
    }

    /// Notes that a list may have got elements.
    pub(super) fn touched(&mut self, db: usize, key: &[u8]) {
        if self.by_key.is_empty() {
            return;
        }
        let key = (db, Bytes::copy_from_slice(key));
        if self.by_key.contains_key(&key) {
            self.touched.push_back(key);
        }
    }

    fn take(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        for key in waiter.keys() {
            let key = (waiter.db, key.clone());
            if let Some(queue) = self.by_key.get_mut(&key) {
                queue.retain(|other| *other != number);
                if queue.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
        Some(waiter)
    }

    fn first(&self, key: &(usize, Bytes)) -> Option<u64> {
        self.by_key.get(key)?.front().copied()
    }
}

impl Store {
    /// Serves who waits for lists that got elements. It is called after a command, or after a whole transaction, so that
    /// nobody sees the middle of one.
    pub(super) fn serve(&mut self, now: Millis) {
        // A move fills another list, which is then touched itself: the loop goes on until nobody can be served.
        while let Some(touched) = self.waiting.touched.pop_front() {
            let at = Place { db: touched.0, now };
            while self.list(at, &touched.1).is_ok_and(|list| list.is_some())
                && let Some(number) = self.waiting.first(&touched)
                && let Some(waiter) = self.waiting.take(number)
            {
                let served = match &waiter.want {
                    Want::Pop { end, .. } => self.pop_for(at, &touched.1, *end),
                    Want::Move { from, to, take, put } => match self.shift(at, from, to, *take, *put) {
                        Ok(Some(item)) => Served { reply: Reply::Bulk(item), taken: None },
                        Ok(None) => Served { reply: Reply::Null, taken: None },
                        Err(WrongType) => {
                            Served { reply: Reply::Error(super::command::WRONG_TYPE.into()), taken: None }
                        }
                    },
                };
                if let Err(Served { taken: Some(taken), .. }) = waiter.answer.send(served) {
                    self.give_back(taken, now);
                }
            }
        }
    }

    fn pop_for(&mut self, at: Place, key: &Bytes, end: End) -> Served {
        match self.edit_list(at, key, |list| list.pop(end)) {
            Ok(Some(item)) => Served {
                reply: Reply::Array(vec![Reply::Bulk(key.clone()), Reply::Bulk(item.clone())]),
                taken: Some(Taken { db: at.db, key: key.clone(), end, item }),
            },
            Ok(None) | Err(WrongType) => Served { reply: Reply::NullArray, taken: None },
        }
    }

    /// Moves an element from one list to another, perhaps the same. `None` where there is none.
    pub(super) fn shift(
        &mut self,
        at: Place,
        from: &[u8],
        to: &[u8],
        take: End,
        put: End,
    ) -> Result<Option<Bytes>, WrongType> {
        if self.list(at, from)?.is_none() {
            return Ok(None);
        }
        self.list(at, to)?;
        if from == to {
            // In one edit: a list that is empty for a moment would lose its time of expiry.
            return self.edit_list(at, from, |list| {
                let item = list.pop(take)?;
                list.push(put, &item);
                Some(item)
            });
        }
        let Some(item) = self.edit_list(at, from, |list| list.pop(take))? else { return Ok(None) };
        self.edit_list(at, to, |list| list.push(put, &item))?;
        Ok(Some(item))
    }

    /// Puts an element back that nobody got, and offers it to the next who waits.
    pub(super) fn put_back(&mut self, taken: Taken, now: Millis) {
        self.give_back(taken, now);
        self.serve(now);
    }

    fn give_back(&mut self, Taken { db, key, end, item }: Taken, now: Millis) {
        if self.edit_list(Place { db, now }, &key, |list| list.push(end, &item)).is_err() {
            tracing::warn!(
                "an element taken for a client that is gone has no list to go back to: its key holds another type"
            );
        }
    }
}
