//! The disk has a message before its machine's broker is told so. A kill -9 keeps the page cache and cannot show this: the
//! system's calls can.

use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

async fn publish(machine: &Machine, range: std::ops::Range<u64>) {
    for seq in range {
        machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq}}}"#)).await;
    }
}

/// A PUBACK of MQTT 5 without reason code: type and flags, length 2 [MQTT 5, 3.4], as `strace` prints bytes.
const PUBACK: &str = r"\x40\x02";

#[tokio::test]
async fn fdatasync_returns_before_the_puback_is_written() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let calls = "trace=fdatasync,write,writev,sendto,sendmsg";
    let mut gateway =
        Gateway::with(&Gateway::settings(broker.port, redis.port, "")).traced(&["-xx", "-s", "64", "-e", calls]);
    gateway.run().await;
    redis.kill();
    let machine = Machine::connect(broker.port, "M-1", None).await;
    // One after another, so that each has its own sync and its own acknowledgement.
    for seq in 0..10 {
        publish(&machine, seq..seq + 1).await;
        gateway.counts(&[("spooled", seq + 1)]).await;
    }
    eventually("every acknowledgement is written", async || {
        let trace = std::fs::read_to_string(gateway.path("trace")).ok()?;
        (trace.lines().filter(|line| line.contains(PUBACK)).count() >= 10).then_some(())
    })
    .await;
    let trace = std::fs::read_to_string(gateway.path("trace")).expect("a trace");
    let (mut synced, mut acknowledged) = (0, 0);
    for line in trace.lines() {
        // `fdatasync(9) = 0`, or `<... fdatasync resumed>) = 0` where another thread's call stands between.
        if line.contains("fdatasync") && line.trim_end().ends_with("= 0") {
            synced += 1;
        } else if line.contains(PUBACK) && !line.contains("resumed") {
            acknowledged += 1;
            assert!(acknowledged <= synced, "acknowledgement {acknowledged} after {synced} syncs:\n{line}");
        }
    }
    assert!(acknowledged >= 10);
}

#[tokio::test]
async fn a_disk_that_fails_to_sync_ends_it_and_nothing_is_acknowledged() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let fault = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"];
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, "")).traced(&fault);
    gateway.run().await;
    redis.kill();
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..20).await;
    let status = gateway.ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(gateway.log().contains("the disk failed to write the spool"), "{}", gateway.log());
    redis.restart().await;
    gateway.untraced();
    gateway.run().await;
    let jobs = eventually("all are in the list", async || {
        let jobs = redis.list("mqtt_incoming_jobs").await;
        (0..20).all(|seq| jobs.iter().any(|job| job.contains(&format!(r#"{{"seq":{seq}}}"#)))).then_some(jobs)
    })
    .await;
    assert!(jobs.len() >= 20);
}
