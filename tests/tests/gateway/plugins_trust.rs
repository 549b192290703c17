//! Whose builds are taken: pinned, signed, revoked; and the commands that sign and verify.

use std::fs;

use serde_json::Value;
use sluicegate_tests::gateway::{another_build, component};
use sluicegate_tests::{Broker, Gateway, RedisServer, eventually};

use super::plugins_lifecycle::plugin;

const ALL: [&str; 4] = ["heartbeat", "error", "transaction", "command-validation"];

/// Sections for the built-in plugins and routes, with `more` in that of the heartbeat.
fn routes(more: &str) -> String {
    let plugins: String = ALL
        .iter()
        .map(|name| {
            let more = if *name == "heartbeat" { more } else { "" };
            format!("[plugins.{name}]\npath = \"plugins/{name}.wasm\"\n{more}\n")
        })
        .collect();
    let routes: String = ALL[..3]
        .iter()
        .map(|name| {
            format!(
                "[[routes]]\nname = \"{name}\"\ntopic = \"machine/{{serial_no}}/{name}\"\nhandlers = [\"{name}\"]\n"
            )
        })
        .collect();
    format!("{plugins}[plugins.command-validation.settings]\ncommands = \"reboot\"\n{routes}")
}

async fn refused(gateway: &Gateway, part: &str) {
    eventually(&format!("the heartbeat is refused: {part}"), async || {
        let refusal = gateway.plugin("heartbeat").await?["last_refusal"].clone();
        assert!(refusal.is_null() || refusal["step"] == "verified", "{refusal}");
        refusal["reason"].as_str()?.contains(part).then_some(())
    })
    .await;
}

async fn is_live(gateway: &Gateway, generation: u64) -> Value {
    eventually(&format!("generation {generation} is live"), async || {
        let plugin = gateway.plugin("heartbeat").await?;
        (plugin["live"]["generation"] == generation).then_some(plugin)
    })
    .await
}

#[tokio::test]
async fn where_a_signature_is_required_only_what_a_trusted_key_signed_goes_live_and_what_is_revoked_does_not() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let settings = |trust: &str| Gateway::settings(broker.port, redis.port, &format!("{trust}\n{}", routes("")));
    let mut gateway = Gateway::with(&settings(""));
    let made = |name: &str| {
        let (code, text) = plugin(&gateway, &format!("sign --generate-key {name} --json"));
        assert_eq!(code, Some(0), "{text}");
        let made: Value = serde_json::from_str(&text).expect("JSON");
        made["data"]["public_key"].as_str().expect("a key").to_owned()
    };
    let (ours, theirs) = (made("ours.key"), made("theirs.key"));
    let (code, text) = plugin(&gateway, "sign --generate-key ours.key");
    assert!(code == Some(1) && text.contains("cannot write ours.key: File exists"), "{text}");

    let trust = format!("[trust]\nkeys = [\"{ours}\"]\nrequired = true\n");
    fs::write(gateway.path("sluicegate.toml"), settings(&trust)).expect("written");
    for (number, name) in ALL.iter().enumerate().skip(1) {
        // Both kinds.
        let embed = if number % 2 == 0 { "--embed" } else { "" };
        let (code, text) = plugin(&gateway, &format!("sign plugins/{name}.wasm --key ours.key {embed}"));
        assert_eq!(code, Some(0), "{text}");
    }
    let (code, text) = plugin(&gateway, "verify plugins/heartbeat.wasm");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("not verified: it is not signed, and trust.required = true"), "{text}");
    gateway.spawn().await;
    refused(&gateway, "trust.required = true").await;
    assert_eq!(plugin(&gateway, "sign plugins/heartbeat.wasm --key theirs.key").0, Some(0));
    refused(&gateway, "which is none of trust.keys; write that key there to allow it").await;
    let (code, text) = plugin(&gateway, "verify plugins/heartbeat.wasm");
    assert!(code == Some(1) && text.contains("none of trust.keys"), "{text}");
    let (code, text) = plugin(&gateway, &format!("verify plugins/heartbeat.wasm --key {theirs}"));
    assert!(code == Some(0) && text.ends_with("(beside the file)\ngood\n"), "{text}");
    let (code, text) = plugin(&gateway, "verify plugins/error.wasm --key theirs.key.pub");
    assert!(code == Some(1) && text.contains("none of trust.keys"), "{text}");
    assert_eq!(plugin(&gateway, "verify plugins/error.wasm --key RWrong").0, Some(2));
    assert_eq!(plugin(&gateway, "sign plugins/heartbeat.wasm --key ours.key").0, Some(0));
    let signed_by = is_live(&gateway, 1).await["live"]["signed_by"].clone();
    let (_, text) = plugin(&gateway, "verify plugins/heartbeat.wasm --json");
    let verified: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(verified["data"]["signed_by"], signed_by, "{text}");

    // The signature of the build before, beside the new one.
    gateway.install("heartbeat", &another_build("heartbeat", 1));
    refused(&gateway, "did not sign these bytes; get file and signature once more").await;
    // `load` brings the signature with it.
    fs::write(gateway.path("new.wasm"), another_build("heartbeat", 2)).expect("written");
    let (code, text) = plugin(&gateway, "load heartbeat new.wasm --wait");
    assert!(code == Some(3) && text.contains("not verified: it is not signed"), "{text}");
    assert_eq!(plugin(&gateway, "sign new.wasm --key ours.key").0, Some(0));
    let (code, text) = plugin(&gateway, "load heartbeat new.wasm --wait");
    assert!(code == Some(0) && text.ends_with("live: heartbeat 0.1.0 as generation 2\n"), "{text}");
    let revoked = is_live(&gateway, 2).await["live"]["digest"].as_str().expect("a digest").to_owned();

    // Revoked: not even after a restart with that file in place; the one before it is as good as it was.
    gateway.signal("TERM");
    gateway.ended().await;
    fs::write(gateway.path("sluicegate.toml"), settings(&format!("{trust}revoked = [\"{revoked}\"]\n")))
        .expect("written");
    gateway.run().await;
    refused(&gateway, &format!("its digest {revoked} is revoked; take it out of trust.revoked")).await;
    let plugin_now = is_live(&gateway, 1).await;
    assert_eq!(plugin_now["live"]["source"], "fallback", "{plugin_now}");
    assert_ne!(plugin_now["live"]["digest"], revoked.as_str(), "{plugin_now}");
    // With the signature inside it is another file, and the same code.
    fs::remove_file(gateway.path("new.wasm.minisig")).expect("removed");
    assert_eq!(plugin(&gateway, "sign new.wasm --key ours.key --embed").0, Some(0));
    let (code, text) = plugin(&gateway, "load heartbeat new.wasm --wait");
    assert!(code == Some(3) && text.contains("is revoked"), "{text}");
}

#[tokio::test]
async fn a_live_build_that_is_revoked_gives_way_to_the_build_before() {
    revoked_gives_way(None).await;
}

#[tokio::test]
async fn it_does_so_whatever_lies_in_its_file() {
    revoked_gives_way(Some(b"garbage")).await;
}

#[tokio::test]
async fn a_kept_build_that_is_revoked_is_none_to_go_back_to() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&revoking(&broker, &redis, &[]));
    gateway.run().await;
    let before = is_live(&gateway, 1).await["live"]["digest"].clone();
    gateway.install("heartbeat", &another_build("heartbeat", 1));
    eventually("it is kept", async || {
        (gateway.plugin("heartbeat").await?["fallback"]["digest"] == before).then_some(())
    })
    .await;
    fs::write(gateway.path("sluicegate.toml"), revoking(&broker, &redis, &[&before])).expect("written");
    let plugin_now = is_live(&gateway, 3).await;
    eventually("nobody is told of it any more", async || {
        gateway.plugin("heartbeat").await?["fallback"].is_null().then_some(())
    })
    .await;
    let (code, text) = plugin(&gateway, "rollback heartbeat");
    assert!(code == Some(3) && text.contains("is revoked"), "{text}");
    assert_eq!(gateway.plugin("heartbeat").await.expect("JSON")["live"]["digest"], plugin_now["live"]["digest"]);
}

/// Whoever can put one file into its place must not keep a revocation from the other plugins.
#[tokio::test]
async fn what_lies_in_another_plugins_place_keeps_no_revocation_off() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&revoking(&broker, &redis, &[]));
    gateway.run().await;
    let before = is_live(&gateway, 1).await["live"]["digest"].clone();
    gateway.install("heartbeat", &another_build("heartbeat", 1));
    let revoked = is_live(&gateway, 2).await["live"]["digest"].clone();
    gateway.install("error", b"garbage");
    eventually("it is refused", async || gateway.plugin("error").await?["last_refusal"].is_object().then_some(()))
        .await;
    let served = gateway.plugin("error").await.expect("JSON")["live"]["digest"].clone();
    fs::write(gateway.path("sluicegate.toml"), revoking(&broker, &redis, &[&revoked])).expect("written");
    assert_eq!(is_live(&gateway, 3).await["live"]["digest"], before);
    assert_eq!(gateway.plugin("error").await.expect("JSON")["live"]["digest"], served);
}

/// With these digests in `trust.revoked`.
fn revoking(broker: &Broker, redis: &RedisServer, revoked: &[&Value]) -> String {
    let trust = format!("[trust]\nrevoked = {}\n{}", serde_json::to_string(revoked).expect("JSON"), routes(""));
    Gateway::settings(broker.port, redis.port, &trust)
}

/// Where the file holds the live build, or something else that was refused.
async fn revoked_gives_way(file: Option<&[u8]>) {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let settings = |revoked: &[&Value]| revoking(&broker, &redis, revoked);
    let mut gateway = Gateway::with(&settings(&[]));
    gateway.run().await;
    let before = is_live(&gateway, 1).await["live"]["digest"].clone();
    gateway.install("heartbeat", &another_build("heartbeat", 1));
    let live = is_live(&gateway, 2).await["live"]["digest"].clone();
    if let Some(file) = file {
        gateway.install("heartbeat", file);
        refused(&gateway, "not a WebAssembly component").await;
    }
    fs::write(gateway.path("sluicegate.toml"), settings(&[&live])).expect("written");
    let plugin_now = is_live(&gateway, 3).await;
    assert_eq!((&plugin_now["live"]["digest"], &plugin_now["live"]["source"]), (&before, &"fallback".into()));
    assert_eq!(plugin_now["rejected"], serde_json::json!([]), "the settings keep it away");
    gateway.says("not with its file: what was live is revoked").await;
    let history = gateway.get("/api/history?plugin=heartbeat").await.expect("JSON");
    let rolled_back = |change: &&Value| change["what"] == "rollback";
    let last = history["changes"].as_array().and_then(|changes| changes.iter().find(rolled_back)).expect("one");
    assert_eq!((&last["who"], &last["to"]), (&"settings".into(), &before), "{history}");
    if file.is_none() {
        // The plugin's section may be edited, although its file holds what is revoked.
        let path = "path = \"plugins/heartbeat.wasm\"\n";
        let edited = settings(&[&live]).replace(path, &format!("{path}limits.outputs = 7\n"));
        fs::write(gateway.path("sluicegate.toml"), edited).expect("written");
        assert_eq!(is_live(&gateway, 4).await["live"]["digest"], before);
        // Allowed again, it is what lies in the file.
        fs::write(gateway.path("sluicegate.toml"), settings(&[])).expect("written");
        assert_eq!(is_live(&gateway, 5).await["live"]["digest"], live);
        return;
    }
    // Nothing is kept behind that one: what would leave the plugin without a build is refused.
    fs::write(gateway.path("sluicegate.toml"), settings(&[&live, &before])).expect("written");
    let why = eventually("the edit is refused", async || {
        gateway.get("/api/status").await?["settings"]["refused"]["reasons"][0].as_str().map(str::to_owned)
    })
    .await;
    assert!(why.starts_with("plugin heartbeat: not verified: "), "{why}");
    assert!(file.is_some() || why.contains(" is revoked"), "{why}");
    assert_eq!(is_live(&gateway, 3).await["live"]["digest"], before);
}

#[tokio::test]
async fn a_pinned_build_is_the_only_one_that_goes_live() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let pinned = another_build("heartbeat", 1);
    let mut gateway = Gateway::with("");
    fs::write(gateway.path("pinned.wasm"), &pinned).expect("written");
    let (_, text) = plugin(&gateway, "inspect pinned.wasm --json");
    let inspected: Value = serde_json::from_str(&text).expect("JSON");
    let digest = inspected["data"]["digest"].as_str().expect("a digest").to_owned();
    let settings = Gateway::settings(broker.port, redis.port, &routes(&format!("digest = \"{digest}\"")));
    fs::write(gateway.path("sluicegate.toml"), settings).expect("written");
    let (code, text) = plugin(&gateway, "verify plugins/heartbeat.wasm");
    assert!(code == Some(1) && text.contains(&format!("plugins.heartbeat.digest pins {digest}")), "{text}");
    gateway.spawn().await;
    refused(&gateway, &format!(", and plugins.heartbeat.digest pins {digest}; write the first one there to allow it"))
        .await;
    gateway.install("heartbeat", &pinned);
    is_live(&gateway, 1).await;
    gateway.install("heartbeat", &component("heartbeat"));
    refused(&gateway, "plugins.heartbeat.digest pins").await;
    assert_eq!(gateway.generation("heartbeat").await, Some(1));
}
