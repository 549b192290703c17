//! What happens to Redis.

use super::{Scenario, scenario};
use crate::chaos::outcome::{Outcome, Promise};
use crate::chaos::stage::{JOBS, Stage, Trial};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("redis-kill-9", kill_9, quick),
        scenario!("redis-loses-its-data", loses_its_data, quick),
        scenario!("redis-sigstop", sigstop, quick),
    ]
}

/// Killed and started again with its data.
async fn kill_9(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(2, 6) {
        stage.chance.pause(50..500).await;
        stage.redis.kill();
        stage.balances().await;
        stage.chance.pause(0..1_500).await;
        stage.redis.restart().await;
        stage.balances().await;
    }
    stage.settle(&Promise::ALWAYS).await
}

/// Killed and started again without its data. What the list was when it died is read from its file, which was synced before each
/// answer, and counts as arrived: so nothing else may be missing. What is remembered of transactions is gone, too: one whose push was
/// not answered may come again.
async fn loses_its_data(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(1, 4) {
        stage.chance.pause(50..500).await;
        let list = stage.redis.lose(JOBS).await;
        stage.before.extend(list);
        stage.chance.pause(0..1_000).await;
        stage.redis.restart().await;
        stage.balances().await;
    }
    stage.settle(&Promise { deduped: false, ..Promise::ALWAYS }).await
}

/// Stopped in its tracks: shorter and longer than the gateway waits for an answer.
async fn sigstop(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(2, 4) {
        stage.chance.pause(50..500).await;
        stage.redis.freeze();
        stage.chance.pause(200..3_500).await;
        stage.balances().await;
        stage.redis.thaw();
        stage.balances().await;
    }
    stage.settle(&Promise::ALWAYS).await
}
