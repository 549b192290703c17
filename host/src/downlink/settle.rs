//! What became of a command is written down, and it leaves the processing list; many in one round trip.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::take::{Taken, UnderWay};
use crate::redis::connect::Link;
use crate::redis::push::{Push, Pusher};
use crate::telemetry::metrics;

/// The most that is settled in one round trip.
const MOST: usize = 256;

/// What became of a command.
pub struct Outcome {
    /// One word, for metrics.
    pub name: &'static str,
    /// What goes to the dead letters.
    pub dead: Option<Push>,
}

/// A command that is done.
pub struct Settled {
    /// It.
    pub taken: Taken,
    /// What became of it.
    pub outcome: Outcome,
}

/// Settles until every sender is gone, or until `abandon`: what is not settled then is sent again after the next start.
pub async fn run(
    mut settled: mpsc::Receiver<Settled>,
    mut pusher: Pusher,
    mut link: Link,
    processing: String,
    under_way: Arc<UnderWay>,
    abandon: CancellationToken,
) {
    let mut batch = Vec::with_capacity(MOST);
    while settled.recv_many(&mut batch, MOST).await > 0 {
        let dead: Vec<&Push> = batch.iter().filter_map(|one: &Settled| one.outcome.dead.as_ref()).collect();
        let done: Vec<Bytes> = batch.iter().map(|one| one.taken.raw.clone()).collect();
        // For ever, since nothing is given up while Redis is away; `commands.in_flight` bounds what waits.
        while let Err(fault) = pusher.settle(&dead, &processing, &done).await {
            let delay = link.down(&fault);
            tokio::select! {
                () = abandon.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
        link.up();
        for Settled { taken, outcome } in batch.drain(..) {
            metrics::command(outcome.name);
            under_way.remove(&taken.raw);
        }
    }
}
