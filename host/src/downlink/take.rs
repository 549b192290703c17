//! Commands move into this instance's processing list, as many as may be under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::redis::connect::Link;
use crate::redis::pop::Popper;

/// A command that stands in the processing list.
pub struct Taken {
    /// The entry.
    pub raw: Bytes,
    /// Its share of `commands.in_flight`.
    pub permit: OwnedSemaphorePermit,
}

/// The entries that this process is at work on; an entry may stand there more than once.
///
/// The lock is held for a look-up only.
#[derive(Debug, Default)]
pub struct UnderWay(Mutex<HashMap<Bytes, usize>>);

impl UnderWay {
    fn all(&self) -> MutexGuard<'_, HashMap<Bytes, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, raw: &Bytes) {
        *self.all().entry(raw.clone()).or_default() += 1;
    }

    /// The entry left the processing list.
    pub fn remove(&self, raw: &Bytes) {
        let mut all = self.all();
        if let Some(count) = all.get_mut(raw) {
            *count -= 1;
            if *count == 0 {
                all.remove(raw);
            }
        }
    }

    /// Of what stands in the processing list, what nobody is at work on.
    fn strangers(&self, standing: Vec<Bytes>) -> Vec<Bytes> {
        let mut known = self.all().clone();
        standing
            .into_iter()
            .filter(|raw| match known.get_mut(raw) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    false
                }
                _ => true,
            })
            .collect()
    }
}

/// Takes commands until `stop`.
pub async fn run(
    mut popper: Popper,
    mut link: Link,
    work: mpsc::Sender<Taken>,
    under_way: Arc<UnderWay>,
    room: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let taking = async {
        loop {
            let taken = if popper.is_connected() {
                // One place at least before anything is moved: what is moved has a place.
                let Ok(first) = room.clone().acquire_owned().await else { return };
                popper.pop(room.available_permits() + 1).await.inspect(|_taken| {
                    drop(first);
                })
            } else {
                // A move whose answer was lost with the connection may have happened, as may have those before a restart.
                popper.connect().await.map(|standing| {
                    let standing = under_way.strangers(standing);
                    if !standing.is_empty() {
                        tracing::info!(
                            commands = standing.len(),
                            "commands stand in the processing list; they go first"
                        );
                    }
                    standing
                })
            };
            match taken {
                Ok(taken) => {
                    link.up();
                    for raw in taken {
                        let Ok(permit) = room.clone().acquire_owned().await else { return };
                        under_way.add(&raw);
                        if work.send(Taken { raw, permit }).await.is_err() {
                            return;
                        }
                    }
                }
                Err(fault) => tokio::time::sleep(link.down(&fault)).await,
            }
        }
    };
    // What is moved while this stops stands in the processing list, and is sent after the next start.
    tokio::select! {
        () = stop.cancelled() => {}
        () = taking => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_is_at_work_on_is_taken_again() {
        let under_way = UnderWay::default();
        let entry = |text: &'static str| Bytes::from_static(text.as_bytes());
        under_way.add(&entry("a"));
        under_way.add(&entry("a"));
        under_way.add(&entry("b"));
        let standing = vec![entry("a"), entry("a"), entry("a"), entry("b"), entry("c")];
        assert_eq!(under_way.strangers(standing.clone()), [entry("a"), entry("c")]);
        under_way.remove(&entry("a"));
        under_way.remove(&entry("b"));
        assert_eq!(under_way.strangers(standing), [entry("a"), entry("a"), entry("b"), entry("c")]);
    }
}
