//! Moves jobs into the processing list, batch by batch, as long as the lease is this process's.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Parts;
use super::lease::{Held, Term};
use crate::board::Patience;
use crate::redis::lists::{Taken, Taker};

/// How often a lease that is unsure is looked at again.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);

/// Takes until nobody listens any more, or the tenure is over. What was moved and not sent on stands in the processing list.
pub(super) async fn run(
    parts: &Parts,
    held: &Held,
    term: Term,
    batches: mpsc::Sender<Vec<Bytes>>,
    patience: &mut Patience<'_>,
) {
    let mut taker = Taker::new(parts.redis.clone(), &parts.keys, &parts.instance, term.number);
    loop {
        // A place first: what is moved has somewhere to go.
        let Ok(place) = batches.reserve().await else { return };
        if !held.is_in_force(term.tenure) {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match taker.take(parts.batch).await {
            Ok(Taken::Jobs(batch)) => {
                patience.good();
                if !batch.is_empty() {
                    place.send(batch);
                }
            }
            // Redis knows before this process does: what was sent on is committed, or fenced off, and the caller asks for the lease.
            Ok(Taken::NotHeld) => return,
            // Jobs may have been moved that nobody was told of: the caller reads the list anew.
            Err(fault) => {
                let delay = patience.bad(&fault);
                tokio::time::sleep(delay).await;
                return;
            }
        }
    }
}
