//! What happens to the broker, and on the way to it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Scenario, scenario};
use crate::chaos::outcome::{Outcome, Promise};
use crate::chaos::stage::{Stage, Trial};

pub(super) fn all() -> Vec<Scenario> {
    vec![scenario!("broker-kill-9", kill_9, quick)]
}

/// mosquitto writes its file after it has acknowledged what it read in that turn: killed in between, it loses what it acknowledged last.
/// That is the broker's.
const UNWRITTEN: Duration = Duration::from_millis(100);

/// Killed and started again with what it wrote down.
async fn kill_9(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(2, 6) {
        stage.chance.pause(50..800).await;
        let doubtful = Instant::now() - UNWRITTEN;
        stage.broker.kill();
        stage.fleet.ledger().doubt(doubtful);
        stage.balances().await;
        stage.chance.pause(0..500).await;
        stage.broker.restart().await;
        stage.fleet.more(20).await;
    }
    stage.settle(&Promise::ALWAYS).await
}
