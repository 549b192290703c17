//! What happens to the broker, and on the way to it.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use super::{Scenario, scenario};
use crate::chaos::load::Load;
use crate::chaos::outcome::{Outcome, Promise};
use crate::chaos::stage::{Setup, Stage, Trial};
use crate::{Broker, Machine, eventually};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("broker-kill-9", kill_9, quick),
        scenario!("broker-loses-its-sessions", loses_its_sessions, quick),
        scenario!("broker-black-hole", black_hole),
        scenario!("broker-packet-too-large", packet_too_large),
        scenario!("broker-receive-maximum-1", receive_maximum_1),
        scenario!("network-slow-and-cut", slow_and_cut),
    ]
}

/// mosquitto, which does one thing after the other, writes its file after it has acknowledged what it read in that turn: killed in between, it
/// loses what it acknowledged since it wrote the last one. That is the broker's.
fn unwritten(broker: &Broker) -> Instant {
    let written = fs::metadata(broker.path("mosquitto.db")).and_then(|file| file.modified());
    let since = written.expect("its file").elapsed().unwrap_or_default();
    assert!(since < Duration::from_secs(10), "mosquitto has not written for {since:?}");
    Instant::now().checked_sub(since).expect("it was written while this machine ran")
}

/// Killed and started again with what it wrote down.
async fn kill_9(trial: Trial) -> Outcome {
    let mut stage = Stage::set_up(trial, Setup { lasting: true, ..Setup::default() }).await;
    for _ in 0..stage.trial.times(2, 6) {
        stage.chance.pause(50..800).await;
        stage.broker.kill();
        let since = unwritten(&stage.broker);
        stage.fleet.ledger().doubt(since);
        stage.balances().await;
        stage.chance.pause(0..500).await;
        // A machine may have read since what it was told before the kill.
        stage.fleet.ledger().doubt(since);
        stage.broker.restart().await;
        stage.fleet.more(20).await;
    }
    stage.settle(&Promise::ALWAYS).await
}

/// Restarted without its sessions. What it had acknowledged and not handed on is gone, and so is what it acknowledges before the gateway
/// has subscribed again: so the machines are silent meanwhile. What the gateway had acknowledged to it, here into the spool, has to
/// arrive, and what is published after.
async fn loses_its_sessions(trial: Trial) -> Outcome {
    let mut stage = Stage::set_up(trial, Setup { lasting: true, ..Setup::default() }).await;
    for _ in 0..stage.trial.times(1, 3) {
        stage.chance.pause(50..500).await;
        stage.redis.kill();
        stage.fleet.more(50).await;
        stage.fleet.pause();
        stage.at_rest().await;
        stage.broker.forget();
        stage.gateway.says("mqtt: ").await;
        stage.balances().await;
        stage.broker.restart().await;
        stage.redis.restart().await;
        stage.ready().await;
        stage.fleet.resume();
        stage.fleet.more(50).await;
    }
    stage.settle(&Promise::ALWAYS).await
}

/// The gateway's connections stand, and nothing comes through: its keep-alive notices.
async fn black_hole(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    stage.chance.pause(50..500).await;
    stage.to_broker.hold_standing();
    let before = stage.fleet.ledger().count();
    crate::eventually::within(Duration::from_secs(60), "the keep-alive notices", async || {
        stage.gateway.log().contains("no connection to").then_some(())
    })
    .await;
    stage.balances().await;
    eventually("it goes on", async || {
        let comparison = stage.compare().await;
        (comparison.arrived > before + 200).then_some(())
    })
    .await;
    stage.to_broker.release();
    stage.fleet.more(50).await;
    stage.settle(&Promise::ALWAYS).await
}

/// Publishes that the gateway's packet limit forbids the broker to pass on [MQTT-3.1.2-25]: they never arrive, which is said in
/// `docs/promises.md`, and nothing else suffers.
async fn packet_too_large(trial: Trial) -> Outcome {
    let setup = Setup {
        mqtt: "max_packet_size = \"4KiB\"",
        load: Load { padding: 0..5_000, ..Load::default() },
        ..Setup::default()
    };
    let mut stage = Stage::set_up(trial, setup).await;
    let large = Machine::connect(stage.broker.port, "large", None).await;
    for _ in 0..stage.trial.times(5, 30) {
        stage.chance.pause(0..200).await;
        let payload = "x".repeat(usize::try_from(stage.chance.number(70_000..200_000)).expect("a small number"));
        large.publish("machine/large/heartbeat", format!(r#"{{"padding":"{payload}"}}"#)).await;
    }
    stage.balances().await;
    stage.settle(&Promise::ALWAYS).await
}

/// One publish at a time, with connections cut and the gateway killed in between.
async fn receive_maximum_1(trial: Trial) -> Outcome {
    let setup = Setup {
        mqtt: "receive_maximum = 1",
        load: Load { machines: 3, every: 20..120, ..Load::default() },
        ..Setup::default()
    };
    let mut stage = Stage::set_up(trial, setup).await;
    for _ in 0..stage.trial.times(2, 8) {
        stage.chance.pause(50..700).await;
        if stage.chance.number(0..3) == 0 {
            stage.gateway.kill();
            stage.gateway.run().await;
        } else {
            stage.to_broker.cut();
        }
        stage.balances().await;
    }
    stage.settle(&Promise::ALWAYS).await
}

/// Slow both ways on both sides, and cut now and then.
async fn slow_and_cut(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(4, 15) {
        stage.to_broker.delay(stage.chance.millis(0..60));
        stage.to_redis.delay(stage.chance.millis(0..60));
        stage.chance.pause(100..800).await;
        match stage.chance.number(0..3) {
            0 => stage.to_broker.cut(),
            1 => stage.to_redis.cut(),
            _ => {}
        }
        stage.balances().await;
    }
    stage.to_broker.delay(Duration::ZERO);
    stage.to_redis.delay(Duration::ZERO);
    stage.settle(&Promise::ALWAYS).await
}
