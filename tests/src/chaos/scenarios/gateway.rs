//! What happens to the gateway's process.

use std::time::Duration;

use super::{Scenario, scenario};
use crate::chaos::outcome::{Outcome, Promise};
use crate::chaos::stage::{Setup, Stage, Trial};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("gateway-kill-9", kill_9, quick),
        scenario!("gateway-sigstop", sigstop),
        scenario!("gateway-sigterm", sigterm, quick),
        scenario!("gateway-two-with-one-client-id", two_with_one_client_id, quick),
    ]
}

/// Killed at random moments, and started again. Redis is some way off, so that there always are pushes that it has not answered.
async fn kill_9(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(3, 20) {
        stage.to_redis.delay(stage.chance.millis(0..200));
        stage.chance.pause(0..400).await;
        stage.gateway.kill();
        stage.chance.pause(0..100).await;
        // Sometimes it dies again before it is ready.
        if stage.chance.number(0..3) == 0 {
            stage.gateway.spawn().await;
        } else {
            stage.gateway.run().await;
            stage.balances().await;
        }
    }
    stage.to_redis.delay(Duration::ZERO);
    stage.ready().await;
    stage.settle(&Promise::ALWAYS).await
}

/// Stopped in its tracks for a while; a push may be under way.
async fn sigstop(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(2, 6) {
        stage.chance.pause(50..400).await;
        stage.gateway.signal("STOP");
        stage.chance.pause(100..1_800).await;
        stage.gateway.signal("CONT");
        stage.balances().await;
    }
    stage.settle(&Promise::ALWAYS).await
}

/// Asked to end under load, and started again: nothing comes twice.
async fn sigterm(trial: Trial) -> Outcome {
    // It waits until the broker has read every acknowledgement, and a broker that writes its file at each may take its time.
    let setup = Setup { more: "[gateway]\nshutdown_timeout = \"25s\"\n", ..Setup::default() };
    let mut stage = Stage::set_up(trial, setup).await;
    let mut failed = Vec::new();
    for _ in 0..stage.trial.times(2, 8) {
        stage.chance.pause(50..600).await;
        stage.gateway.signal("TERM");
        let status = stage.gateway.ended().await;
        if !status.success() {
            failed.push(format!("SIGTERM ended with {status}"));
        }
        stage.chance.pause(0..300).await;
        stage.gateway.run().await;
        stage.balances().await;
        stage.keeps_up().await;
    }
    let mut outcome = stage.settle(&Promise::ONCE).await;
    outcome.wrong.extend(failed);
    outcome
}

/// Two with one client id: the broker ends the session of one for the other, again and again, with publishes under way on both. Each
/// delivery is acknowledged by the one that has the session and made it durable. Order is not promised: what one had taken before it
/// lost the session it may push after the other did.
async fn two_with_one_client_id(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    let mut rival = stage.trial.gateway(&stage.settings_of("sluicegate", "rival"), "rival");
    // Whose turn it is changes all the time, so neither is ready for long.
    rival.spawn().await;
    for _ in 0..stage.trial.times(2, 8) {
        stage.chance.pause(400..1_200).await;
        stage.to_broker.cut();
        stage.balances().await;
        if stage.chance.number(0..2) == 0 {
            rival.kill();
            rival.spawn().await;
        }
    }
    // The rival gives up, and the session is the other's.
    rival.signal("TERM");
    let status = rival.ended().await;
    let mut outcome = stage.settle(&Promise { ordered: false, ..Promise::ALWAYS }).await;
    if !status.success() {
        outcome.wrong.push(format!("the rival ended with {status}"));
    }
    outcome
}
