//! Commands of an instance that dies go to the others, once; of two processes with one name the newer has them.

use std::collections::BTreeSet;

use sluicegate_tests::{Broker, Gateway, Machine, Proxy, RedisServer, eventually};

const COMMANDS: &str = "mqtt_outgoing_commands";
const RESULTS: &str = "command_results";

fn command(seq: usize) -> String {
    format!(r#"{{"target":"M-{}","command":"reboot","payload":[],"message_id":"{seq}","expires_in":600}}"#, seq % 5)
}

fn processing(instance: &str) -> String {
    format!("{{mqtt_outgoing_commands}}:processing:{instance}")
}

/// To a machine of its own, with so many seconds to live.
fn command_to(target: &str, id: &str, seconds: u32) -> String {
    format!(r#"{{"target":"{target}","command":"reboot","payload":[],"message_id":"{id}","expires_in":{seconds}}}"#)
}

async fn instance(broker: u16, redis: u16, name: &str, client: &str) -> Gateway {
    let mut gateway = Gateway::with(&settings(broker, redis, name, client));
    gateway.run().await;
    gateway
}

fn settings(broker: u16, redis: u16, name: &str, client: &str) -> String {
    let more = format!("[gateway]\ninstance = \"{name}\"\n[queues]\ncommand_results = \"{RESULTS}\"\n");
    Gateway::settings(broker, redis, &more).replace("[redis]", &format!("client_id = \"{client}\"\n[redis]"))
}

/// Nobody has the lease of this instance.
async fn lapsed(redis: &RedisServer, instance: &str) {
    let lease = format!("{{mqtt_outgoing_commands}}:lease:{instance}");
    let mut connection = redis.connect().await;
    eventually("its lease runs out", async || {
        let there: bool = redis::cmd("EXISTS").arg(&lease).query_async(&mut connection).await.expect("an answer");
        (!there).then_some(())
    })
    .await;
}

async fn says_that_it_lapsed(gateway: &Gateway) {
    eventually("it says that its lease had run out", async || {
        gateway.log().contains("the lease of this instance had run out").then_some(())
    })
    .await;
}

/// These commands arrive once each, and each machine's in their order.
async fn arrive_in_order(machines: &mut Machine, commands: &[String]) {
    let mut next = [0; 5];
    for _ in 0..commands.len() {
        let (topic, body) = machines.next().await;
        let machine: usize = topic["machine/M-".len()..].split('/').next().expect("a level").parse().expect("a number");
        assert_eq!(body, commands[next[machine] * 5 + machine]);
        next[machine] += 1;
    }
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
    let (mut broker, redis) = (Broker::lasting().await, RedisServer::start().await);
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
    says_that_it_lapsed(&paused).await;
    redis.push(COMMANDS, &[command(1_000)]).await;
    assert_eq!(machines.next().await.1, command(1_000), "nothing was sent twice");
}

#[tokio::test]
async fn what_an_instance_left_arrives_in_each_machines_order() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let left: Vec<String> = (0..1_200).map(command).collect();
    redis.push(&processing("dead"), &left).await;
    redis.command("SADD {mqtt_outgoing_commands}:instances dead").await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    let _one = instance(broker.port, redis.port, "one", "one").await;
    arrive_in_order(&mut machines, &left).await;
}

#[tokio::test]
async fn one_that_lapsed_and_went_on_is_taken_over_when_it_dies() {
    let (mut away, broker, redis) = (Broker::lasting().await, Broker::start().await, RedisServer::start().await);
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    let mut one = instance(away.port, redis.port, "one", "one").await;
    let _other = instance(broker.port, redis.port, "other", "other").await;
    away.stop();
    one.says("mqtt-commands: ").await;
    one.signal("STOP");
    lapsed(&redis, "one").await;
    let mut connection = redis.connect().await;
    eventually("it is no more among the instances", async || {
        let mut ask = redis::cmd("SISMEMBER");
        ask.arg("{mqtt_outgoing_commands}:instances").arg("one");
        (!ask.query_async::<bool>(&mut connection).await.expect("an answer")).then_some(())
    })
    .await;
    one.signal("CONT");
    says_that_it_lapsed(&one).await;
    // What it takes from now on cannot be sent, and is there when it dies.
    let left: Vec<String> = (0..20).map(command).collect();
    redis.push(&processing("one"), &left).await;
    one.kill();
    arrive_in_order(&mut machines, &left).await;
}

#[tokio::test]
async fn a_lapse_reorders_nothing() {
    let (mut broker, redis) = (Broker::lasting().await, RedisServer::start().await);
    let gateway = instance(broker.port, redis.port, "paused", "paused").await;
    broker.stop();
    gateway.says("mqtt-commands: ").await;
    let commands: Vec<String> = (0..40).map(command).collect();
    redis.push(COMMANDS, &commands[..20]).await;
    redis.list_of(&processing("paused"), 20).await;
    gateway.signal("STOP");
    lapsed(&redis, "paused").await;
    redis.push(COMMANDS, &commands[20..]).await;
    gateway.signal("CONT");
    says_that_it_lapsed(&gateway).await;
    redis.list_of(&processing("paused"), 40).await;
    let before = broker.port;
    broker.restart().await;
    let mut machines = Machine::connect(before, "machines", Some("machine/#")).await;
    arrive_in_order(&mut machines, &commands).await;
}

#[tokio::test]
async fn what_waits_for_the_brokers_window_is_not_sent_after_a_lapse() {
    let (broker, redis) = (Broker::with("max_inflight_messages 5").await, RedisServer::start().await);
    let proxy = Proxy::to(broker.port).await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    let paused = instance(proxy.port, redis.port, "paused", "paused").await;
    proxy.hold_answers(true);
    let commands: Vec<String> = (0..60).map(|seq| command_to(&format!("M-{seq}"), &seq.to_string(), 600)).collect();
    redis.push(COMMANDS, &commands).await;
    redis.list_of(&processing("paused"), 60).await;
    // These are sent, and the broker takes no more before its answers arrived.
    for _ in 0..5 {
        machines.next().await;
    }
    paused.signal("STOP");
    let _other = instance(broker.port, redis.port, "other", "other").await;
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        assert!(seen.insert(machines.next().await.1), "sent twice");
    }
    proxy.hold_answers(false);
    paused.signal("CONT");
    says_that_it_lapsed(&paused).await;
    let last = command_to("M-0", "last", 600);
    redis.push(COMMANDS, std::slice::from_ref(&last)).await;
    assert_eq!(machines.next().await.1, last, "nothing was sent twice");
}

#[tokio::test]
async fn what_another_sent_is_not_judged_by_the_one_that_lost_it() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let proxy = Proxy::to(broker.port).await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    let paused = instance(proxy.port, redis.port, "paused", "paused").await;
    proxy.hold_answers(true);
    // Its life is over when it wakes.
    let [first, second] = ["first", "second"].map(|id| command_to("M-1", id, 8));
    redis.push(COMMANDS, &[first.clone(), second.clone()]).await;
    assert_eq!(machines.next().await.1, first);
    paused.signal("STOP");
    let mut other = instance(broker.port, redis.port, "other", "other").await;
    assert_eq!(machines.next().await.1, first, "nobody knew that it was sent");
    assert_eq!(machines.next().await.1, second);
    eventually("nothing stands any more", async || redis.list(&processing("other")).await.is_empty().then_some(()))
        .await;
    other.kill();
    // The answer to the first is there: it is the second one's turn.
    proxy.hold_answers(false);
    paused.signal("CONT");
    says_that_it_lapsed(&paused).await;
    let [third, fourth] = ["third", "fourth"].map(|id| command_to("M-1", id, 600));
    redis.push(COMMANDS, std::slice::from_ref(&third)).await;
    assert_eq!(machines.next().await.1, third);
    assert_eq!(redis.list("mqtt_dead_letters").await, Vec::<String>::new());
    redis.push(COMMANDS, &[second, fourth.clone()]).await;
    assert_eq!(machines.next().await.1, fourth, "the second one is known to be sent");
    let results = redis.list(RESULTS).await;
    assert!(!results.iter().any(|result| result.contains("expired")), "{results:?}");
}

#[tokio::test]
async fn of_two_with_one_name_the_newer_has_the_commands_and_the_older_says_so() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let older = instance(broker.port, redis.port, "same", "older").await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    let mut newer = instance(broker.port, redis.port, "same", "newer").await;
    older.says("a newer process has this instance's name").await;
    redis.push(COMMANDS, &(0..200).map(command).collect::<Vec<_>>()).await;
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        assert!(seen.insert(machines.next().await.1), "sent twice");
    }
    let processing = "{mqtt_outgoing_commands}:processing:same";
    eventually("all are settled", async || redis.list(processing).await.is_empty().then_some(())).await;
    // The newer one dies, as in a roll-out that fails: the older has the commands again.
    newer.kill();
    redis.push(COMMANDS, &[command(200)]).await;
    assert_eq!(machines.next().await.1, command(200));
    older.ready().await;
}

/// What was asked while it hung it does when it wakes: that must not look like another process's.
#[tokio::test]
async fn a_redis_that_hung_longer_than_a_lease_lives_leaves_no_newer_process() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    redis.freeze();
    gateway.says("no command is taken or sent: the lease of this instance is not renewed: ").await;
    redis.thaw();
    redis.push(COMMANDS, &[command(1)]).await;
    assert_eq!(machines.next().await.1, command(1));
    gateway.ready().await;
    assert!(!gateway.log().contains("newer process"), "{}", gateway.log());
}

/// It lets nobody in without a password, and is connected to: no message comes that would show it.
#[tokio::test]
async fn a_lease_that_redis_refuses_is_said() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    redis.command("CONFIG SET requirepass secret").await;
    let mut gateway = Gateway::with(&settings(broker.port, redis.port, "one", "one"));
    gateway.spawn().await;
    gateway.says("no command is taken or sent: the lease of this instance is not renewed: ").await;
    gateway.says("NOAUTH").await;
}

#[tokio::test]
async fn thousands_of_commands_wait_for_the_broker_and_arrive_once_in_each_machines_order() {
    let (mut broker, redis) = (Broker::lasting().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    broker.stop();
    gateway.says("mqtt-commands: ").await;
    let commands: Vec<String> = (0..3_000).map(command).collect();
    redis.push(COMMANDS, &commands).await;
    // Before the gateway is back, or it would find nobody subscribed.
    let before = broker.port;
    broker.restart().await;
    let mut machines = Machine::connect(before, "machines", Some("machine/#")).await;
    arrive_in_order(&mut machines, &commands).await;
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
    redis.command(&format!("DEL {lease}")).await;
    eventually("it is held again", async || (left().await > 0).then_some(())).await;
    assert!(!gateway.log().contains("not renewed"), "{}", gateway.log());
}

/// What an instance claimed before it ended is no duplicate for the others, although the instance is there again.
#[tokio::test]
async fn claims_of_a_tenure_that_is_over_hold_up_nothing() {
    let (mut broker, redis) = (Broker::lasting().await, RedisServer::start().await);
    let mut one = instance(broker.port, redis.port, "one", "one").await;
    broker.stop();
    one.says("mqtt-commands: ").await;
    let commands: Vec<String> = (0..10).map(command).collect();
    redis.push(COMMANDS, &commands).await;
    redis.list_of(&processing("one"), 10).await;
    one.signal("TERM");
    one.ended().await;
    // The other takes over, and has room for one at a time; so has the first when it is back.
    let few = format!("{}[commands]\nin_flight = 1\n", settings(broker.port, redis.port, "two", "two"));
    let validator = "validator = \"command-validation\"\n";
    let mut two = Gateway::with(&(few.clone() + validator));
    two.spawn().await;
    redis.list_of(&processing("two"), 1).await;
    std::fs::write(one.path("sluicegate.toml"), few.replace("\"two\"", "\"one\"") + validator).expect("written");
    one.spawn().await;
    redis.list_of(&processing("one"), 1).await;
    broker.restart().await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    let mut seen = BTreeSet::new();
    while seen.len() < commands.len() {
        seen.insert(machines.next().await.1);
    }
    assert_eq!(seen, commands.into_iter().collect());
}
