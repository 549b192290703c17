//! One batcher for all lanes: many jobs in one round trip, then their acknowledgements.

use std::sync::Arc;

use sluicegate_core::batch::{Batching, MAX_MESSAGES};
use sluicegate_core::ticket::Outcome;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::ack::{Acks, Open};
use crate::redis::connect::Link;
use crate::redis::push::{Push, Pusher};
use crate::telemetry::metrics::{self, RouteMetrics};

/// One message's outcome, to be made durable.
pub struct Item {
    /// What settles it.
    pub open: Open,
    /// What is to be pushed; nothing, where it was dropped on purpose.
    pub pushes: Vec<Push>,
    /// What it then is.
    pub outcome: Outcome,
    /// What its route counts.
    pub metrics: Option<(Arc<[RouteMetrics]>, usize)>,
}

/// Pushes until every sender is gone and everything is pushed, or until `abandon`: what is not pushed then is not
/// acknowledged, and the broker sends it again.
pub async fn run(
    mut items: mpsc::Receiver<Item>,
    mut pusher: Pusher,
    mut link: Link,
    acks: Acks,
    abandon: CancellationToken,
) {
    let mut batching = Batching::default();
    let mut batch: Vec<Item> = Vec::with_capacity(MAX_MESSAGES);
    connect(&mut pusher, &mut link, &abandon).await;
    while items.recv_many(&mut batch, MAX_MESSAGES).await > 0 {
        fill(&mut items, &mut batch, &batching).await;
        batching.pushed(batch.len());
        metrics::batch(batch.len());
        let pushes: Vec<&Push> = batch.iter().flat_map(|item| &item.pushes).collect();
        // For ever, since nothing is given up while Redis is away; the receive maximum bounds what waits.
        while let Err(fault) = pusher.push(&pushes).await {
            let delay = link.down(&fault);
            tokio::select! {
                () = abandon.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
        link.up();
        acks.settle(batch.drain(..).filter_map(|item| {
            let metrics = item.metrics.as_ref().map(|(all, route)| &all[*route]);
            item.open.settle(item.outcome, metrics)
        }));
    }
}

/// Says early whether Redis is there, not only with the first message.
async fn connect(pusher: &mut Pusher, link: &mut Link, abandon: &CancellationToken) {
    while let Err(fault) = pusher.connect().await {
        let delay = link.down(&fault);
        tokio::select! {
            () = abandon.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
    link.up();
}

/// Under load, waits a little for more.
async fn fill(items: &mut mpsc::Receiver<Item>, batch: &mut Vec<Item>, batching: &Batching) {
    let size = |items: &[Item]| items.iter().flat_map(|item| &item.pushes).map(|push| push.value.len()).sum::<usize>();
    let mut bytes = size(batch);
    let deadline = Instant::now() + batching.wait(batch.len(), bytes);
    while !batching.wait(batch.len(), bytes).is_zero() {
        let before = batch.len();
        match timeout_at(deadline, items.recv_many(batch, MAX_MESSAGES - before)).await {
            Ok(count) if count > 0 => bytes += size(&batch[before..]),
            _ => return,
        }
    }
}
