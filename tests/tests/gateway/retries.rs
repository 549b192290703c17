//! A message that fails is tried again, in order, and holds up only its machine.

use serde_json::Value;
use sluicegate_guests::Guest;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer};

const JOBS: &str = "mqtt_incoming_jobs";
const DEAD: &str = "mqtt_dead_letters";

/// A gateway whose one plugin does what the payloads say.
async fn start(broker: &Broker, redis: &RedisServer, more: &str) -> Gateway {
    let routes = format!(
        "[plugins.obedient]\npath = \"plugins/obedient.wasm\"\n[[routes]]\nname = \"obedient\"\n\
         topic = \"machine/{{serial_no}}/do\"\nhandlers = [\"obedient\"]\n{more}"
    );
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &routes));
    gateway.install("obedient", &Guest::obedient().handler());
    gateway.run().await;
    gateway
}

async fn order(machine: &Machine, name: &str, what: u8, seq: u64) {
    machine.publish(&format!("machine/{name}/do"), format!(r#"{{"do":{what},"seq":{seq}}}"#)).await;
}

fn seqs(entries: &[String], serial_no: &str) -> Vec<u64> {
    entries
        .iter()
        .map(|entry| serde_json::from_str::<Value>(entry).expect("JSON"))
        .filter(|entry| entry["serial_no"] == serial_no)
        .filter_map(|job| job["payload"]["seq"].as_u64())
        .collect()
}

#[tokio::test]
async fn a_message_that_fails_twice_arrives_and_none_of_its_machine_passes_it() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    order(&machine, "M-1", 4, 0).await;
    for seq in 1..10 {
        order(&machine, "M-1", 0, seq).await;
        order(&machine, "M-2", 0, seq).await;
    }
    let jobs = redis.list_of(JOBS, 19).await;
    assert_eq!(seqs(&jobs, "M-1"), (0..10).collect::<Vec<_>>());
    assert_eq!(seqs(&jobs, "M-2"), (1..10).collect::<Vec<_>>());
    assert_eq!(seqs(&jobs[..1], "M-2"), [1], "another machine goes on meanwhile");
    gateway.counts(&[("received", 19), ("pushed", 19)]).await;
}

#[tokio::test]
async fn one_that_needs_longer_is_parked_over_a_restart_and_its_machines_later_ones_wait_behind_it() {
    let (mut broker, redis) = (Broker::lasting().await, RedisServer::start().await);
    let mut gateway = start(&broker, &redis, "attempts = 20\n").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    order(&machine, "M-1", 1, 0).await;
    for seq in 1..20 {
        order(&machine, "M-1", 0, seq).await;
    }
    for seq in 0..50 {
        order(&machine, "M-2", 0, seq).await;
    }
    gateway.counts(&[("pushed", 50), ("spooled", 20), ("in_flight", 0)]).await;
    assert_eq!(seqs(&redis.list(JOBS).await, "M-2"), (0..50).collect::<Vec<_>>());
    gateway.kill();
    broker.forget();
    broker.restart().await;
    // A build that takes it.
    gateway.install("obedient", &Guest::echo().handler());
    gateway.run().await;
    assert_eq!(seqs(&redis.list_of(JOBS, 70).await, "M-1"), (0..20).collect::<Vec<_>>());
    let machine = Machine::connect(broker.port, "M-1", None).await;
    order(&machine, "M-1", 0, 20).await;
    assert_eq!(seqs(&redis.list_of(JOBS, 71).await, "M-1"), (0..21).collect::<Vec<_>>());
    gateway.counts(&[("spooled", 0), ("in_flight", 0), ("pushed", 21)]).await;
}

#[tokio::test]
async fn when_the_attempts_are_used_up_the_route_says_what_becomes_of_it() {
    for (on_failure, pushed, dead, dropped) in [("dead-letter", 3, 2, 0), ("drop", 3, 1, 1), ("pass-through", 4, 1, 0)]
    {
        let (broker, redis) = (Broker::start().await, RedisServer::start().await);
        let gateway = start(&broker, &redis, &format!("on_failure = \"{on_failure}\"\n")).await;
        let machine = Machine::connect(broker.port, "M-1", None).await;
        for (what, seq) in [(0, 0), (1, 1), (0, 2), (3, 3), (0, 4)] {
            order(&machine, "M-1", what, seq).await;
        }
        gateway.counts(&[("pushed", pushed), ("dead", dead), ("dropped", dropped), ("in_flight", 0)]).await;
        let jobs = redis.list(JOBS).await;
        if on_failure == "pass-through" {
            assert_eq!(seqs(&jobs, "M-1"), [0, 1, 2, 4]);
            assert!(jobs[1].ends_with(r#","passed_through":true}"#), "{}", jobs[1]);
        } else {
            assert_eq!(seqs(&jobs, "M-1"), [0, 2, 4]);
        }
        let letters = redis.list(DEAD).await;
        if on_failure == "dead-letter" {
            let letter: Value = serde_json::from_str(&letters[0]).expect("JSON");
            assert_eq!((&letter["attempts"], &letter["plugin"]), (&3.into(), &"obedient".into()), "{letter}");
            assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains("not now")), "{letter}");
        }
        let rejected: Value = serde_json::from_str(letters.last().expect("a letter")).expect("JSON");
        assert_eq!((&rejected["reason"], &rejected["attempts"]), (&"refused".into(), &1.into()));
    }
}

#[tokio::test]
async fn a_route_that_blocks_waits_for_ever_and_nobody_else_does() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "on_failure = \"block\"\nattempts = 1\n").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    order(&machine, "M-1", 1, 0).await;
    order(&machine, "M-1", 0, 1).await;
    order(&machine, "M-2", 0, 2).await;
    gateway.counts(&[("pushed", 1), ("spooled", 2), ("in_flight", 0)]).await;
    gateway.install("obedient", &Guest::echo().handler());
    gateway.counts(&[("pushed", 3), ("spooled", 0)]).await;
    assert_eq!(seqs(&redis.list(JOBS).await, "M-1"), [0, 1]);
}

#[tokio::test]
async fn a_plugin_that_fails_at_everything_makes_no_dead_letters_until_it_is_repaired() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    gateway.install("obedient", &Guest::doing("unreachable").handler());
    sluicegate_tests::eventually("the bad build is live", async || {
        gateway.generation("obedient").await.filter(|generation| *generation == 2)
    })
    .await;
    for seq in 0..10 {
        for name in 0..20 {
            order(&machine, &format!("M-{name}"), 0, seq).await;
        }
    }
    gateway.says("fails at everything").await;
    gateway.counts(&[("spooled", 200), ("in_flight", 0), ("dead", 0)]).await;
    gateway.install("obedient", &Guest::obedient().handler());
    gateway.counts(&[("pushed", 200), ("spooled", 0), ("dead", 0)]).await;
    let jobs = redis.list(JOBS).await;
    for name in 0..20 {
        assert_eq!(seqs(&jobs, &format!("M-{name}")), (0..10).collect::<Vec<_>>());
    }
    sluicegate_tests::eventually("it is ready again", async || {
        (gateway.get("/readyz").await?["ready"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_machines_poison_is_a_dead_letter_and_opens_no_breaker() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for seq in 0..4 {
        order(&machine, "M-1", 2, seq).await;
    }
    gateway.counts(&[("dead", 4), ("in_flight", 0)]).await;
    let letter: Value = serde_json::from_str(&redis.list(DEAD).await[0]).expect("JSON");
    assert_eq!(letter["attempts"], 3, "{letter}");
}

/// As one does whose setting cannot be read.
#[tokio::test]
async fn a_plugin_that_asks_for_another_attempt_at_everything_makes_no_dead_letters() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for name in 0..20 {
        order(&machine, &format!("M-{name}"), 1, name).await;
    }
    gateway.says("fails at everything").await;
    gateway.counts(&[("spooled", 20), ("in_flight", 0), ("dead", 0)]).await;
    gateway.install("obedient", &Guest::echo().handler());
    gateway.counts(&[("pushed", 20), ("spooled", 0), ("dead", 0)]).await;
}
