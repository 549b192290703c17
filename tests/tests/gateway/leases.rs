//! Commands of an instance that dies go to the others, once; of two processes with one name the newer has them.

use std::collections::BTreeSet;

use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

const COMMANDS: &str = "mqtt_outgoing_commands";

fn command(seq: usize) -> String {
    format!(r#"{{"target":"M-{}","command":"reboot","payload":[],"message_id":"{seq}","expires_in":600}}"#, seq % 5)
}

fn processing(instance: &str) -> String {
    format!("{{mqtt_outgoing_commands}}:processing:{instance}")
}

async fn instance(broker: u16, redis: u16, name: &str, client: &str) -> Gateway {
    let settings = Gateway::settings(broker, redis, &format!("[gateway]\ninstance = \"{name}\"\n"))
        .replace("[redis]", &format!("client_id = \"{client}\"\n[redis]"));
    let mut gateway = Gateway::with(&settings);
    gateway.run().await;
    gateway
}

#[tokio::test]
async fn what_an_instance_left_is_taken_over_once() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    // Its lease ran out long ago.
    let left: Vec<String> = (0..300).map(command).collect();
    redis.push(&processing("dead"), &left).await;
    redis.command("SADD {mqtt_outgoing_commands}:instances dead").await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    let _one = instance(broker.port, redis.port, "one", "one").await;
    let _two = instance(broker.port, redis.port, "two", "two").await;
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        assert!(seen.insert(machines.next().await.1), "sent twice");
    }
    eventually("nothing stands anywhere", async || {
        for list in [COMMANDS.to_owned(), processing("dead"), processing("one"), processing("two")] {
            if !redis.list(&list).await.is_empty() {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_paused_past_its_lease_sends_nothing_that_was_taken_over() {
    let (mut broker, redis) = (Broker::start().await, RedisServer::start().await);
    let paused = instance(broker.port, redis.port, "paused", "paused").await;
    // The broker is away, so what is taken cannot be sent yet.
    broker.stop();
    paused.says("mqtt-commands: ").await;
    redis.push(COMMANDS, &(0..100).map(command).collect::<Vec<_>>()).await;
    eventually("it took them", async || (redis.list(&processing("paused")).await.len() == 100).then_some(())).await;
    paused.signal("STOP");
    broker.restart().await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    let _other = instance(broker.port, redis.port, "other", "other").await;
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        assert!(seen.insert(machines.next().await.1), "sent twice");
    }
    paused.signal("CONT");
    eventually("it says that its lease had run out", async || {
        paused.log().contains("the lease of this instance had run out").then_some(())
    })
    .await;
    redis.push(COMMANDS, &[command(1_000)]).await;
    assert_eq!(machines.next().await.1, command(1_000), "nothing was sent twice");
}

#[tokio::test]
async fn of_two_with_one_name_the_newer_has_the_commands_and_the_older_says_so() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let older = instance(broker.port, redis.port, "same", "older").await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    let _newer = instance(broker.port, redis.port, "same", "newer").await;
    older.says("a newer process has this instance's name").await;
    redis.push(COMMANDS, &(0..200).map(command).collect::<Vec<_>>()).await;
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        assert!(seen.insert(machines.next().await.1), "sent twice");
    }
}

#[tokio::test]
async fn ten_thousand_commands_wait_for_the_broker_and_arrive_once_in_each_machines_order() {
    let (mut broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    broker.stop();
    gateway.says("mqtt-commands: ").await;
    let commands: Vec<String> = (0..10_000).map(command).collect();
    redis.push(COMMANDS, &commands).await;
    // Before the gateway is back, or it would find nobody subscribed.
    let before = broker.port;
    broker.restart().await;
    let mut machines = Machine::connect(before, "machines", Some("machine/#")).await;
    let mut next = [0; 5];
    for _ in 0..10_000 {
        let (topic, body) = machines.next().await;
        let machine: usize = topic["machine/M-".len()..].split('/').next().expect("a level").parse().expect("a number");
        assert_eq!(body, commands[next[machine] * 5 + machine]);
        next[machine] += 1;
    }
    assert_eq!(next, [2_000; 5]);
}

#[tokio::test]
async fn the_lease_outlives_a_redis_that_is_out_of_memory() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    redis.command("CONFIG SET maxmemory 1").await;
    let lease = "{mqtt_outgoing_commands}:lease:gateway-1";
    let mut connection = redis.connect().await;
    let mut left = async || redis::cmd("PTTL").arg(lease).query_async::<i64>(&mut connection).await.expect("a time");
    // It falls, and rises with the next renewal.
    eventually("the lease grows old", async || (left().await < 8_500).then_some(())).await;
    eventually("the lease is renewed", async || (left().await > 9_000).then_some(())).await;
    assert!(!gateway.log().contains("not renewed"), "{}", gateway.log());
}
