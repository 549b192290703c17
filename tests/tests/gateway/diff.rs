//! `sluicegate plugin diff`: what two builds make of the same messages.

use std::fs;
use std::process::Command;

use serde_json::Value;
use sluicegate_guests::{Guest, custom};
use sluicegate_tests::gateway::binary;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};
use tempfile::TempDir;

const SETTINGS: &str = "[plugins.guest]\npath = \"guest.wasm\"\n[plugins.before]\npath = \"before.wasm\"\n[[routes]]\n\
    name = \"do\"\ntopic = \"machine/{serial_no}/do\"\nhandlers = [\"before\", \"guest\"]\n";

/// Runs it in a folder: its exit code, and what it printed.
fn diff(folder: &std::path::Path, arguments: &str) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(["plugin", "diff"]).args(arguments.split_whitespace()).current_dir(folder).env_remove("RUST_LOG");
    let output = command.args(["--config", "sluicegate.toml"]).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout) + &text(output.stderr))
}

/// The same build with one more custom section, which nobody reads.
fn other_bytes(mut component: Vec<u8>) -> Vec<u8> {
    custom(&mut component, "x", b"y");
    component
}

/// Refuses what has a 3 behind `"by":`, as the tests' obedient guest does.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let samples = r#"[{"name":"three","message":{"topic":"machine/M-1/do","payload":"{\"by\":3}"},"expect":{"reject":"refused"}}]"#;
    let strict = Guest { samples: Some(samples.to_owned()), ..Guest::obedient() };
    for (name, bytes) in [
        ("strict.wasm", strict.handler()),
        ("same.wasm", other_bytes(strict.handler())),
        ("loose.wasm", Guest::echo().handler()),
        ("validator.wasm", Guest::echo_validator()),
        ("broken.wasm", b"garbage".to_vec()),
        ("sluicegate.toml", SETTINGS.as_bytes().to_vec()),
        ("messages", b"machine/M-1/do {\"by\":0}\r\n\nmachine/M-2/do {\"by\":3}\nmachine/M-2/do {\"by\":6}\n".to_vec()),
        ("commands", br#"{"target":"M-1","command":"dispense","payload":{"slot":5},"message_id":"1"}"#.to_vec()),
    ] {
        fs::write(folder.path().join(name), bytes).expect("written");
    }
    folder
}

#[test]
fn on_samples_and_on_a_file_of_messages() {
    let folder = folder();
    let (code, text) = diff(folder.path(), "strict.wasm same.wasm --messages messages");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\n1 samples: 0 new failures, 0 mended, 0 differ;"), "{text}");
    assert!(text.contains("\n3 messages: 0 new failures, 0 mended, 0 differ;"), "{text}");
    assert!(text.contains("digest       sha256:") && text.contains(" -> sha256:"), "{text}");
    assert!(text.ends_with("\nno difference\n"), "{text}");

    let (code, text) = diff(folder.path(), "strict.wasm loose.wasm");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("\n  three: machine/M-1/do {\"by\":3}\n- failed: refused\n+ job {\"by\":3}\n"), "{text}");
    let (code, text) = diff(folder.path(), "loose.wasm strict.wasm --messages messages --json");
    assert_eq!(code, Some(1), "{text}");
    let told: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&told["ok"], &told["data"]["same"], &told["data"]["plugin"]),
        (&false.into(), &false.into(), &"guest".into())
    );
    let messages = &told["data"]["messages"];
    assert_eq!(
        (&messages["messages"], &messages["new_failures"], &messages["differing"]),
        (&3.into(), &1.into(), &2.into())
    );
    assert_eq!(messages["differences"][1]["now"][0], "dropped");
    assert_eq!(told["data"]["old"]["imports"][0], "sluicegate:plugin/types@0.1.0");

    let (code, text) = diff(folder.path(), "validator.wasm validator.wasm --messages commands");
    assert!(code == Some(0) && text.contains("\n1 messages: "), "{text}");
}

#[test]
fn what_cannot_be_compared_is_a_mistake_and_no_difference() {
    let folder = folder();
    // Nobody writes to it: whoever opened it would wait.
    assert!(Command::new("mkfifo").arg(folder.path().join("fifo")).status().expect("mkfifo").success());
    for (arguments, part) in [
        ("strict.wasm loose.wasm --messages fifo", "cannot read the messages of fifo: not a regular file"),
        ("strict.wasm loose.wasm --messages .", "cannot read the messages of .: not a regular file"),
        ("strict.wasm loose.wasm --messages /dev/zero", "not a regular file"),
        ("strict.wasm validator.wasm", "the one is a topic-handler, the other a command-validator"),
        ("strict.wasm nothing.wasm", "nothing.wasm: no such file"),
        ("broken.wasm strict.wasm", "not a WebAssembly component"),
        ("strict.wasm loose.wasm --plugin nobody", "the settings have no plugin `nobody`; they have before, guest"),
        ("strict.wasm loose.wasm --messages nothing", "cannot read the messages of nothing: No such file"),
        ("validator.wasm validator.wasm --messages messages", "cannot read the messages of messages: line 1: "),
        ("strict.wasm loose.wasm --messages messages --from-gateway 127.0.0.1:1", "cannot be used with"),
        ("strict.wasm", "required arguments were not provided"),
    ] {
        let (code, text) = diff(folder.path(), arguments);
        assert!(code == Some(2) && text.contains(part), "{arguments}: {code:?} {text}");
    }
    let (code, text) = diff(folder.path(), "strict.wasm loose.wasm --from-gateway 127.0.0.1:1");
    assert!(code == Some(4) && text.contains("no gateway answers on 127.0.0.1:1"), "{code:?} {text}");
}

/// What stands before the plugin in its chain is seen by it: the messages are as the plugin itself was given them.
#[tokio::test]
async fn on_the_last_real_messages_and_commands_of_a_gateway() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let more = format!("{SETTINGS}[plugins.checks]\npath = \"checks.wasm\"\n[commands]\nvalidator = \"checks\"\n");
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &more));
    let folder = folder();
    // Makes a 3 of whatever came.
    let three = "(i32.store8 (i32.add (local.get 4) (i32.const 6)) (i32.const 51))";
    let before = Guest { body: format!("{three} {}", Guest::echo().body), ..Guest::echo() };
    for (name, bytes) in
        [("before", before.handler()), ("guest", Guest::echo().handler()), ("checks", Guest::echo_validator())]
    {
        fs::write(gateway.path(&format!("{name}.wasm")), bytes).expect("written");
    }
    gateway.run().await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    for _ in 0..2 {
        machine.publish("machine/M-1/do", r#"{"by":0}"#).await;
    }
    redis.list_of("mqtt_incoming_jobs", 2).await;
    redis.push("mqtt_outgoing_commands", &[fs::read_to_string(folder.path().join("commands")).expect("it")]).await;
    machine.next().await;
    let url = format!("http://{}", gateway.address());
    let (code, text) = diff(folder.path(), &format!("loose.wasm strict.wasm --from-gateway {url}"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("\n2 messages: 2 new failures, 0 mended, 2 differ;"), "{text}");
    assert!(text.contains("\n  machine/M-1/do {\"by\":3}\n- job {\"by\":3}\n+ failed: refused\n"), "{text}");
    let (code, text) =
        diff(folder.path(), &format!("validator.wasm validator.wasm --plugin guest --from-gateway {url}"));
    assert_eq!(code, Some(2), "messages are none for a validator: {text}");
    let (code, text) = diff(folder.path(), &format!("loose.wasm strict.wasm --from-gateway {url} --plugin before"));
    assert!(code == Some(1) && text.contains("\n2 messages: 0 new failures, 0 mended, 0 differ;"), "{text}");
    let messages = gateway.get("/api/plugins/checks/messages").await.expect("JSON");
    let command = &messages["messages"][0]["command"];
    assert_eq!((&command["target"], &command["payload"]), (&"M-1".into(), &r#"{"slot":5}"#.into()), "{messages}");
    // In shadow: nothing was sent, nothing counted.
    gateway.counts(&[("received", 2), ("pushed", 2)]).await;
    assert_eq!(gateway.plugin("before").await.expect("it")["usage"]["calls"], 2);
}

#[tokio::test]
async fn a_validators_new_build_is_tried_on_the_last_commands() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let settings = "[plugins.checks]\npath = \"plugins/checks.wasm\"\n[[routes]]\nname = \"plain\"\n\
        topic = \"machine/{serial_no}/do\"\nhandlers = []\n[commands]\nvalidator = \"checks\"\n";
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, settings));
    gateway.install("checks", &Guest::echo_validator());
    gateway.run().await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    for number in 0..5 {
        let command = format!(r#"{{"target":"M-1","command":"x","payload":{{"n":{number}}},"message_id":"{number}"}}"#);
        redis.push("mqtt_outgoing_commands", &[command]).await;
        machine.next().await;
    }
    let reject = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 0))
        (i32.store (i32.const 1032) (i32.const 512)) (i32.store (i32.const 1036) (i32.const 7)) (i32.const 1024)";
    let refusing = Guest { extra: r#"(data (i32.const 512) "refused")"#.to_owned(), ..Guest::doing(reject) };
    gateway.install("checks", &refusing.validator());
    let refusal = eventually("it is refused", async || {
        let refusal = gateway.plugin("checks").await?["last_refusal"].clone();
        refusal.is_object().then_some(refusal)
    })
    .await;
    assert_eq!(refusal["step"], "rehearsed");
    let reason = refusal["reason"].as_str().expect("a reason");
    assert!(reason.contains("100.00 % of its calls fail, where 0.00 % did before"), "{reason}");
    let shown = gateway.get("/api/plugins/checks/rehearsal").await.expect("an answer");
    let text = shown["text"].as_str().expect("a text");
    assert!(text.contains("\n  M-1 x {\"n\":0}\n- payload {\"n\":0}\n+ failed: refused\n"), "{text}");
    assert_eq!(gateway.generation("checks").await, Some(1));
}
