//! The build before is kept: over a restart, for a rollback under load; who wanted what is written down.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;
use sluicegate_tests::gateway::{another_build, binary, component};
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

const JOBS: &str = "mqtt_incoming_jobs";

/// `sluicegate plugin …`: its exit code, and what it printed.
pub(crate) fn plugin(gateway: &Gateway, arguments: &str) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.arg("plugin").args(arguments.split_whitespace()).current_dir(gateway.path(""));
    if ["list", "history", "promote", "rollback", "load", "top"].iter().any(|asks| arguments.starts_with(asks)) {
        command.args(["--address", &gateway.address()]);
    }
    let output = command.args(["--config", "sluicegate.toml"]).env_remove("RUST_LOG").output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout) + &text(output.stderr))
}

async fn is_live(gateway: &Gateway, generation: u64) -> Value {
    eventually(&format!("generation {generation} is live"), async || {
        let plugin = gateway.plugin("heartbeat").await?;
        (plugin["live"]["generation"] == generation).then_some(plugin)
    })
    .await
}

pub(crate) async fn kept(gateway: &Gateway, builds: usize) {
    eventually("the builds are kept", async || {
        let index = fs::read_to_string(gateway.path("state/plugins-gateway-1/index.json")).ok()?;
        let index: Value = serde_json::from_str(&index).ok()?;
        let plugin = &index["plugins"]["heartbeat"];
        let named = ["live", "fallback"].iter().filter(|name| plugin[**name].is_object()).count();
        (named == builds).then_some(())
    })
    .await;
}

#[tokio::test]
async fn after_a_restart_with_a_bad_file_in_place_the_last_good_build_serves() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    gateway.install("heartbeat", &another_build("heartbeat", 1));
    let digest = is_live(&gateway, 2).await["live"]["digest"].clone();
    kept(&gateway, 2).await;
    gateway.install("heartbeat", b"garbage");
    eventually("it is refused", async || {
        (gateway.plugin("heartbeat").await?["last_refusal"]["step"] == "verified").then_some(())
    })
    .await;
    gateway.kill();
    gateway.run().await;
    let plugin = is_live(&gateway, 1).await;
    assert_eq!((&plugin["live"]["source"], &plugin["live"]["digest"]), (&"fallback".into(), &digest), "{plugin}");
    assert_eq!(plugin["last_refusal"]["step"], "verified", "{plugin}");
    gateway.says("plugin heartbeat serves with the kept build 0.1.0 (sha256:").await;
    assert_eq!(gateway.get("/readyz").await.expect("JSON")["ready"], true);
    assert!(gateway.log().contains("serves with the kept build"), "{}", gateway.log());
    let machine = Machine::connect(broker.port, "M-1", None).await;
    machine.publish("machine/M-1/heartbeat", "{}").await;
    redis.list_of(JOBS, 1).await;
    let (code, text) = plugin_lines(&gateway, "list", "heartbeat");
    assert!(code == Some(0) && text.contains("fallback  0.1.0"), "{text}");

    // No file at all is no difference.
    fs::remove_file(gateway.path("plugins/heartbeat.wasm")).expect("removed");
    gateway.kill();
    gateway.run().await;
    assert_eq!(is_live(&gateway, 1).await["live"]["source"], "fallback");
    machine.publish("machine/M-1/heartbeat", "{}").await;
    redis.list_of(JOBS, 2).await;
    let metrics = gateway.text("/metrics").await.expect("metrics");
    let line = r#"sluicegate_plugin_reloads_total{plugin="heartbeat",step="fallback",result="live"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    gateway.install("heartbeat", &component("heartbeat"));
    assert_eq!(is_live(&gateway, 2).await["live"]["source"], "file");
    eventually("the notice is gone", async || {
        gateway.get("/readyz").await?["notices"].as_array()?.is_empty().then_some(())
    })
    .await;
}

fn plugin_lines(gateway: &Gateway, arguments: &str, of: &str) -> (Option<i32>, String) {
    let (code, text) = plugin(gateway, arguments);
    (code, text.lines().filter(|line| line.contains(of)).collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn rollbacks_under_load_lose_and_double_nothing() {
    const MESSAGES: u64 = 2_000;
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let publishing = async {
        for seq in 0..MESSAGES {
            machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq}}}"#)).await;
        }
    };
    let turning = async {
        for turn in 0..4 {
            gateway.install("heartbeat", &another_build("heartbeat", turn));
            is_live(&gateway, u64::from(turn) * 2 + 2).await;
            let back = if turn % 2 == 0 {
                gateway.post("/api/plugins/heartbeat/rollback", "{}").await
            } else {
                let (address, folder) = (gateway.address(), gateway.path(""));
                let run = tokio::task::spawn_blocking(move || {
                    let arguments = ["plugin", "rollback", "heartbeat", "--address", &address];
                    Command::new(binary()).args(arguments).current_dir(folder).output().expect("it runs")
                });
                let output = run.await.expect("it ran");
                assert_eq!(output.status.code(), Some(0), "{output:?}");
                String::from_utf8(output.stdout).expect("UTF-8")
            };
            assert!(back.contains("200 OK") || back.contains("is live again"), "{back}");
            is_live(&gateway, u64::from(turn) * 2 + 3).await;
        }
    };
    tokio::join!(publishing, turning);
    let jobs = redis.list_of(JOBS, usize::try_from(MESSAGES).expect("small")).await;
    let seqs: Vec<u64> = jobs
        .iter()
        .map(|job| serde_json::from_str::<Value>(job).expect("JSON")["payload"]["seq"].as_u64().expect("a number"))
        .collect();
    assert_eq!(seqs, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(redis.list("mqtt_dead_letters").await, Vec::<String>::new());
    // A second one has nothing to go back to.
    let (code, text) = plugin(&gateway, "rollback heartbeat");
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("has no build to go back to"), "{text}");
    let answer = gateway.post("/api/plugins/heartbeat/rollback", "{}").await;
    assert!(answer.contains("409 Conflict"), "{answer}");
    for (body, status) in [("{\"to\":1}", "400 Bad Request"), ("x", "400 Bad Request")] {
        assert!(gateway.post("/api/plugins/heartbeat/rollback", body).await.contains(status), "{body}");
    }
    assert!(gateway.post("/api/plugins/nobody/rollback", "{}").await.contains("404 Not Found"));
    assert_eq!(plugin(&gateway, "rollback nobody").0, Some(3));
}

#[tokio::test]
async fn history_survives_a_restart_and_what_was_rolled_back_is_not_tried_again() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::start(broker.port, redis.port).await;
    fs::write(gateway.path("new.wasm"), another_build("heartbeat", 1)).expect("written");
    let (code, text) = plugin(&gateway, "load heartbeat new.wasm --wait");
    assert_eq!(code, Some(0), "{text}");
    let steps: Vec<&str> = text.lines().collect();
    let live = "live: heartbeat 0.1.0 as generation 2";
    assert_eq!(steps, ["found", "verified", "compiled", "checked", "rehearsed", live]);
    let (code, text) = plugin(&gateway, "load heartbeat new.wasm --wait");
    assert!(code == Some(0) && text.contains("is live already"), "{text}");
    fs::write(gateway.path("bad.wasm"), component("error")).expect("written");
    for _ in 0..2 {
        let (code, text) = plugin(&gateway, "load heartbeat bad.wasm --wait");
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains("not checked: it says that it is the plugin `error`"), "{text}");
        assert!(text.contains("next: "), "{text}");
    }
    assert_eq!(plugin(&gateway, "rollback heartbeat").0, Some(0));
    let (code, text) = plugin(&gateway, "load heartbeat new.wasm --wait --json");
    assert!(code == Some(3) && text.contains("was rolled back"), "{text}");
    gateway.signal("TERM");
    gateway.ended().await;
    // The file in place is the one that was refused: nothing new.
    gateway.run().await;
    let changes = gateway.get("/api/history?plugin=heartbeat").await.expect("JSON")["changes"].clone();
    let told: Vec<String> = changes
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| ["what", "who", "outcome", "step"].map(|part| change[part].as_str().unwrap_or("-")).join(" "))
        .collect();
    assert_eq!(
        told,
        [
            "load start refused checked",
            "rollback api live fallback",
            "load file refused checked",
            "load file live live",
            "load start live live"
        ]
    );
    let (code, text) = plugin(&gateway, "history heartbeat");
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("heartbeat  rollback  by api    ") && text.contains("refused, not checked: "), "{text}");
    let (_, text) = plugin(&gateway, "history nobody");
    assert_eq!(text, "nothing changed yet\n");
    let (code, text) = plugin(&gateway, "top");
    assert!(code == Some(0) && text.starts_with("plugin "), "{text}");
    let (code, text) = plugin(&gateway, "list --json");
    assert_eq!(code, Some(0), "{text}");
    let listed: Value = serde_json::from_str(&text).expect("JSON");
    let plugins = listed["data"]["plugins"].as_array().expect("plugins");
    let listed = plugins.iter().find(|plugin| plugin["name"] == "heartbeat").expect("the heartbeat");
    assert_eq!(listed["live"]["source"], "fallback", "{text}");
    assert_eq!(listed["rejected"].as_array().map(Vec::len), Some(0), "the file held another build since: {text}");
    assert_eq!(&gateway.get("/api/plugins/heartbeat").await.expect("JSON"), listed);
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_written_stops_no_swap() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, ""));
    fs::create_dir_all(gateway.path("state")).expect("a folder");
    fs::set_permissions(gateway.path("state"), fs::Permissions::from_mode(0o500)).expect("read-only");
    gateway.without_override(true);
    gateway.run().await;
    gateway.says("cannot use state/plugins-gateway-1").await;
    gateway.install("heartbeat", &another_build("heartbeat", 1));
    is_live(&gateway, 2).await;
    assert_eq!(gateway.get("/readyz").await.expect("JSON")["ready"], true);
    let alarm = r#"sluicegate_alarm{alarm="a plugin's fallback is not kept"} 1"#;
    assert!(gateway.text("/metrics").await.expect("metrics").contains(alarm));
    // From memory, since the disk has it not.
    assert_eq!(plugin(&gateway, "rollback heartbeat").0, Some(0));
    is_live(&gateway, 3).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    machine.publish("machine/M-1/heartbeat", "{}").await;
    redis.list_of(JOBS, 1).await;
    fs::set_permissions(gateway.path("state"), fs::Permissions::from_mode(0o700)).expect("writable");
    gateway.install("heartbeat", &another_build("heartbeat", 2));
    is_live(&gateway, 4).await;
    kept(&gateway, 2).await;
    eventually("the notice is gone", async || {
        (!gateway.text("/readyz").await?.contains("cannot use state")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn on_a_full_disk_a_swap_goes_on_and_it_is_said_that_nothing_is_kept() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, "")).on_a_small_disk("state", "128k");
    gateway.run().await;
    gateway.says("(gateway.state, its permissions, and the room on its disk): No space left on device").await;
    gateway.install("heartbeat", &another_build("heartbeat", 1));
    is_live(&gateway, 2).await;
    assert_eq!(gateway.get("/readyz").await.expect("JSON")["ready"], true);
    assert_eq!(plugin(&gateway, "rollback heartbeat").0, Some(0));
    is_live(&gateway, 3).await;
}
