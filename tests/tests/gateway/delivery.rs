//! What becomes of a command: sent in time, once, and told; or not sent, and told.

use serde_json::Value;
use sluicegate_tests::{Broker, Gateway, Machine, Proxy, RedisServer, eventually};

const COMMANDS: &str = "mqtt_outgoing_commands";
const PROCESSING: &str = "{mqtt_outgoing_commands}:processing:gateway-1";
const RESULTS: &str = "command_results";
const DEAD: &str = "mqtt_dead_letters";

async fn start(broker: &Broker, redis: &RedisServer, commands: &str) -> Gateway {
    start_on(broker.port, redis.port, &format!("wait_for_subscriber = \"1s\"\n{commands}")).await
}

async fn start_on(broker: u16, redis: u16, commands: &str) -> Gateway {
    let more = format!("[queues]\ncommand_results = \"{RESULTS}\"\n[commands]\n{commands}");
    started(&Gateway::settings(broker, redis, &more)).await
}

async fn started(settings: &str) -> Gateway {
    let mut gateway = Gateway::with(settings);
    gateway.run().await;
    gateway
}

fn command(target: &str, id: &str, more: &str) -> String {
    format!(r#"{{"target":"{target}","command":"reboot","payload":[],"message_id":"{id}"{more}}}"#)
}

async fn emptied(redis: &RedisServer) {
    eventually("the processing list is empty", async || redis.list(PROCESSING).await.is_empty().then_some(())).await;
}

fn json(entries: &[String]) -> Vec<Value> {
    entries.iter().map(|entry| serde_json::from_str(entry).expect("JSON")).collect()
}

/// (message_id, status), in the order in which they were told.
async fn told(redis: &RedisServer, count: usize) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    json(&redis.list_of(RESULTS, count).await)
        .iter()
        .map(|result| (text(&result["message_id"]), text(&result["status"])))
        .collect()
}

#[tokio::test]
async fn a_command_past_its_expiry_is_never_sent_and_the_rest_of_its_life_goes_to_the_broker() {
    let (mut broker, redis) = (Broker::lasting().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "expiry = \"2s\"\n").await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    let past = command("M-1", "past", r#","expires_at":"2020-01-01T00:00:00Z""#);
    let now = command("M-1", "now", r#","expires_in":600"#);
    redis.push(COMMANDS, &[past, now.clone()]).await;
    assert_eq!(machine.next().await.1, now, "verbatim, and the first one is not sent");
    assert!(machine.expiry().is_some_and(|seconds| (590..=600).contains(&seconds)), "{:?}", machine.expiry());
    // One that expires while the broker is away.
    broker.stop();
    gateway.says("mqtt-commands: ").await;
    redis.push(COMMANDS, &[command("M-1", "late", ""), command("M-1", "kept", r#","expires_in":600"#)]).await;
    eventually("it is expired", async || {
        let dead = json(&redis.list(DEAD).await);
        (dead.iter().filter(|letter| letter["reason"].as_str().is_some_and(|why| why.contains("life"))).count() == 2)
            .then_some(())
    })
    .await;
    broker.restart().await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    assert!(machine.next().await.1.contains(r#""kept""#), "the late one is not sent");
    emptied(&redis).await;
    let told = told(&redis, 4).await;
    for (id, status) in [("past", "expired"), ("now", "sent"), ("late", "expired"), ("kept", "sent")] {
        assert!(told.contains(&(id.to_owned(), status.to_owned())), "{told:?}");
    }
}

#[tokio::test]
async fn while_nobody_listens_a_command_waits_and_others_go_on() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "").await;
    let mut here = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    redis.push(COMMANDS, &[command("away", "1", ""), command("M-1", "2", "")]).await;
    assert!(here.next().await.1.contains(r#""2""#));
    eventually("it waits", async || {
        let results = redis.list(RESULTS).await;
        results.iter().any(|result| result.contains("waiting")).then_some(())
    })
    .await;
    let mut comes = Machine::connect(broker.port, "away", Some("machine/away/command")).await;
    assert!(comes.next().await.1.contains(r#""1""#));
    drop(comes);
    redis.push(COMMANDS, &[command("nobody", "3", "")]).await;
    let letter = json(&redis.list_of(DEAD, 1).await).remove(0);
    assert!(letter["reason"].as_str().is_some_and(|why| why.contains("nobody was subscribed")), "{letter}");
    assert_eq!((&letter["serial_no"], &letter["topic"]), (&"nobody".into(), &"machine/nobody/command".into()));
    emptied(&redis).await;
    let told = told(&redis, 5).await;
    let of = |id: &str| -> Vec<&str> {
        told.iter().filter(|(other, _)| other == id).map(|(_, status)| status.as_str()).collect()
    };
    assert_eq!(of("1"), ["waiting", "sent"]);
    assert_eq!(of("3"), ["waiting", "no-subscriber"]);
    let metrics = gateway.text("/metrics").await.expect("metrics");
    assert!(metrics.contains("sluicegate_downlink_commands_total{outcome=\"no-subscriber\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_message_id_is_sent_once_over_restarts_and_flushed_scripts() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = start(&broker, &redis, "").await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    let long = "é".repeat(128);
    redis.push(COMMANDS, &[command("M-1", "1", ""), command("M-1", "1", ""), command("M-1", &long, "")]).await;
    assert!(machine.next().await.1.contains(r#""1""#));
    assert!(machine.next().await.1.contains("éé"));
    emptied(&redis).await;
    redis.command("SCRIPT FLUSH").await;
    redis.push(COMMANDS, &[command("M-1", "1", ""), command("M-1", &long, "")]).await;
    emptied(&redis).await;
    gateway.kill();
    gateway.run().await;
    redis.push(COMMANDS, &[command("M-1", "1", ""), command("M-1", "2", "")]).await;
    assert!(machine.next().await.1.contains(r#""2""#), "no other was sent twice");
    emptied(&redis).await;
    let told = told(&redis, 7).await;
    assert_eq!(told.iter().filter(|(_, status)| status == "duplicate").count(), 4, "{told:?}");
    assert_eq!(told.iter().filter(|(_, status)| status == "sent").count(), 3, "{told:?}");
}

#[tokio::test]
async fn a_rejected_message_id_may_come_again_mended() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let _gateway = start(&broker, &redis, "").await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    redis.push(COMMANDS, &[command("M-1", "1", "").replace("reboot", "format")]).await;
    redis.list_of(DEAD, 1).await;
    emptied(&redis).await;
    redis.push(COMMANDS, &[command("M-1", "1", "")]).await;
    assert!(machine.next().await.1.contains("reboot"));
}

/// So many results have this status.
async fn have_status(redis: &RedisServer, count: usize, status: &str) {
    let status = format!("\"status\":\"{status}\"");
    eventually(&format!("{count} times {status}"), async || {
        let results = redis.list(RESULTS).await;
        (results.iter().filter(|result| result.contains(&status)).count() >= count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn machines_that_are_away_hold_up_no_others() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let _gateway = start_on(broker.port, redis.port, "in_flight = 10\nwait_for_subscriber = \"60s\"").await;
    let mut here = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    let to_one = (0..50).map(|seq| command("away", &format!("one-{seq}"), r#","expires_in":600"#));
    let to_many = (0..125).map(|seq| command(&format!("away-{}", seq % 25), &seq.to_string(), r#","expires_in":600"#));
    let mut commands: Vec<String> = to_one.chain(to_many).collect();
    commands.push(command("M-1", "here", ""));
    redis.push(COMMANDS, &commands).await;
    assert!(here.next().await.1.contains("here"));
    // And they are all there, in order, when their machines are.
    let mut comes = Machine::connect(broker.port, "away", Some("machine/away/command")).await;
    for expected in &commands[..50] {
        assert_eq!(comes.next().await.1, *expected, "dead: {:?}", redis.list(DEAD).await);
    }
}

#[tokio::test]
async fn what_waits_behind_a_machine_that_is_away_waits_no_longer_than_it_says() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let _gateway = start_on(broker.port, redis.port, "wait_for_subscriber = \"3s\"").await;
    let commands: Vec<String> = (0..30).map(|seq| command("away", &seq.to_string(), "")).collect();
    redis.push(COMMANDS, &commands).await;
    redis.list_of(DEAD, 30).await;
    emptied(&redis).await;
    have_status(&redis, 30, "no-subscriber").await;
}

#[tokio::test]
async fn what_waits_for_the_brokers_window_is_not_sent_after_its_life() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let proxy = Proxy::to(broker.port).await;
    let _gateway = start_on(proxy.port, redis.port, "in_flight = 1\nwait_for_subscriber = \"60s\"").await;
    let commands: Vec<String> =
        (0..30).map(|seq| command(&format!("M-{seq}"), &seq.to_string(), r#","expires_in":8"#)).collect();
    redis.push(COMMANDS, &commands).await;
    have_status(&redis, 30, "waiting").await;
    proxy.hold_answers(true);
    // One is sent, and nobody knows what became of it.
    have_status(&redis, 29, "no-subscriber").await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    redis.push(COMMANDS, &[command("M-1", "last", r#","expires_in":600"#)]).await;
    proxy.cut();
    proxy.hold_answers(false);
    assert!(machines.next().await.1.contains("last"), "nothing is sent late");
}

#[tokio::test]
async fn a_settlement_whose_answer_was_lost_takes_no_other_commands_entry() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let (to_broker, to_redis) = (Proxy::to(broker.port).await, Proxy::to(redis.port).await);
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    let mut gateway = started(&Gateway::settings(to_broker.port, to_redis.port, "[commands]\ndedupe = \"0s\"\n")).await;
    // The connection that settles is made for the first one.
    redis.push(COMMANDS, &[command("M-1", "0", "")]).await;
    machine.next().await;
    emptied(&redis).await;
    to_broker.hold_answers(true);
    let twice = command("M-1", "1", r#","expires_in":600"#);
    redis.push(COMMANDS, &[twice.clone(), twice.clone()]).await;
    assert_eq!(machine.next().await.1, twice);
    redis.list_of(PROCESSING, 2).await;
    // The first is delivered and leaves the list, whose answer does not arrive; the second one is not sent.
    to_redis.hold_answers(true);
    to_broker.hold_requests(true);
    to_broker.hold_answers(false);
    eventually("it left", async || (redis.list(PROCESSING).await.len() == 1).then_some(())).await;
    to_redis.cut();
    to_redis.hold_answers(false);
    // What is settled after it, is settled.
    redis.push(COMMANDS, &["not json".to_owned()]).await;
    redis.list_of(DEAD, 1).await;
    eventually("it is settled", async || {
        (!redis.list(PROCESSING).await.contains(&"not json".to_owned())).then_some(())
    })
    .await;
    assert_eq!(redis.list(PROCESSING).await, std::slice::from_ref(&twice));
    gateway.kill();
    to_broker.cut();
    to_broker.hold_requests(false);
    gateway.run().await;
    assert_eq!(machine.next().await.1, twice);
    emptied(&redis).await;
}

#[tokio::test]
async fn what_was_sent_is_remembered_by_a_redis_that_is_out_of_memory() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let proxy = Proxy::to(broker.port).await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    let _gateway = started(&Gateway::settings(proxy.port, redis.port, "")).await;
    proxy.hold_answers(true);
    redis.push(COMMANDS, &[command("M-1", "1", "")]).await;
    assert!(machine.next().await.1.contains(r#""1""#));
    redis.command("CONFIG SET maxmemory 1").await;
    proxy.hold_answers(false);
    emptied(&redis).await;
    let mut connection = redis.connect().await;
    eventually("it is known to be sent", async || {
        let mut ask = redis::cmd("GET");
        let known: String =
            ask.arg("{mqtt_outgoing_commands}:sent:1").query_async(&mut connection).await.expect("text");
        (known == "!sent").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_list_of_results_that_is_refused_raises_an_alarm_and_holds_up_nothing() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "").await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    redis.command(&format!("SET {RESULTS} text")).await;
    for id in ["1", "2"] {
        redis.push(COMMANDS, &[command("M-1", id, "")]).await;
        machine.next().await;
        emptied(&redis).await;
    }
    gateway.says("queues.command_results").await;
    assert_eq!(gateway.log().matches("cannot be told").count(), 1, "{}", gateway.log());
    redis.command(&format!("DEL {RESULTS}")).await;
    redis.push(COMMANDS, &[command("M-1", "3", "")]).await;
    assert_eq!(told(&redis, 1).await, [("3".to_owned(), "sent".to_owned())]);
    gateway.ready().await;
}

#[tokio::test]
async fn while_the_dead_letters_are_refused_what_needs_none_is_settled() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "").await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    redis.command(&format!("SET {DEAD} text")).await;
    redis.push(COMMANDS, &["not json".to_owned()]).await;
    gateway.says("cannot become dead letters").await;
    redis.push(COMMANDS, &[command("M-1", "1", "")]).await;
    machine.next().await;
    eventually("it is settled", async || (redis.list(PROCESSING).await == ["not json"]).then_some(())).await;
    assert_eq!(told(&redis, 1).await, [("1".to_owned(), "sent".to_owned())]);
    redis.command(&format!("DEL {DEAD}")).await;
    let letter = json(&redis.list_of(DEAD, 1).await).remove(0);
    assert_eq!(letter["payload"], "not json");
    emptied(&redis).await;
    gateway.ready().await;
}

#[tokio::test]
async fn dead_letters_of_commands_that_go_are_counted() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = started(&Gateway::settings(broker.port, redis.port, "[queues]\ndead_letters_max = 5\n")).await;
    redis.push(COMMANDS, &(0..20).map(|seq| format!("no command {seq}")).collect::<Vec<_>>()).await;
    eventually("what went is counted", async || {
        gateway.text("/metrics").await?.contains("sluicegate_dead_letters_trimmed_total 15\n").then_some(())
    })
    .await;
    assert_eq!(redis.list(DEAD).await.len(), 5);
    assert!(!gateway.log().contains("a command goes to the dead letters"), "{}", gateway.log());
}
