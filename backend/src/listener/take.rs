//! Moves jobs into the processing list, batch by batch, as long as the lease is this process's.

use bytes::Bytes;
use sluicegate_core::lease::Tenure;
use tokio::sync::mpsc;

use super::Parts;
use super::lease::Held;
use crate::board::Patience;
use crate::redis::lists::Taker;

/// How often a lease that is unsure is looked at again.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);

/// Takes until nobody listens any more, or the tenure is over. What was moved and not sent on stands in the processing list.
pub(super) async fn run(parts: &Parts, held: &Held, tenure: Tenure, batches: mpsc::Sender<Vec<Bytes>>) {
    let mut taker = Taker::new(parts.redis.clone(), &parts.keys, &parts.instance);
    let mut patience = Patience::new(&parts.board, "taking jobs from Redis");
    loop {
        // A place first: what is moved has somewhere to go.
        let Ok(place) = batches.reserve().await else { return };
        if !held.is_in_force(tenure) {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match taker.take(parts.batch).await {
            Ok(batch) => {
                patience.good();
                if !batch.is_empty() {
                    place.send(batch);
                }
            }
            // Jobs may have been moved that nobody was told of: the caller reads the list anew.
            Err(fault) => {
                let delay = patience.bad(&fault);
                tokio::time::sleep(delay).await;
                return;
            }
        }
    }
}
