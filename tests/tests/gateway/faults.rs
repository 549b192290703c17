//! Whatever dies: what a machine was told is delivered gets to the list.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use sluicegate_tests::{Broker, Gateway, Machine, Proxy, RedisServer, eventually};

const JOBS: &str = "mqtt_incoming_jobs";

async fn publish(machine: &Machine, range: std::ops::Range<u64>) {
    for seq in range {
        machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq}}}"#)).await;
    }
}

async fn sequence(redis: &RedisServer) -> Vec<u64> {
    let jobs = redis.list(JOBS).await;
    jobs.iter()
        .map(|job| serde_json::from_str::<Value>(job).expect("JSON")["payload"]["seq"].as_u64().expect("a number"))
        .collect()
}

/// Every one is there; twice is allowed where a push's answer was lost.
async fn all_arrive(redis: &RedisServer, count: u64) {
    eventually(&format!("all {count} messages are in the list"), async || {
        let seen: BTreeSet<u64> = sequence(redis).await.into_iter().collect();
        (0..count).all(|seq| seen.contains(&seq)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_is_acknowledged_before_redis_confirmed_it() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    redis.freeze();
    publish(&machine, 0..50).await;
    // Had the gateway acknowledged them, the broker would have forgotten them by now.
    eventually("the gateway took them", async || {
        let metrics = gateway.text("/metrics").await?;
        metrics.contains("sluicegate_uplink_received_total{route=\"heartbeat\"} 50\n").then_some(())
    })
    .await;
    gateway.kill();
    redis.thaw();
    let mut redis = redis;
    redis.kill();
    redis.restart().await;
    gateway.run().await;
    all_arrive(&redis, 50).await;
}

#[tokio::test]
async fn kill_9_under_load_loses_nothing() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for round in 0..3 {
        publish(&machine, round * 200..round * 200 + 100).await;
        gateway.kill();
        publish(&machine, round * 200 + 100..round * 200 + 200).await;
        gateway.run().await;
    }
    all_arrive(&redis, 600).await;
}

#[tokio::test]
async fn sigterm_under_load_ends_well_and_loses_and_doubles_nothing() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let publishing = publish(&machine, 0..600);
    let restarting = async {
        redis.list_of(JOBS, 50).await;
        gateway.signal("TERM");
        let status = gateway.ended().await;
        assert!(status.success(), "{status}");
        gateway.run().await;
    };
    tokio::join!(publishing, restarting);
    all_arrive(&redis, 600).await;
    assert_eq!(sequence(&redis).await, (0..600).collect::<Vec<_>>());
}

#[tokio::test]
async fn redis_killed_and_restarted_loses_nothing_and_the_gateway_says_so_meanwhile() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..50).await;
    all_arrive(&redis, 50).await;
    redis.kill();
    publish(&machine, 50..150).await;
    eventually("the gateway is not ready", async || {
        let ready = gateway.get("/readyz").await?;
        let reasons = ready["reasons"].as_array()?;
        (ready["ready"] == false
            && reasons.iter().any(|reason| reason.as_str().is_some_and(|text| text.starts_with("redis: "))))
        .then_some(())
    })
    .await;
    redis.restart().await;
    all_arrive(&redis, 150).await;
    eventually("the gateway is ready", async || (gateway.get("/readyz").await?["ready"] == true).then_some(())).await;
}

#[tokio::test]
async fn cut_connections_lose_nothing() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let (to_broker, to_redis) = (Proxy::to(broker.port).await, Proxy::to(redis.port).await);
    let _gateway = Gateway::start(to_broker.port, to_redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for round in 0..5 {
        publish(&machine, round * 100..round * 100 + 50).await;
        to_redis.cut();
        publish(&machine, round * 100 + 50..round * 100 + 100).await;
        to_broker.cut();
    }
    all_arrive(&redis, 500).await;
}

#[tokio::test]
async fn what_a_cut_connection_left_unanswered_is_not_asked_again_on_the_next() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let to_broker = Proxy::to(broker.port).await;
    // Cut between CONNACK and SUBACK.
    to_broker.delay(Duration::from_millis(300));
    let mut gateway = Gateway::with(&Gateway::settings(to_broker.port, redis.port, ""));
    gateway.spawn().await;
    eventually("it is connected", async || gateway.log().contains("session_present").then_some(())).await;
    to_broker.delay(Duration::ZERO);
    to_broker.cut();
    gateway.ready().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..20).await;
    all_arrive(&redis, 20).await;
    assert!(!gateway.log().contains("cannot subscribe"), "{}", gateway.log());
}

#[tokio::test]
async fn a_broker_that_restarts_with_its_sessions_loses_nothing() {
    let (mut broker, redis) = (Broker::lasting().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..50).await;
    broker.stop();
    eventually("the gateway notices", async || (gateway.get("/readyz").await?["ready"] == false).then_some(())).await;
    broker.restart().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 50..100).await;
    all_arrive(&redis, 100).await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    redis.freeze();
    publish(&machine, 0..5).await;
    eventually("the gateway took them", async || {
        let metrics = gateway.text("/metrics").await?;
        metrics.contains("sluicegate_uplink_received_total{route=\"heartbeat\"} 5\n").then_some(())
    })
    .await;
    gateway.signal("TERM");
    eventually("it is shutting down", async || gateway.log().contains("shutting down").then_some(())).await;
    gateway.signal("TERM");
    let status = gateway.ended().await;
    assert_eq!(status.code(), Some(1), "it says that it did not finish");
    redis.thaw();
}
