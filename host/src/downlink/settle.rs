//! What became of a command is written down, and it leaves the processing list; many in one round trip.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use sluicegate_core::settings::UtcOffset;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::take::{Taken, UnderWay};
use crate::redis::claim::Claims;
use crate::redis::connect::Link;
use crate::redis::push::{Pusher, Settlement};
use crate::telemetry::{clock, metrics};

/// The most that is settled in one round trip.
const MOST: usize = 256;

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
    /// How ids are remembered.
    pub claims: Claims,
    /// Of times that people read.
    pub zone: UtcOffset,
}

/// Settles until every sender is gone, or until `abandon`: what is not settled then is sent again after the next start.
pub async fn run(
    mut told: mpsc::Receiver<Told>,
    mut pusher: Pusher,
    mut link: Link,
    tools: Tools,
    abandon: CancellationToken,
) {
    let mut batch = Vec::with_capacity(MOST);
    while told.recv_many(&mut batch, MOST).await > 0 {
        let mut settlements: Vec<Settlement> = batch.iter().map(|told| settlement(told, tools.zone)).collect();
        // For ever, since nothing is given up while Redis is away; `commands.in_flight` bounds what waits.
        while let Err(fault) = pusher.settle(&mut settlements, &tools.claims).await {
            let delay = link.down(&fault);
            tokio::select! {
                () = abandon.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
        link.up();
        for told in batch.drain(..) {
            if let Told::Done(taken, outcome) = told {
                metrics::command(outcome.status);
                tools.under_way.remove(&taken);
            }
        }
    }
}

fn settlement(told: &Told, zone: UtcOffset) -> Settlement {
    let result = |target: &str, id: &str, outcome: &Outcome| {
        let at = clock::rfc3339(clock::now(), zone);
        let Outcome { status, reason, .. } = outcome;
        let result = json!({ "message_id": id, "target": target, "status": status, "reason": reason, "at": at });
        Some(Bytes::from(result.to_string()))
    };
    match told {
        Told::Note(target, id, outcome) => Settlement { result: result(target, id, outcome), ..Settlement::default() },
        Told::Done(taken, outcome) => {
            let target = taken.command.as_ref().map_or("", |command| command.target.as_str());
            Settlement {
                done: Some(taken.raw.clone()),
                // A duplicate's id belongs to the first.
                id: (!taken.duplicate).then(|| (taken.id().to_owned(), outcome.status == "sent")),
                dead: outcome.dead.clone(),
                result: result(target, taken.id(), outcome),
            }
        }
    }
}
