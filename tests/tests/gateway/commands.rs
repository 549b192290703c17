//! From the back end's list to a machine.

use serde_json::Value;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

const COMMANDS: &str = "mqtt_outgoing_commands";
const PROCESSING: &str = "{mqtt_outgoing_commands}:processing:gateway-1";

async fn emptied(redis: &RedisServer) {
    eventually("the processing list is empty", async || redis.list(PROCESSING).await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_command_reaches_its_machine_byte_for_byte() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let _gateway = Gateway::start(broker.port, redis.port).await;
    let mut machine = Machine::connect(broker.port, "TEST-001", Some("machine/TEST-001/command")).await;
    let empty = r#"{"target":"TEST-001","command":"reboot","payload":[],"message_id":"MSG_1"}"#;
    let odd = " { \"message_id\" : \"MSG_2\",\"payload\":{\"slot_no\":5 ,\"transaction_id\":\"T1\",\"price\":12.30}, \"command\":\"dispense\",\"target\":\"TEST-001\", \"extra\":1}";
    redis.push(COMMANDS, &[empty.to_owned(), odd.to_owned()]).await;
    assert_eq!(machine.next().await, ("machine/TEST-001/command".to_owned(), empty.to_owned()));
    assert_eq!(machine.next().await.1, odd);
    emptied(&redis).await;
    assert_eq!(redis.list("mqtt_dead_letters").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_list_of_commands_that_is_none_is_named_and_taken_once_it_is_one() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    redis.command(&format!("SET {COMMANDS} text")).await;
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, ""));
    gateway.spawn().await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    gateway.says(&format!("Redis refuses `{COMMANDS}`: WRONGTYPE")).await;
    redis.command(&format!("DEL {COMMANDS}")).await;
    let command = r#"{"target":"M-1","command":"reboot","payload":[],"message_id":"MSG_1"}"#;
    redis.push(COMMANDS, &[command.to_owned()]).await;
    assert_eq!(machine.next().await.1, command);
}

#[tokio::test]
async fn a_thousand_commands_keep_each_machines_order() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let mut machines = Vec::new();
    for number in 0..10 {
        machines.push(
            Machine::connect(broker.port, &format!("M-{number}"), Some(&format!("machine/M-{number}/command"))).await,
        );
    }
    let commands: Vec<String> = (0..1_000)
        .map(|seq| format!(r#"{{"target":"M-{}","command":"reboot","payload":[],"message_id":"{seq}"}}"#, seq % 10))
        .collect();
    redis.push(COMMANDS, &commands).await;
    for (number, machine) in machines.iter_mut().enumerate() {
        for turn in 0..100 {
            assert_eq!(machine.next().await.1, commands[turn * 10 + number]);
        }
    }
    emptied(&redis).await;
    eventually("every command is counted", async || {
        let metrics = gateway.text("/metrics").await?;
        metrics.contains("sluicegate_downlink_commands_total{outcome=\"sent\"} 1000\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_a_dead_letter_with_the_reason_and_never_sent() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let _gateway = Gateway::start(broker.port, redis.port).await;
    let mut machine = Machine::connect(broker.port, "watcher", Some("machine/#")).await;
    let command = |target: &str, name: &str, payload: &str| {
        format!(r#"{{"target":"{target}","command":"{name}","payload":{payload},"message_id":"{target} {name}"}}"#)
    };
    let wrong = [
        ("not json".to_owned(), "not JSON"),
        ("[]".to_owned(), "it is no object"),
        (command("a/b", "reboot", "[]"), "`target` holds /"),
        (command("+", "reboot", "[]"), "`target` holds +"),
        (command("M-1", "format", "[]"), "command: was `format`, must be one of dispense,reboot"),
        (command("M-1", "dispense", "[]"), "payload: was `[]`, must be a JSON object"),
        (r#"{"target":"M-1","command":"reboot","payload":[]}"#.to_owned(), "message_id: has 0 characters"),
    ];
    let entries: Vec<String> = wrong.iter().map(|(entry, _)| entry.clone()).collect();
    redis.push(COMMANDS, &entries).await;
    redis.push(COMMANDS, &[command("M-1", "reboot", "[]")]).await;
    assert_eq!(machine.next().await.1, command("M-1", "reboot", "[]"), "only the good one is sent");
    let dead = redis.list_of("mqtt_dead_letters", wrong.len()).await;
    for (entry, reason) in wrong {
        let found = dead.iter().map(|letter| serde_json::from_str::<Value>(letter).expect("JSON"));
        let letter = found
            .into_iter()
            .find(|letter| letter["payload"] == entry.as_str())
            .unwrap_or_else(|| panic!("{entry} in {dead:?}"));
        assert!(letter["reason"].as_str().is_some_and(|text| text.contains(reason)), "{letter}");
        assert_eq!(letter["kind"], "command");
    }
    emptied(&redis).await;
}

/// The second of each pair is taken just when the first one is settled.
#[tokio::test]
async fn of_two_with_one_id_one_is_sent_however_close_they_come() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let _gateway = Gateway::start(broker.port, redis.port).await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    for id in 0..300 {
        let pair = [1, 2]
            .map(|n| format!(r#"{{"target":"M-1","command":"reboot","payload":{{"n":{n}}},"message_id":"{id}"}}"#));
        redis.push(COMMANDS, &pair).await;
        assert_eq!(machine.next().await.1, pair[0]);
    }
    emptied(&redis).await;
}

#[tokio::test]
async fn what_stands_in_the_processing_list_goes_first_after_a_start() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let command = |id: &str| format!(r#"{{"target":"M-1","command":"reboot","payload":[],"message_id":"{id}"}}"#);
    redis.push(PROCESSING, &[command("old-1"), command("old-2")]).await;
    redis.push(COMMANDS, &[command("new")]).await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    let _gateway = Gateway::start(broker.port, redis.port).await;
    for id in ["old-1", "old-2", "new"] {
        assert_eq!(machine.next().await.1, command(id));
    }
    emptied(&redis).await;
}

#[tokio::test]
async fn a_command_that_was_taken_survives_kill_9() {
    let (mut broker, redis) = (Broker::lasting().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    broker.stop();
    let command = r#"{"target":"M-1","command":"reboot","payload":[],"message_id":"1"}"#.to_owned();
    redis.push(COMMANDS, std::slice::from_ref(&command)).await;
    redis.list_of(PROCESSING, 1).await;
    gateway.kill();
    broker.restart().await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    gateway.run().await;
    assert_eq!(machine.next().await.1, command);
    emptied(&redis).await;
}

#[tokio::test]
async fn sigterm_reorders_no_machines_commands() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let more = "[queues]\ncommand_results = \"results\"\n[commands]\nwait_for_subscriber = \"600s\"\n";
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, more));
    gateway.run().await;
    let command = |seq: usize| {
        let machine = seq % 20;
        format!(r#"{{"target":"M-{machine}","command":"reboot","payload":[],"message_id":"{seq}","expires_in":600}}"#)
    };
    let commands: Vec<String> = (0..200).map(command).collect();
    redis.push(COMMANDS, &commands).await;
    // The first of each machine has found nobody; the others are behind it.
    redis.list_of("results", 20).await;
    gateway.signal("STOP");
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/#")).await;
    gateway.signal("TERM");
    gateway.signal("CONT");
    assert!(gateway.ended().await.success(), "{}", gateway.log());
    gateway.run().await;
    let mut next = [0; 20];
    for _ in 0..200 {
        let (topic, body) = machines.next().await;
        let machine: usize = topic["machine/M-".len()..].split('/').next().expect("a level").parse().expect("a number");
        assert_eq!(body, commands[next[machine] * 20 + machine]);
        next[machine] += 1;
    }
    emptied(&redis).await;
}
