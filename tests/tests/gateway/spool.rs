//! What Redis does not take is on the disk before the broker forgets it, and goes to Redis in order.

use std::time::Duration;

use rumqttc::PublishOptions;
use rumqttc::mqttbytes::QoS;
use serde_json::Value;
use sluicegate_tests::eventually::within;
use sluicegate_tests::gateway::{plugins, route};
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

const JOBS: &str = "mqtt_incoming_jobs";

async fn publish(machine: &Machine, range: std::ops::Range<u64>) {
    for seq in range {
        machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq}}}"#)).await;
    }
}

async fn sequence(redis: &RedisServer) -> Vec<u64> {
    let jobs = redis.list(JOBS).await;
    jobs.iter().filter_map(|job| serde_json::from_str::<Value>(job).expect("JSON")["payload"]["seq"].as_u64()).collect()
}

async fn arrive(redis: &RedisServer, count: u64) {
    let expected: Vec<u64> = (0..count).collect();
    // Where memory and disk are full, the broker sends a part of it at each new connection, seconds apart: it is not speed that is tested.
    let arrived = within(Duration::from_secs(120), &format!("{count} messages are in the list"), async || {
        let arrived = sequence(redis).await;
        expected.iter().all(|seq| arrived.contains(seq)).then_some(arrived)
    })
    .await;
    assert_eq!(arrived, expected, "once and in order");
}

fn transaction(id: u64) -> String {
    format!(r#"{{"transaction_id":"T-{id}","slot_no":1,"amount":"2.50","seq":{id}}}"#)
}

#[tokio::test]
async fn what_is_acknowledged_while_redis_is_away_survives_kill_9_of_the_gateway_and_of_the_broker() {
    let (mut broker, mut redis) = (Broker::lasting().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..50).await;
    arrive(&redis, 50).await;
    redis.kill();
    publish(&machine, 50..300).await;
    gateway.counts(&[("pushed", 50), ("spooled", 250), ("in_flight", 0)]).await;
    gateway.says("redis: ").await;
    // Nobody but the spool has them now.
    gateway.kill();
    broker.forget();
    broker.restart().await;
    redis.restart().await;
    gateway.run().await;
    arrive(&redis, 300).await;
    gateway.counts(&[("received", 250), ("pushed", 250), ("spooled", 0)]).await;
}

#[tokio::test]
async fn a_redis_that_hangs_holds_up_no_acknowledgement_and_nothing_is_doubled() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..20).await;
    arrive(&redis, 20).await;
    redis.freeze();
    publish(&machine, 20..100).await;
    gateway.counts(&[("pushed", 20), ("spooled", 80), ("in_flight", 0)]).await;
    // Before the gateway gives the answer up for lost: the push is still under way.
    redis.thaw();
    arrive(&redis, 100).await;
    gateway.counts(&[("pushed", 100), ("spooled", 0)]).await;
    publish(&machine, 100..120).await;
    arrive(&redis, 120).await;
}

#[tokio::test]
async fn what_comes_while_the_spool_is_drained_goes_behind_it() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    redis.kill();
    publish(&machine, 0..1_500).await;
    gateway.counts(&[("spooled", 1_500)]).await;
    let (restarted, ()) = tokio::join!(
        async {
            redis.restart().await;
            redis
        },
        publish(&machine, 1_500..2_500)
    );
    arrive(&restarted, 2_500).await;
    gateway.counts(&[("received", 2_500), ("pushed", 2_500)]).await;
}

#[tokio::test]
async fn a_list_that_redis_refuses_waits_and_the_others_go_on_once() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let routes = [plugins(&["heartbeat", "error"]), route("heartbeat", ""), route("error", "queue = \"errors\"")];
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &routes.concat()));
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    redis.command("SET errors text").await;
    for code in 0..5 {
        machine.publish("machine/M-1/error", format!(r#"{{"error_code":{code}}}"#)).await;
        publish(&machine, code * 10..code * 10 + 10).await;
    }
    gateway.says("WRONGTYPE").await;
    gateway.counts(&[("pushed", 50), ("spooled", 5)]).await;
    arrive(&redis, 50).await;
    redis.command("DEL errors").await;
    let errors = redis.list_of("errors", 5).await;
    for (code, job) in errors.iter().enumerate() {
        assert!(job.contains(&format!(r#""error_code":{code}"#)), "{job}");
    }
    gateway.ready().await;
    arrive(&redis, 50).await;
}

#[tokio::test]
async fn out_of_memory_and_read_only_are_not_the_messages_fault() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    redis.command("CONFIG SET maxmemory-policy noeviction").await;
    redis.command("CONFIG SET maxmemory 1").await;
    publish(&machine, 0..30).await;
    gateway.says("maxmemory").await;
    gateway.counts(&[("spooled", 30)]).await;
    redis.command("CONFIG SET maxmemory 0").await;
    arrive(&redis, 30).await;
    let master = RedisServer::start().await;
    redis.command(&format!("REPLICAOF 127.0.0.1 {}", master.port)).await;
    publish(&machine, 30..60).await;
    gateway.says("point redis.url to the master").await;
    drop(master);
    redis.command("REPLICAOF NO ONE").await;
    // As a replica it took over the empty data of its master: what stands there now came after.
    eventually("the rest is in the list", async || sequence(&redis).await.ends_with(&[57, 58, 59]).then_some(())).await;
    gateway.counts(&[("received", 60), ("pushed", 60)]).await;
}

#[tokio::test]
async fn a_transaction_is_pushed_once_however_often_it_comes() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for round in 0..3 {
        for id in 0..20 {
            machine.publish("machine/M-1/transaction", transaction(id)).await;
        }
        // Another machine's transaction of the same id is another one.
        machine.publish(&format!("machine/N-{round}/transaction"), transaction(0)).await;
        redis.command("SCRIPT FLUSH").await;
    }
    gateway.counts(&[("received", 63), ("pushed", 23), ("suppressed", 40)]).await;
    // In order: killed between the count and the last acknowledgement, it would have the broker send that one again.
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    gateway.run().await;
    machine.publish("machine/M-1/transaction", transaction(19)).await;
    gateway.counts(&[("suppressed", 1)]).await;
    assert_eq!(redis.list(JOBS).await.len(), 23);
}

#[tokio::test]
async fn with_dedupe_nothing_is_doubled_over_kill_9_of_gateway_and_redis() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for round in 0..4_u64 {
        for id in round * 100..round * 100 + 100 {
            machine.publish("machine/M-1/transaction", transaction(id)).await;
            if id % 100 == 50 && round % 2 == 0 {
                gateway.kill();
                gateway.run().await;
            } else if id % 100 == 50 {
                redis.kill();
                redis.restart().await;
            }
        }
    }
    arrive(&redis, 400).await;
    gateway.counts(&[("in_flight", 0), ("spooled", 0)]).await;
    arrive(&redis, 400).await;
}

#[tokio::test]
async fn a_full_spool_stops_acknowledging_and_nothing_is_lost() {
    fills_its_spool("1MiB").await;
}

#[tokio::test]
async fn what_waits_in_memory_for_a_full_spool_may_be_more_than_the_whole_spool() {
    fills_its_spool("2MiB").await;
}

async fn fills_its_spool(in_flight_bytes: &str) {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let more = "[spool]\nmax_size = \"1MiB\"\n";
    let settings = Gateway::settings(broker.port, redis.port, more)
        .replace("[redis]", &format!("in_flight_bytes = \"{in_flight_bytes}\"\n[redis]"));
    let mut gateway = Gateway::with(&settings);
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    redis.kill();
    let padding = "x".repeat(8_000);
    for seq in 0..600 {
        machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq},"padding":"{padding}"}}"#)).await;
    }
    gateway.says("the spool is full").await;
    let messages = gateway.messages().await.expect("counts");
    assert!(messages["spooled"].as_u64().is_some_and(|count| count < 150), "{messages}");
    // QoS 0 neither takes room nor is it in the way of what comes again.
    for _ in 0..5 {
        machine.publish_with("machine/M-1/heartbeat", "{}", PublishOptions::new(QoS::AtMostOnce)).await;
    }
    gateway.counts(&[("dropped", 5)]).await;
    redis.restart().await;
    arrive(&redis, 600).await;
    gateway.counts(&[("pushed", 600), ("spooled", 0), ("in_flight", 0)]).await;
    gateway.ready().await;
}

#[tokio::test]
async fn a_full_disk_stops_acknowledging_and_nothing_is_lost() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let settings =
        Gateway::settings(broker.port, redis.port, "").replace("[redis]", "in_flight_bytes = \"1MiB\"\n[redis]");
    // A disk of its own for the spool, large enough for one file.
    let mut gateway = Gateway::with(&settings).on_a_small_disk("spool", "9m");
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    redis.kill();
    let padding = "x".repeat(30_000);
    for seq in 0..600 {
        machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq},"padding":"{padding}"}}"#)).await;
    }
    gateway.says("no room on the disk").await;
    redis.restart().await;
    arrive(&redis, 600).await;
    gateway.counts(&[("pushed", 600), ("spooled", 0), ("in_flight", 0)]).await;
}

#[tokio::test]
async fn while_the_back_end_is_behind_low_routes_wait_first_and_keep_the_newest() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let routes = [
        "[queues]\nincoming_max = 20\n".to_owned(),
        plugins(&["heartbeat", "error"]),
        route("heartbeat", "priority = \"low\"\nwhen_behind = \"latest\""),
        route("error", ""),
    ];
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &routes.concat()));
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for seq in 0..10 {
        machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq}}}"#)).await;
        gateway.counts(&[("pushed", seq + 1)]).await;
    }
    // Half of the bound: heartbeats wait, errors do not.
    for seq in 10..60 {
        machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq}}}"#)).await;
    }
    for code in 0..10 {
        machine.publish("machine/M-1/error", format!(r#"{{"error_code":{code}}}"#)).await;
        gateway.counts(&[("pushed", 11 + code)]).await;
    }
    gateway.counts(&[("spooled", 1), ("dropped", 49)]).await;
    machine.publish("machine/M-1/error", r#"{"error_code":10}"#).await;
    gateway.says("the back end").await;
    gateway.counts(&[("pushed", 20), ("spooled", 2)]).await;
    redis.command("DEL mqtt_incoming_jobs").await;
    gateway.counts(&[("pushed", 22), ("spooled", 0)]).await;
    assert_eq!(sequence(&redis).await, [59]);
    let metrics = gateway.text("/metrics").await.expect("metrics");
    assert!(metrics.contains("sluicegate_uplink_superseded_total{route=\"heartbeat\"} 49\n"), "{metrics}");
}
