//! What happens to Redis.

use super::{Scenario, scenario};
use crate::chaos::outcome::{Outcome, Promise};
use crate::chaos::stage::{JOBS, Setup, Stage, Trial};
use crate::{RedisServer, eventually};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("redis-kill-9", kill_9, quick),
        scenario!("redis-loses-its-data", loses_its_data, quick),
        scenario!("redis-sigstop", sigstop),
        scenario!("redis-client-pause", client_pause),
        scenario!("redis-refuses", refuses, quick),
        scenario!("redis-fails-over", fails_over),
        scenario!("redis-replica-promoted", replica_promoted),
        scenario!("redis-forgets-scripts-and-clients", forgets_scripts_and_clients),
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

/// Told to answer nobody, or no writes, for a while.
async fn client_pause(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(2, 5) {
        stage.chance.pause(50..500).await;
        let (millis, whom) =
            (stage.chance.number(200..3_000), ["ALL", "WRITE"][usize::from(stage.chance.number(0..2) == 0)]);
        stage.redis.command(&format!("CLIENT PAUSE {millis} {whom}")).await;
        stage.chance.pause(millis..millis + 500).await;
        stage.balances().await;
    }
    stage.settle(&Promise::ALWAYS).await
}

/// Answers with errors: out of memory, cannot save, wants a password. None is a message's fault, and no push is in doubt.
async fn refuses(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    stage.redis.command("CONFIG SET maxmemory-policy noeviction").await;
    for _ in 0..stage.trial.times(1, 3) {
        // It cannot save while a folder has the name of its file.
        let file = stage.redis.path("dump.rdb");
        drop(std::fs::remove_file(&file));
        std::fs::create_dir(&file).expect("a folder");
        let mut connection = stage.redis.connect().await;
        let mut ask = ::redis::cmd("CONFIG");
        ask.arg("SET").arg("save").arg("3600 1").exec_async(&mut connection).await.expect("set");
        save(&stage.redis, "err").await;
        stage.gateway.says("MISCONF").await;
        stage.chance.pause(0..500).await;
        stage.balances().await;
        std::fs::remove_dir(&file).expect("removed");
        save(&stage.redis, "ok").await;
        stage.redis.command("CONFIG SET save ").await;
        stage.ready().await;

        stage.redis.command("CONFIG SET maxmemory 1").await;
        stage.gateway.says("maxmemory").await;
        stage.chance.pause(0..500).await;
        stage.balances().await;
        stage.redis.command("CONFIG SET maxmemory 0").await;
        stage.ready().await;

        // Whoever is connected stays so: all others are told to go.
        let mut connection = stage.redis.connect().await;
        let mut tell = async |line: &str| {
            let mut words = line.split(' ');
            let mut command = ::redis::cmd(words.next().expect("a word"));
            command.arg(words.collect::<Vec<_>>());
            command.exec_async(&mut connection).await.unwrap_or_else(|error| panic!("{line}: {error}"));
        };
        tell("CONFIG SET requirepass secret").await;
        tell("CLIENT KILL TYPE normal SKIPME yes").await;
        stage.gateway.says("NOAUTH").await;
        stage.chance.pause(0..500).await;
        stage.balances().await;
        tell("CONFIG SET requirepass ").await;
        stage.ready().await;
    }
    stage.settle(&Promise::ALWAYS).await
}

/// Asks for a save until one ends as expected.
async fn save(redis: &RedisServer, expected: &str) {
    eventually(&format!("a save ends: {expected}"), async || {
        let mut connection = redis.connect().await;
        // One may be under way.
        drop(::redis::cmd("BGSAVE").exec_async(&mut connection).await);
        let info: String = ::redis::cmd("INFO").arg("persistence").query_async(&mut connection).await.ok()?;
        info.contains(&format!("rdb_last_bgsave_status:{expected}")).then_some(())
    })
    .await;
}

async fn follows(replica: &RedisServer, master: &RedisServer) {
    // It would wait five seconds for more replicas.
    master.command("CONFIG SET repl-diskless-sync-delay 0").await;
    replica.command(&format!("REPLICAOF 127.0.0.1 {}", master.port)).await;
    tells(replica, "master_link_status:up").await;
}

/// Waits until a server says this of its replication.
async fn tells(redis: &RedisServer, line: &str) {
    eventually(line, async || {
        let mut connection = redis.connect().await;
        let info: String = ::redis::cmd("INFO").arg("replication").query_async(&mut connection).await.ok()?;
        info.contains(line).then_some(())
    })
    .await;
}

/// Master and replica change places in good order; for a while the gateway still speaks to the old one, which is read-only now.
async fn fails_over(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    let mut replica = RedisServer::start().await;
    for _ in 0..stage.trial.times(1, 4) {
        follows(&replica, &stage.redis).await;
        stage.chance.pause(50..500).await;
        stage.redis.command(&format!("FAILOVER TO 127.0.0.1 {}", replica.port)).await;
        // Writes wait until they have agreed; only then the old one refuses them.
        tells(&stage.redis, "role:slave").await;
        tells(&stage.redis, "master_failover_state:no-failover").await;
        stage.gateway.says("point redis.url to the master").await;
        stage.chance.pause(0..800).await;
        stage.balances().await;
        stage.to_redis.lead_to(replica.port);
        stage.to_redis.cut();
        std::mem::swap(&mut stage.redis, &mut replica);
        stage.ready().await;
    }
    stage.settle(&Promise::ALWAYS).await
}

/// The master dies for good and a replica takes its place. With `redis.wait_replicas = 1` a push counts only once the replica has it.
async fn replica_promoted(trial: Trial) -> Outcome {
    let mut stage = Stage::set_up(trial, Setup { redis: "wait_replicas = 1", ..Setup::default() }).await;
    for _ in 0..stage.trial.times(1, 4) {
        let replica = RedisServer::start().await;
        follows(&replica, &stage.redis).await;
        stage.ready().await;
        stage.chance.pause(50..800).await;
        stage.redis.kill();
        replica.command("REPLICAOF NO ONE").await;
        stage.to_redis.lead_to(replica.port);
        stage.redis = replica;
        stage.balances().await;
    }
    // The last one has nobody to wait for.
    let witness = RedisServer::start().await;
    follows(&witness, &stage.redis).await;
    stage.settle(&Promise::ALWAYS).await
}

/// Its scripts are flushed, its connections killed, again and again.
async fn forgets_scripts_and_clients(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(10, 60) {
        stage.chance.pause(0..150).await;
        if stage.chance.number(0..2) == 0 {
            stage.redis.command("SCRIPT FLUSH").await;
        } else {
            stage.redis.command("CLIENT KILL TYPE normal SKIPME yes").await;
        }
        stage.balances().await;
    }
    stage.settle(&Promise::ALWAYS).await
}
