//! Keeps this instance's lease, and takes over what stands in the processing lists of instances whose lease ran out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluicegate_core::lease::{Answer, Lease, RENEW, Standing, Tenure};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::begin::{Trouble, look};
use crate::board::of_list;
use crate::clock;
use crate::redis::lease::Leases;
use crate::redis::lists::{Keeper, TakenOver};

/// How soon a renewal that got no answer is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long giving the lease back may take.
const RELEASE: Duration = Duration::from_secs(1);
const SUPERSEDED: &str = "another process has this instance's name";

/// A tenure, and the number of the lease in it: whatever moves jobs names it, and moves none once the lease has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The tenure.
    pub tenure: Tenure,
    /// The lease's number.
    pub number: u64,
}

/// The lease as this process sees it. The lock is held for a look only.
#[derive(Debug, Default)]
pub struct Held {
    seen: Mutex<Seen>,
    changed: Notify,
    renounced: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    lease: Lease,
    number: u64,
}

impl Held {
    fn look<T>(&self, look: impl FnOnce(&Seen, Duration) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner), clock::uptime())
    }

    /// Waits for an answer of Redis after which there is something.
    async fn until<T>(&self, look: impl Fn(&Seen, Duration) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = self.look(&look) {
                return found;
            }
            changed.await;
        }
    }

    /// Waits until there is a tenure in force.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn held(&self) -> Term {
        self.until(|seen, now| seen.lease.tenure(now).map(|tenure| Term { tenure, number: seen.number })).await
    }

    /// Ends a tenure. The lease has another number in the next one, so that what was asked for in this one, and is still on its way to Redis, moves nothing
    /// there once the list is read anew.
    ///
    /// # Cancel safety
    /// Dropped, it may end all the same.
    pub async fn renounce(&self, tenure: Tenure) {
        if !self.is_over(tenure) {
            self.renounced.notify_one();
        }
        self.over(tenure).await;
    }

    /// Waits until a tenure is over.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn over(&self, tenure: Tenure) {
        self.until(|seen, now| (seen.lease.standing(tenure, now) == Standing::Over).then_some(())).await;
    }

    fn is_over(&self, tenure: Tenure) -> bool {
        self.look(|seen, now| seen.lease.standing(tenure, now) == Standing::Over)
    }

    /// Whether jobs may be taken in a tenure.
    #[must_use]
    pub fn is_in_force(&self, tenure: Tenure) -> bool {
        self.look(|seen, now| seen.lease.standing(tenure, now) == Standing::InForce)
    }

    /// True: a newer process of the same name has it.
    fn answered(&self, answer: Answer, asked: Duration, number: Option<u64>) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.lease.answered(answer, asked);
        seen.number = number.unwrap_or_default();
        let superseded = seen.lease.is_superseded();
        drop(seen);
        self.changed.notify_waiters();
        superseded
    }
}

/// Renews until `last`, then gives the lease back. While a newer process of the same name has it this one takes no job; should that one be
/// gone, it has them again.
pub async fn run(parts: Parts, held: Arc<Held>, last: CancellationToken) {
    let mut leases = Leases::new(parts.redis.clone(), parts.keys.clone(), &parts.instance);
    let keeping = async {
        let (mut said, mut superseded, mut anew) = (false, false, false);
        loop {
            let asked = clock::uptime();
            let answer = if superseded {
                match leases.succeed().await {
                    Ok(true) => Ok(Some(Answer::Lapsed)),
                    Ok(false) => Ok(None),
                    Err(fault) => Err(fault),
                }
            } else if anew {
                leases.anew().await.map(Some)
            } else {
                leases.renew().await.map(Some)
            };
            let delay = match answer {
                Ok(answer) => {
                    if std::mem::take(&mut said) {
                        tracing::info!("the lease of this instance is renewed again");
                    }
                    if let Some(answer) = answer {
                        tell(answer, superseded, &parts);
                        // Under another number it is another tenure.
                        let answer = if anew && answer == Answer::Held { Answer::Lapsed } else { answer };
                        superseded = held.answered(answer, asked, leases.number());
                    }
                    anew = false;
                    RENEW
                }
                Err(fault) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%fault, "the lease of this instance is not renewed; trying again");
                    }
                    AGAIN
                }
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = held.renounced.notified(), if !anew => anew = true,
            }
        }
    };
    tokio::select! {
        () = last.cancelled() => {
            // Where Redis is away it runs out by itself.
            let _ = tokio::time::timeout(RELEASE, leases.release()).await;
        }
        () = keeping => {}
        // Beside it: a database that is slow must not cost the lease.
        () = taking_over(&parts, &held) => {}
    }
}

/// Looks every so often for instances without a lease, while this one has its own.
async fn taking_over(parts: &Parts, held: &Held) {
    let mut keeper = Keeper::new(parts.redis.clone(), parts.keys.clone());
    loop {
        held.held().await;
        take_over(parts, &mut keeper).await;
        tokio::time::sleep(RENEW).await;
    }
}

fn tell(answer: Answer, superseded: bool, parts: &Parts) {
    match answer {
        Answer::Held => {}
        Answer::Lapsed if superseded => {
            tracing::warn!("the newer process with this instance's name is gone; this one has the jobs again");
            parts.board.trouble(&of_list(SUPERSEDED, &parts.list), None);
        }
        Answer::Lapsed => {
            tracing::warn!("the lease of this instance had run out; what others took over is theirs");
        }
        Answer::Superseded => {
            let text = "a newer process has this instance's name (listener.instance): it takes the jobs, this one does not until that one is gone";
            tracing::error!("{text}");
            parts.board.trouble(&of_list(SUPERSEDED, &parts.list), Some(text));
        }
    }
}

/// Takes over from every instance without a lease.
async fn take_over(parts: &Parts, keeper: &mut Keeper) {
    let instances = match keeper.instances().await {
        Ok(instances) => instances,
        Err(fault) => return tracing::debug!(%fault, "cannot look for instances whose lease ran out"),
    };
    for instance in instances.into_iter().filter(|instance| *instance != parts.instance) {
        match take_over_from(parts, keeper, &instance).await {
            Ok(TakenOver::Moved(jobs)) if jobs > 0 => {
                tracing::warn!(instance, jobs, "took over the jobs of an instance whose lease ran out");
            }
            Ok(_) => {}
            Err(trouble) => {
                tracing::debug!(instance, %trouble, "cannot take over from an instance whose lease ran out")
            }
        }
    }
}

/// What an instance without a lease left goes back to the list, but what the database has. First the fence: however long that instance was
/// paused, it commits nothing of it any more.
pub(super) async fn take_over_from(parts: &Parts, keeper: &mut Keeper, instance: &str) -> Result<TakenOver, Trouble> {
    let Some(starts) = keeper.unleased(instance).await? else { return Ok(TakenOver::Not) };
    let name = parts.name(instance);
    let (_, notes) = parts.database.within(parts.database.fence(&name, 0, clock::now())).await?;
    let (standing, found) = look(parts, keeper, instance, &notes).await?;
    Ok(keeper.take_over(instance, starts, standing.settled, found.settled, &found.done).await?)
}
