//! Batch after batch: divided among the lanes, committed, taken off the processing list.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use sluicegate_core::lease::Tenure;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::begin::{Begun, begin};
use super::lane::{Entry, Fenced, Part};
use super::lease::{self, Held};
use super::{Parts, take};
use crate::board::Patience;
use crate::domain::lanes;
use crate::redis::lists::Keeper;
use crate::redis::push::Pusher;
use crate::{clock, metrics};

/// Batches between taking and committing: one waits while one is under way, so that neither waits for the other.
const AHEAD: usize = 1;

/// Why a tenure's work ended.
enum Ended {
    /// It is to end.
    Stop,
    /// Another may have taken over, or jobs may have been moved that nobody was told of: the list is to be read anew.
    Anew,
}

/// Works until `stop`; then ends with the batch that is under way, gives the lease back, and what is left goes back to the list.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let held = Arc::new(Held::default());
    let last = CancellationToken::new();
    let keeping = lease::run(parts.clone(), held.clone(), last.clone());
    let working = async {
        work(&parts, &held, &stop).await;
        last.cancel();
    };
    tokio::join!(keeping, working);
    let mut keeper = Keeper::new(parts.redis.clone(), parts.keys.clone());
    match lease::take_over_from(&parts, &mut keeper, &parts.instance).await {
        Ok(_) => {}
        Err(trouble) => {
            tracing::warn!(%trouble, "what is left in the processing list stays there, for the next start or another instance");
        }
    }
}

async fn work(parts: &Parts, held: &Held, stop: &CancellationToken) {
    let mut keeper = Keeper::new(parts.redis.clone(), parts.keys.clone());
    let mut letters: Vec<Pusher> = (0..parts.lanes)
        .map(|_| {
            let (list, most) = parts.dead_letters.clone();
            Pusher::new(parts.redis.clone(), list, Some(most))
        })
        .collect();
    loop {
        let tenure = tokio::select! {
            () = stop.cancelled() => return,
            tenure = held.held() => tenure,
        };
        let mut patience = Patience::new(&parts.board, "beginning to take jobs");
        let begun = loop {
            match begin(parts, &mut keeper).await {
                Ok(begun) => break begun,
                Err(trouble) => {
                    let delay = patience.bad(&trouble);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        };
        patience.good();
        if let Ended::Stop = tenured(parts, held, tenure, begun, &mut keeper, &mut letters, stop).await {
            return;
        }
    }
}

/// Works through one tenure.
async fn tenured(
    parts: &Parts,
    held: &Held,
    tenure: Tenure,
    begun: Begun,
    keeper: &mut Keeper,
    letters: &mut [Pusher],
    stop: &CancellationToken,
) -> Ended {
    let Begun { epoch, mut settled, standing } = begun;
    for batch in standing.chunks(parts.batch) {
        if stop.is_cancelled() {
            return Ended::Stop;
        }
        if let Some(ended) = batch_of(parts, held, tenure, epoch, &mut settled, batch, keeper, letters).await {
            return ended;
        }
    }
    let (send, mut batches) = mpsc::channel::<Vec<Bytes>>(AHEAD);
    let taking = take::run(parts, held, tenure, send);
    let committing = async {
        loop {
            // An orderly end leaves what is not begun; a tenure that is over, all of it.
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Stop,
                () = held.over(tenure) => return Ended::Anew,
                batch = batches.recv() => batch,
            };
            let Some(batch) = batch else { return Ended::Anew };
            if let Some(ended) = batch_of(parts, held, tenure, epoch, &mut settled, &batch, keeper, letters).await {
                return ended;
            }
        }
    };
    tokio::pin!(taking, committing);
    tokio::select! {
        ended = &mut committing => ended,
        // It lost count of what it moved: what it told of is committed first.
        () = &mut taking => committing.await,
    }
}

/// One batch: committed and off the list, unless it ends before.
#[expect(clippy::too_many_arguments, reason = "what one tenure owns; a struct of it would be borrowed in parts")]
async fn batch_of(
    parts: &Parts,
    held: &Held,
    tenure: Tenure,
    epoch: i64,
    settled: &mut u64,
    batch: &[Bytes],
    keeper: &mut Keeper,
    letters: &mut [Pusher],
) -> Option<Ended> {
    let (number, began) = (*settled + 1, clock::uptime());
    let divided = divide(parts, epoch, number, batch);
    let committing = join_all(divided.iter().zip(letters).map(|(part, letters)| part.commit(letters)));
    let committed = tokio::select! {
        biased;
        committed = committing => committed,
        // What another took over is fenced off in the database; this only saves the waiting.
        () = held.over(tenure) => return Some(Ended::Anew),
    };
    if committed.into_iter().any(|committed| matches!(committed, Err(Fenced))) {
        tracing::warn!("another process has taken over what this listener was at; it reads the list anew");
        return Some(Ended::Anew);
    }
    let mut patience = Patience::new(&parts.board, "taking finished jobs off the list");
    loop {
        match keeper.settle(&parts.instance, number, batch.len()).await {
            Ok(true) => break,
            Ok(false) => return Some(Ended::Anew),
            Err(fault) => {
                let delay = patience.bad(&fault);
                tokio::select! {
                    () = held.over(tenure) => return Some(Ended::Anew),
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
    }
    patience.good();
    metrics::batch(&parts.list, batch.len(), clock::uptime().saturating_sub(began));
    *settled = number;
    None
}

fn divide<'p>(parts: &'p Parts, epoch: i64, batch: u64, entries: &[Bytes]) -> Vec<Part<'p>> {
    let size = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let mut divided: Vec<Part<'p>> =
        (0..parts.lanes).map(|lane| Part { parts, epoch, batch, size, lane, entries: Vec::new() }).collect();
    let mut kinds: BTreeMap<&'static str, u64> = BTreeMap::new();
    for raw in entries {
        let job = parts.source.read(raw).map_err(|error| error.to_string());
        *kinds.entry(parts.source.label(job.as_ref().ok().map(|job| &job.work))).or_default() += 1;
        // As it will be looked at after a crash: by what the entry says, whether or not it is a job.
        let lane = match &job {
            Ok(job) => lanes::of(&job.serial_no, parts.lanes),
            Err(_) => lanes::of(&parts.source.machine(raw), parts.lanes),
        };
        divided[lane as usize].entries.push(Entry { raw: raw.clone(), job });
    }
    kinds.into_iter().for_each(|(kind, jobs)| metrics::taken(kind, jobs));
    divided
}
