//! Keeps this instance's lease, and takes over what stands in the processing lists of instances whose lease ran out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluicegate_core::lease::{Answer, LIFE, Lease, RENEW, Standing, Tenure};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::redis::lease::Leases;
use crate::telemetry::board::Board;
use crate::telemetry::clock;

/// How soon a renewal that got no answer is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long giving the lease back may take.
const RELEASE: Duration = Duration::from_secs(1);
const SUPERSEDED: &str = "another process has this instance's name";
/// Raised while no command may be sent for want of a lease.
const NOT_RENEWED: &str = "the lease of this instance is not renewed";

/// The lease as this process sees it. The lock is held for a look only.
#[derive(Debug, Default)]
pub struct Held {
    lease: Mutex<Lease>,
    changed: Notify,
}

impl Held {
    fn look<T>(&self, look: impl FnOnce(&Lease, Duration) -> T) -> T {
        look(&self.lease.lock().unwrap_or_else(PoisonError::into_inner), clock::uptime())
    }

    /// Waits for an answer of Redis after which there is something.
    async fn until<T>(&self, look: impl Fn(&Lease, Duration) -> Option<T>) -> T {
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

    /// How a tenure stands: what was taken in it may be sent and judged only while that is in force.
    #[must_use]
    pub fn standing(&self, tenure: Tenure) -> Standing {
        self.look(|lease, now| lease.standing(tenure, now))
    }

    /// Waits until there is a tenure in force.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn held(&self) -> Tenure {
        self.until(Lease::tenure).await
    }

    /// Waits until a tenure is over.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn over(&self, tenure: Tenure) {
        self.until(|lease, now| (lease.standing(tenure, now) == Standing::Over).then_some(())).await;
    }

    /// Waits until a tenure is in force (true), or over.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn decided(&self, tenure: Tenure) -> bool {
        self.until(|lease, now| match lease.standing(tenure, now) {
            Standing::InForce => Some(true),
            Standing::Over => Some(false),
            Standing::Unsure => None,
        })
        .await
    }

    /// True: a newer process of the same name has it.
    fn answered(&self, answer: Answer, asked: Duration) -> bool {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        lease.answered(answer, asked);
        let superseded = lease.is_superseded();
        drop(lease);
        self.changed.notify_waiters();
        superseded
    }
}

/// Renews until `last`, then gives the lease back. While a newer process of the same name has it this one takes and sends no command;
/// should that one be gone, it has them again.
pub async fn run(mut leases: Leases, held: Arc<Held>, board: Arc<Board>, last: CancellationToken) {
    let keeping = async {
        let (mut said, mut superseded) = (false, false);
        let mut answered = clock::uptime();
        loop {
            let asked = clock::uptime();
            let answer = if superseded {
                match leases.succeed().await {
                    Ok(true) => Ok(Some(Answer::Lapsed)),
                    Ok(false) => Ok(None),
                    Err(fault) => Err(fault),
                }
            } else {
                leases.renew().await.map(Some)
            };
            let delay = match answer {
                Ok(answer) => {
                    answered = clock::uptime();
                    if std::mem::take(&mut said) {
                        tracing::info!("the lease of this instance is renewed again");
                        board.alarm(NOT_RENEWED, None);
                    }
                    if let Some(answer) = answer {
                        tell(answer, superseded, &board);
                        superseded = held.answered(answer, asked);
                        if !superseded {
                            take_over(&mut leases).await;
                        }
                    }
                    RENEW
                }
                Err(fault) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%fault, "the lease of this instance is not renewed; trying again");
                    }
                    if clock::uptime() - answered > LIFE {
                        board.alarm(NOT_RENEWED, Some(&format!("no command is taken or sent: {NOT_RENEWED}: {fault}")));
                    }
                    AGAIN
                }
            };
            tokio::time::sleep(delay).await;
        }
    };
    tokio::select! {
        () = last.cancelled() => {
            // Where Redis is away it runs out by itself.
            let _ = tokio::time::timeout(RELEASE, leases.release()).await;
        }
        () = keeping => {}
    }
}

fn tell(answer: Answer, superseded: bool, board: &Board) {
    match answer {
        Answer::Held => {}
        Answer::Lapsed if superseded => {
            tracing::warn!("the newer process with this instance's name is gone; this one has the commands again");
            board.alarm(SUPERSEDED, None);
        }
        Answer::Lapsed => {
            tracing::warn!("the lease of this instance had run out; commands that were taken over are not sent");
        }
        Answer::Superseded => {
            let text = "a newer process has this instance's name (gateway.instance): it takes and sends the commands, this one does not until that one is gone";
            tracing::error!("{text}");
            board.alarm(SUPERSEDED, Some(text));
        }
    }
}

async fn take_over(leases: &mut Leases) {
    match leases.take_over().await {
        Ok(taken) => {
            for (instance, commands) in taken {
                tracing::warn!(instance, commands, "took over the commands of an instance whose lease ran out");
            }
        }
        Err(fault) => tracing::debug!(%fault, "cannot look for instances whose lease ran out"),
    }
}
