//! Batch after batch: divided among the lanes, committed, taken off the processing list.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::begin::{Begun, begin};
use super::lane::{Entry, Fenced, Part};
use super::lease::{self, Held, Term};
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
    // It outlives a tenure: each fault of the taker ends one.
    let mut taking = Patience::with_list(&parts.board, "taking jobs from Redis", &parts.list);
    loop {
        let term = tokio::select! {
            () = stop.cancelled() => return,
            term = held.held() => term,
        };
        let mut patience = Patience::with_list(&parts.board, "beginning to take jobs", &parts.list);
        let begun = loop {
            match begin(parts, &mut keeper, term.number).await {
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
        if let Some(Begun { epoch, settled, standing }) = begun {
            let mut working = Working { parts, held, term, epoch, settled, keeper: &mut keeper, letters: &mut letters };
            if let Ended::Stop = working.run(standing, &mut taking, stop).await {
                return;
            }
        }
        // Invariant: the list is read at the beginning of a tenure, and whatever an older one sent moves nothing from then on.
        tokio::select! {
            () = stop.cancelled() => return,
            () = held.renounce(term.tenure) => {}
        }
    }
}

/// What one tenure has.
struct Working<'a> {
    parts: &'a Parts,
    held: &'a Held,
    term: Term,
    epoch: i64,
    /// The last batch that left the list.
    settled: u64,
    keeper: &'a mut Keeper,
    letters: &'a mut [Pusher],
}

impl Working<'_> {
    /// Works through it: first what stood in the list.
    async fn run(&mut self, standing: usize, patience: &mut Patience<'_>, stop: &CancellationToken) -> Ended {
        if let Some(ended) = self.standing(standing, stop).await {
            return ended;
        }
        let (send, mut batches) = mpsc::channel::<Vec<Bytes>>(AHEAD);
        let (held, tenure) = (self.held, self.term.tenure);
        let taking = take::run(self.parts, held, self.term, send, patience);
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
                if let Some(ended) = self.batch(&batch).await {
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

    /// The first so many entries of the list, batch by batch: all of them at once may be more than this process may hold.
    async fn standing(&mut self, mut left: usize, stop: &CancellationToken) -> Option<Ended> {
        let (parts, held, tenure) = (self.parts, self.held, self.term.tenure);
        let mut patience = Patience::with_list(&parts.board, "reading what stands in the processing list", &parts.list);
        while left > 0 {
            if stop.is_cancelled() {
                return Some(Ended::Stop);
            }
            match self.keeper.entries(&parts.instance, 0, left.min(parts.batch)).await {
                // Another has taken it over.
                Ok(batch) if batch.is_empty() => return Some(Ended::Anew),
                Ok(batch) => {
                    patience.good();
                    if let Some(ended) = self.batch(&batch).await {
                        return Some(ended);
                    }
                    left = left.saturating_sub(batch.len());
                }
                Err(fault) => {
                    let delay = patience.bad(&fault);
                    tokio::select! {
                        () = stop.cancelled() => return Some(Ended::Stop),
                        () = held.over(tenure) => return Some(Ended::Anew),
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
        None
    }

    /// One batch: committed and off the list, unless it ends before.
    async fn batch(&mut self, batch: &[Bytes]) -> Option<Ended> {
        let (parts, held, tenure) = (self.parts, self.held, self.term.tenure);
        let (number, began) = (self.settled + 1, clock::uptime());
        let divided = divide(parts, self.epoch, number, batch);
        let committing =
            join_all(divided.iter().zip(self.letters.iter_mut()).map(|(part, letters)| part.commit(letters)));
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
        let mut patience = Patience::with_list(&parts.board, "taking finished jobs off the list", &parts.list);
        loop {
            match self.keeper.settle(&parts.instance, number, batch.len()).await {
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
        self.settled = number;
        None
    }
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
