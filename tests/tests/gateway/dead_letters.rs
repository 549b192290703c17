//! Dead letters: looked at, handled again, dropped.

use std::process::Command;

use serde_json::Value;
use sluicegate_guests::Guest;
use sluicegate_tests::gateway::binary;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

const JOBS: &str = "mqtt_incoming_jobs";
const DEAD: &str = "mqtt_dead_letters";
const ROUTES: &str = r#"
[plugins.obedient]
path = "plugins/obedient.wasm"
[plugins.command-validation]
path = "plugins/command-validation.wasm"
[plugins.command-validation.settings]
commands = "reboot"
[commands]
validator = "command-validation"
[[routes]]
name = "obedient"
topic = "machine/{serial_no}/do"
handlers = ["obedient"]
"#;

/// A gateway whose one handler does what the payloads say, with these messages: what to do, and for which machine.
async fn with_letters(broker: &Broker, redis: &RedisServer, messages: &[(u8, &str)]) -> Gateway {
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, ROUTES));
    gateway.install("obedient", &Guest::obedient().handler());
    gateway.run().await;
    let machine = Machine::connect(broker.port, "machines", None).await;
    for (seq, (what, name)) in messages.iter().enumerate() {
        machine.publish(&format!("machine/{name}/do"), format!(r#"{{"do":{what},"seq":{seq}}}"#)).await;
    }
    gateway.counts(&[("received", messages.len() as u64), ("in_flight", 0)]).await;
    gateway
}

/// `sluicegate dead-letters …`: its exit code, and what it printed.
fn dead_letters(gateway: &Gateway, arguments: &str) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(["dead-letters", "--address", &gateway.address(), "--config", "sluicegate.toml"]);
    command.args(arguments.split_whitespace()).current_dir(gateway.path(""));
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout) + &text(output.stderr))
}

fn seqs(entries: &[String]) -> Vec<u64> {
    let payload = |entry: &String| -> Value {
        let entry: Value = serde_json::from_str(entry).expect("JSON");
        entry["payload"].as_str().map_or(entry["payload"].clone(), |text| serde_json::from_str(text).expect("JSON"))
    };
    entries.iter().filter_map(|entry| payload(entry)["seq"].as_u64()).collect()
}

/// Makes every letter one of another time, as if it had been received a day earlier.
async fn age(redis: &RedisServer) {
    let old: Vec<String> = redis.list(DEAD).await;
    redis.command(&format!("DEL {DEAD}")).await;
    let aged: Vec<String> = old
        .iter()
        .map(|letter| {
            let mut letter: Value = serde_json::from_str(letter).expect("JSON");
            letter["received_at"] = "2026-04-14T09:00:00+08:00".into();
            letter.to_string()
        })
        .collect();
    redis.push(DEAD, &aged).await;
}

#[tokio::test]
async fn they_are_listed_counted_shown_and_dropped() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = with_letters(&broker, &redis, &[(3, "M-1"), (3, "M-2"), (2, "M-1"), (0, "M-1")]).await;
    let (code, text) = dead_letters(&gateway, "list");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("  obedient  M-1  refused\n") && text.ends_with("3 shown, 3 meant, 3 in all\n"), "{text}");
    let (_, text) = dead_letters(&gateway, "list --machine M-1 --reason REFUSED --since 1h --json");
    let listed: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&listed["data"]["matched"], &listed["data"]["total"]), (&1.into(), &3.into()), "{text}");
    let letter = &listed["data"]["letters"][0];
    assert!(letter["payload"].is_null() && letter["topic"] == "machine/M-1/do" && letter["attempts"] == 1, "{letter}");
    let id = letter["id"].as_str().expect("an id");
    let (code, text) = dead_letters(&gateway, &format!("show {id}"));
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &shown["payload"]), (Some(0), &r#"{"do":3,"seq":0}"#.into()), "{text}");
    let (_, text) = dead_letters(&gateway, "list --by machine");
    assert_eq!(text, "       2  M-1\n       1  M-2\n");

    // What is not there, not meant, or not understood.
    let (code, text) = dead_letters(&gateway, "show 0000000000000000");
    assert_eq!(code, Some(3), "{text}");
    for wrong in ["show 1", "drop", "replay", "drop --all --machine M-1", "list --since yesterday", "list --by colour"]
    {
        let (code, text) = dead_letters(&gateway, wrong);
        assert_eq!(code, Some(2), "{wrong}: {text}");
    }
    assert_eq!(gateway.get("/api/dead-letters?maschine=M-1").await.expect("JSON")["letters"], Value::Null);
    let unclear = gateway.post("/api/dead-letters/drop", r#"{"filter":{"maschine":"M-1"}}"#).await;
    assert!(unclear.contains("400 Bad Request") && unclear.contains("maschine"), "{unclear}");
    let unclear = gateway.post("/api/dead-letters/drop", "{}").await;
    assert!(unclear.contains("say which letters"), "{unclear}");
    assert_eq!(redis.list(DEAD).await.len(), 3);

    let (_, text) = dead_letters(&gateway, "drop --machine M-1 --dry-run");
    assert!(text.ends_with("2 would be dropped; nothing was done\n"), "{text}");
    assert_eq!(redis.list(DEAD).await.len(), 3);
    assert_eq!(dead_letters(&gateway, "drop --machine M-1"), (Some(0), "2 dropped\n".to_owned()));
    assert_eq!(seqs(&redis.list(DEAD).await), [1]);
    assert_eq!(dead_letters(&gateway, "drop --all"), (Some(0), "1 dropped\n".to_owned()));
}

#[tokio::test]
async fn a_replayed_letter_takes_the_new_build_keeps_its_time_and_leaves_the_list() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = with_letters(&broker, &redis, &[(3, "M-1"), (3, "M-2"), (3, "M-1"), (0, "M-1")]).await;
    age(&redis).await;
    // Still the old build: dead again, once each.
    let (code, text) = dead_letters(&gateway, "replay --all");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("0 of 3 replayed") && text.contains("3 are dead letters again"), "{text}");
    let mut again = seqs(&redis.list(DEAD).await);
    again.sort_unstable();
    assert_eq!(again, [0, 1, 2]);

    let file = gateway.path("better.wasm");
    std::fs::write(&file, Guest::echo().handler()).expect("written");
    let (code, text) = dead_letters(&gateway, "replay --machine M-1 --plugin obedient=better.wasm");
    assert_eq!(code, Some(0), "{text}");
    let would =
        r#"{"type":"obedient","serial_no":"M-1","payload":{"do":3,"seq":2},"received_at":"2026-04-14T09:00:00+08:00"}"#;
    assert!(text.contains(would) && text.ends_with("2 of 2 would be taken; nothing was sent\n"), "{text}");
    let (code, text) = dead_letters(&gateway, "replay --machine M-1 --dry-run");
    assert!(code == Some(0) && text.ends_with("2 would be replayed; nothing was done\n"), "{text}");
    assert_eq!((redis.list(JOBS).await.len(), redis.list(DEAD).await.len()), (1, 3));

    gateway.install("obedient", &Guest::echo().handler());
    eventually("the new build is live", async || gateway.generation("obedient").await.filter(|number| *number == 2))
        .await;
    let (code, text) = dead_letters(&gateway, "replay --machine M-1 --json");
    assert_eq!(code, Some(0), "{text}");
    let jobs = redis.list(JOBS).await;
    assert_eq!(seqs(&jobs), [3, 0, 2]);
    assert_eq!(jobs[2], would);
    assert_eq!(seqs(&redis.list(DEAD).await), [1]);
    gateway.counts(&[("received", 9), ("pushed", 3), ("dead", 6)]).await;
}

#[tokio::test]
async fn a_command_goes_back_to_its_list() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = with_letters(&broker, &redis, &[]).await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    let command = r#"{"target":"M-1","command":"unlock","payload":[],"message_id":"1"}"#;
    redis.push("mqtt_outgoing_commands", &[command.to_owned()]).await;
    redis.list_of(DEAD, 1).await;
    // The list of commands that are allowed is longer now.
    let settings = std::fs::read_to_string(gateway.path("sluicegate.toml")).expect("settings");
    std::fs::write(gateway.path("sluicegate.toml"), settings.replace("\"reboot\"", "\"reboot,unlock\""))
        .expect("written");
    let mut gateway = gateway;
    gateway.signal("TERM");
    gateway.ended().await;
    gateway.run().await;
    assert_eq!(dead_letters(&gateway, "replay --all"), (Some(0), "1 of 1 replayed\n".to_owned()));
    assert_eq!(machine.next().await.1, command);
    assert_eq!(redis.list(DEAD).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_thousand_are_replayed_over_a_redis_that_restarts_and_none_is_lost() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let messages: Vec<(u8, String)> = (0..1_000).map(|seq| (3, format!("M-{}", seq % 7))).collect();
    let messages: Vec<(u8, &str)> = messages.iter().map(|(what, name)| (*what, name.as_str())).collect();
    let gateway = with_letters(&broker, &redis, &messages).await;
    gateway.install("obedient", &Guest::echo().handler());
    eventually("the new build is live", async || gateway.generation("obedient").await.filter(|number| *number == 2))
        .await;
    let accepted = gateway.post("/api/dead-letters/replay", r#"{"all":true,"rate":2000}"#).await;
    assert!(accepted.contains("202 Accepted"), "{accepted}");
    let second = gateway.post("/api/dead-letters/replay", r#"{"all":true}"#).await;
    assert!(second.contains("409 Conflict"), "{second}");
    eventually("some are replayed", async || {
        (gateway.get("/api/dead-letters/replay").await?["replayed"].as_u64()? > 100).then_some(())
    })
    .await;
    redis.kill();
    redis.restart().await;
    let progress = eventually("the replay ends", async || {
        gateway.get("/api/dead-letters/replay").await.filter(|progress| progress["running"] == false)
    })
    .await;
    gateway.counts(&[("in_flight", 0), ("spooled", 0)]).await;
    // What was left when Redis went away is replayed by another order.
    if progress["left"] != 0 {
        let (code, text) = dead_letters(&gateway, "replay --all --rate 5000");
        assert_eq!(code, Some(0), "{text}");
    }
    eventually("every letter left the list", async || redis.list(DEAD).await.is_empty().then_some(())).await;
    let mut arrived = seqs(&redis.list(JOBS).await);
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived, (0..1_000).collect::<Vec<_>>());
}
