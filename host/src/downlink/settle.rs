//! What became of a command is written down, and it leaves the processing list; many in one round trip. First its dead letter, then its
//! result, then the entry: a command leaves only when all that is to be known of it stands somewhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sluicegate_core::command;
use sluicegate_core::lease::Standing;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::lease::Held;
use super::take::{Taken, UnderWay};
use crate::live::Current;
use crate::redis::claim::Claims;
use crate::redis::connect::{Link, RedisFault};
use crate::redis::push::{Done, Pusher};
use crate::telemetry::board::Board;
use crate::telemetry::{clock, metrics};

/// The most that is settled in one round trip.
const MOST: usize = 256;
/// How soon dead letters that were refused are tried again.
const AGAIN: Duration = Duration::from_secs(1);
const NO_LETTERS: &str = "the dead letters of commands";
const NO_RESULTS: &str = "the results of commands";

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// One word: `sent`, `waiting`, `duplicate`, `rejected`, `expired`, `no-subscriber`, `failed`.
    pub status: &'static str,
    /// Why.
    pub reason: Option<String>,
    /// What goes to the dead letters.
    pub dead: Option<Bytes>,
}

impl Outcome {
    /// The broker has it: that is so, whoever has the command now.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        self.status == "sent"
    }
}

/// What is to be told of a command.
pub enum Told {
    /// It is done.
    Done(Taken, Outcome),
    /// It is not done yet: its target, its id, and how it is.
    Note(String, String, Outcome),
}

/// What settling needs beside the connection.
pub struct Tools {
    /// What is under way.
    pub under_way: Arc<UnderWay>,
    /// The lease.
    pub held: Arc<Held>,
    /// How ids are remembered.
    pub claims: Claims,
    /// What offset people read times with.
    pub current: Current,
    /// Where it says what Redis refuses.
    pub board: Arc<Board>,
    /// Give up: what is not settled is sent again after the next start.
    pub abandon: CancellationToken,
}

/// It was abandoned.
struct Abandoned;

enum Event {
    /// So many came.
    Came(usize),
    /// It is time for those that were refused.
    Again,
}

/// Settles until every sender is gone, or until it is abandoned.
pub async fn run(mut told: mpsc::Receiver<Told>, pusher: Pusher, link: Link, tools: Tools) {
    let mut settling = Settling { pusher, link, tools };
    // Those whose dead letter is refused, and only those: `commands.in_flight` bounds them.
    let mut waiting: Vec<Told> = Vec::new();
    let mut came = Vec::with_capacity(MOST);
    let mut again = Instant::now();
    let mut open = true;
    // Those that are refused when nothing else comes any more stand in the processing list, and are judged again after the next start.
    while open {
        let abandon = settling.tools.abandon.clone();
        let event = tokio::select! {
            biased;
            () = abandon.cancelled() => return,
            () = sleep_until(again), if !waiting.is_empty() => Event::Again,
            count = told.recv_many(&mut came, MOST) => Event::Came(count),
        };
        let mut batch: Vec<Told> = match event {
            Event::Came(count) => {
                open = count > 0;
                std::mem::take(&mut came)
            }
            Event::Again => std::mem::take(&mut waiting),
        };
        match settling.settle(&mut batch).await {
            Ok(refused) if refused.is_empty() => {}
            Ok(refused) => {
                waiting.extend(refused);
                again = Instant::now() + AGAIN;
            }
            Err(Abandoned) => return,
        }
    }
}

struct Settling {
    pusher: Pusher,
    link: Link,
    tools: Tools,
}

impl Settling {
    /// Settles a batch; gives those back whose dead letter Redis refuses. For ever, since nothing is given up while Redis is away;
    /// `commands.in_flight`, and those that wait for machines that are away, bound what waits.
    async fn settle(&mut self, batch: &mut Vec<Told>) -> Result<Vec<Told>, Abandoned> {
        let refused = self.letters(batch).await?;
        if batch.is_empty() {
            // Redis refused their dead letters, or others have them: either way it answered.
            self.link.up();
            return Ok(refused);
        }
        self.results(batch).await?;
        let done: Vec<Done> = batch.iter().filter_map(done).collect();
        while let Err(fault) = self.pusher.done(&done, &self.tools.claims).await {
            self.pause(&fault).await?;
        }
        self.link.up();
        for told in batch.drain(..) {
            if let Told::Done(taken, outcome) = told {
                metrics::command(outcome.status);
                self.tools.under_way.remove(&taken);
            }
        }
        Ok(refused)
    }

    /// Writes the dead letters of those that are still this process's to judge; takes the others out, and those that are refused.
    async fn letters(&mut self, batch: &mut Vec<Told>) -> Result<Vec<Told>, Abandoned> {
        loop {
            self.leave_to_others(batch).await?;
            let letters: Vec<&[u8]> = batch.iter().filter_map(letter).collect();
            if letters.is_empty() {
                return Ok(Vec::new());
            }
            match self.pusher.letters(&letters).await {
                Ok(()) => {
                    self.tools.board.alarm(NO_LETTERS, None);
                    return Ok(Vec::new());
                }
                Err(fault @ RedisFault::Refused { .. }) => {
                    let text = format!("{fault}; commands that cannot become dead letters wait in the processing list");
                    if self.tools.board.alarm(NO_LETTERS, Some(&text)) {
                        tracing::warn!("{text}");
                    }
                    return Ok(batch.extract_if(.., |told| letter(told).is_some()).collect());
                }
                Err(fault) => self.pause(&fault).await?,
            }
        }
    }

    /// What another may have taken over it may have sent: unless it was sent here, nothing is said of it here.
    async fn leave_to_others(&self, batch: &mut Vec<Told>) -> Result<(), Abandoned> {
        let Tools { held, under_way, abandon, .. } = &self.tools;
        let judged = |told: &Told| match told {
            Told::Done(taken, outcome) if !outcome.was_sent() => Some(taken.tenure),
            _ => None,
        };
        // There is no more than one tenure that may be in force.
        let unsure = batch.iter().filter_map(judged).find(|tenure| held.standing(*tenure) == Standing::Unsure);
        if let Some(tenure) = unsure {
            tokio::select! {
                biased;
                () = abandon.cancelled() => return Err(Abandoned),
                _ = held.decided(tenure) => {}
            }
        }
        for told in
            batch.extract_if(.., |told| judged(told).is_some_and(|tenure| held.standing(tenure) == Standing::Over))
        {
            if let Told::Done(taken, _) = told {
                under_way.remove(&taken);
            }
        }
        Ok(())
    }

    /// Tells what became of them, where that is wanted. Where Redis refuses the list, it is not told: nobody waits for it.
    async fn results(&mut self, batch: &[Told]) -> Result<(), Abandoned> {
        let zone = self.tools.current.load().zone();
        let results: Vec<String> = batch.iter().map(|told| result(told, zone)).collect();
        let results: Vec<&[u8]> = results.iter().map(String::as_bytes).collect();
        loop {
            match self.pusher.results(&results).await {
                Ok(()) => {
                    self.tools.board.alarm(NO_RESULTS, None);
                    return Ok(());
                }
                Err(fault @ RedisFault::Refused { .. }) => {
                    let text = format!("{fault}; what becomes of commands cannot be told (queues.command_results)");
                    if self.tools.board.alarm(NO_RESULTS, Some(&text)) {
                        tracing::warn!("{text}");
                    }
                    return Ok(());
                }
                Err(fault) => self.pause(&fault).await?,
            }
        }
    }

    async fn pause(&mut self, fault: &RedisFault) -> Result<(), Abandoned> {
        let delay = self.link.down(fault);
        tokio::select! {
            biased;
            () = self.tools.abandon.cancelled() => Err(Abandoned),
            () = sleep(delay) => Ok(()),
        }
    }
}

fn letter(told: &Told) -> Option<&[u8]> {
    match told {
        Told::Done(_, outcome) => outcome.dead.as_deref(),
        Told::Note(..) => None,
    }
}

fn done(told: &Told) -> Option<Done> {
    let Told::Done(taken, outcome) = told else { return None };
    // A duplicate's id belongs to the first.
    let id = (!taken.duplicate).then(|| (taken.id().to_owned(), outcome.was_sent()));
    Some(Done { raw: taken.raw.clone(), id })
}

fn result(told: &Told, zone: sluicegate_core::settings::UtcOffset) -> String {
    let (target, id, Outcome { status, reason, .. }) = match told {
        Told::Note(target, id, outcome) => (target.clone(), id.clone(), outcome),
        Told::Done(taken, outcome) => {
            // Whoever sent what is no command wants to know which of theirs it was.
            let (target, id) = taken.command.as_ref().map_or_else(
                |_| command::named(&taken.raw),
                |command| (command.target.clone(), command.message_id.clone()),
            );
            (target, id, outcome)
        }
    };
    let at = clock::rfc3339(clock::now(), zone);
    json!({ "message_id": id, "target": target, "status": status, "reason": reason, "at": at }).to_string()
}
