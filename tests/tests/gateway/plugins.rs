//! Plugins are swapped while traffic flows, and a bad build changes nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use serde_json::Value;
use sluicegate_guests::{Guest, custom};
use sluicegate_tests::gateway::{another_build, component};
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

async fn start() -> (Broker, RedisServer, Gateway) {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    (broker, redis, gateway)
}

fn rename_into(gateway: &Gateway, name: &str, bytes: &[u8]) {
    let beside = gateway.path(&format!("plugins/.{name}.new"));
    fs::write(&beside, bytes).expect("written");
    fs::rename(&beside, gateway.path(&format!("plugins/{name}.wasm"))).expect("renamed");
}

async fn is_live(gateway: &Gateway, generation: u64) {
    eventually(&format!("generation {generation} is live"), async || {
        (gateway.generation("heartbeat").await? == generation).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_atomic_rename_a_slow_copy_and_a_symlink_switch_are_one_reload_each() {
    let (_broker, _redis, gateway) = start().await;
    is_live(&gateway, 1).await;
    rename_into(&gateway, "heartbeat", &another_build("heartbeat", 1));
    is_live(&gateway, 2).await;

    let slow = another_build("heartbeat", 2);
    let mut file = fs::File::create(gateway.path("plugins/heartbeat.wasm")).expect("truncated");
    for part in slow.chunks(slow.len() / 8 + 1) {
        file.write_all(part).expect("written");
        file.sync_data().expect("synced");
        tokio::task::yield_now().await;
    }
    drop(file);
    is_live(&gateway, 3).await;

    // As Kubernetes mounts a ConfigMap: file → ..data/file, ..data → a folder, switched by a rename.
    let folder = gateway.path("plugins");
    for (version, mark) in [("v1", 2), ("v2", 3)] {
        fs::create_dir(folder.join(version)).expect("a folder");
        fs::write(folder.join(version).join("heartbeat.wasm"), another_build("heartbeat", mark)).expect("written");
    }
    symlink("v1", folder.join("..data")).expect("a link");
    symlink("..data/heartbeat.wasm", folder.join("link")).expect("a link");
    fs::rename(folder.join("link"), folder.join("heartbeat.wasm")).expect("renamed");
    symlink("v2", folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("switched");
    is_live(&gateway, 4).await;

    let refusal = gateway.plugin("heartbeat").await.expect("a status")["last_refusal"].clone();
    assert_eq!(refusal, Value::Null, "no half of a file was ever tried");
}

#[tokio::test]
async fn a_bad_build_is_refused_with_the_reason_and_the_old_one_goes_on() {
    let (broker, redis, gateway) = start().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    // The samples promise what the code does not do.
    let lie = r#"[{"name":"lie","message":{"topic":"t","payload":"{}"},"expect":{"reject":"never"}}]"#;
    let manifest = "name = \"heartbeat\"\nversion = \"1\"\ndescription = \"lies\"\n".to_owned();
    let lies = Guest { manifest, samples: Some(lie.to_owned()), ..Guest::echo() }.handler();
    // Whoever appends a section does not take the place of the one that is there.
    let mut twice = component("heartbeat");
    custom(&mut twice, "sluicegate:samples", lie.as_bytes());
    let cases = [
        (b"no wasm".to_vec(), "verified"),
        (core_module, "verified"),
        (component("heartbeat")[..1000].to_vec(), "verified"),
        (component("command-validation"), "checked"),
        (component("error"), "checked"),
        (lies, "rehearsed"),
        (twice, "verified"),
    ];
    for (bytes, step) in cases {
        rename_into(&gateway, "heartbeat", &bytes);
        let refused = eventually(&format!("it is refused at {step}"), async || {
            let refusal = gateway.plugin("heartbeat").await?["last_refusal"].clone();
            (refusal["step"] == step).then_some(refusal)
        })
        .await;
        assert!(refused["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{refused}");
        assert_eq!(gateway.generation("heartbeat").await, Some(1));
    }
    assert!(gateway.log().contains("the live build goes on"));
    machine.publish("machine/M-1/heartbeat", "{}").await;
    redis.list_of("mqtt_incoming_jobs", 1).await;
    // A file that vanishes changes nothing either, and a good build goes live after all that.
    fs::remove_file(gateway.path("plugins/heartbeat.wasm")).expect("removed");
    machine.publish("machine/M-1/heartbeat", "{}").await;
    redis.list_of("mqtt_incoming_jobs", 2).await;
    rename_into(&gateway, "heartbeat", &another_build("heartbeat", 9));
    is_live(&gateway, 2).await;
}

#[tokio::test]
async fn swaps_under_load_lose_and_double_nothing() {
    const MESSAGES: u64 = 2_000;
    let (broker, redis, gateway) = start().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let publishing = async {
        for seq in 0..MESSAGES {
            machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq}}}"#)).await;
        }
    };
    let swapping = async {
        for swap in 1..=5 {
            rename_into(&gateway, "heartbeat", &another_build("heartbeat", swap));
            is_live(&gateway, u64::from(swap) + 1).await;
            rename_into(&gateway, "heartbeat", b"broken");
        }
    };
    tokio::join!(publishing, swapping);
    let jobs = redis.list_of("mqtt_incoming_jobs", usize::try_from(MESSAGES).expect("small")).await;
    let seen: Vec<u64> = jobs
        .iter()
        .map(|job| serde_json::from_str::<Value>(job).expect("JSON")["payload"]["seq"].as_u64().expect("a number"))
        .collect();
    assert_eq!(seen, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(redis.list("mqtt_dead_letters").await, Vec::<String>::new());
}

#[tokio::test]
async fn while_a_plugin_is_missing_nothing_is_taken_and_it_starts_when_the_plugin_comes() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, ""));
    fs::remove_file(gateway.path("plugins/error.wasm")).expect("removed");
    // The built-in settings look for plugins in `plugins`, where it runs.
    gateway.spawn().await;
    eventually("it says which plugin is missing", async || {
        let ready = gateway.get("/readyz").await?;
        ready["reasons"]
            .as_array()?
            .iter()
            .any(|reason| reason.as_str().is_some_and(|text| text.starts_with("plugin error is missing: ")))
            .then_some(())
    })
    .await;
    rename_into(&gateway, "error", &component("error"));
    gateway.ready().await;
}
