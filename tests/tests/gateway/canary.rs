//! A new build serves some machines before it serves all, and is withdrawn where it does worse there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;
use sluicegate_guests::Guest;
use sluicegate_tests::gateway::{binary, replace};
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

use crate::plugins_lifecycle::plugin;

const JOBS: &str = "mqtt_incoming_jobs";
const DEAD: &str = "mqtt_dead_letters";
/// Two that the settings name, and enough others that a share of a half has some and leaves some.
const MACHINES: [&str; 12] = ["M-001", "M-002", "A", "B", "C", "D", "E", "F", "G", "H", "I", "J"];

/// Writes its own digit behind `"by":` of the payload; so the job tells which build made it.
fn marking(digit: char) -> Guest {
    let mark = format!("(i32.store8 (i32.add (local.get 4) (i32.const 6)) (i32.const {}))", u32::from(digit));
    let echo = Guest::echo();
    Guest { body: format!("{mark} {}", echo.body), ..echo }
}

/// The same as a validator.
fn marking_validator(digit: char) -> Vec<u8> {
    Guest::doing(&format!(
        "(i32.store8 (i32.add (local.get 4) (i32.const 6)) (i32.const {}))
         (i32.store8 (i32.const 1024) (i32.const 0))
         (i32.store (i32.const 1028) (local.get 4)) (i32.store (i32.const 1032) (local.get 5)) (i32.const 1024)",
        u32::from(digit)
    ))
    .validator()
}

/// Refuses everything; it has no samples that would tell.
fn refusing() -> Vec<u8> {
    let reject = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 0))
        (i32.store (i32.const 1032) (i32.const 512)) (i32.store (i32.const 1036) (i32.const 7)) (i32.const 1024)";
    let data = r#"(data (i32.const 512) "refused")"#.to_owned();
    Guest { extra: data, ..Guest::doing(reject) }.handler()
}

struct Stage {
    broker: Broker,
    redis: RedisServer,
    gateway: Gateway,
    machine: Machine,
    sent: BTreeMap<&'static str, u64>,
}

impl Stage {
    /// A gateway whose plugin `marks` marks with 1, with these rules.
    async fn start(rules: &str) -> Self {
        let (broker, redis) = (Broker::start().await, RedisServer::start().await);
        let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &Self::settings(rules)));
        gateway.install("marks", &marking('1').handler());
        gateway.run().await;
        let machine = Machine::connect(broker.port, "machines", None).await;
        Self { broker, redis, gateway, machine, sent: BTreeMap::new() }
    }

    /// How fast a build is, is not what these tests are about, and a busy machine would have its say in it.
    fn settings(rules: &str) -> String {
        let (slow, few) = ("max_slowdown = 1000", |name: &str| !rules.contains(&format!("{name} = ")));
        let rehearse = if few("rehearse") { format!("rehearse = {{ {slow} }}\n") } else { String::new() };
        let probation = if few("probation") { format!("probation = {{ {slow} }}\n") } else { String::new() };
        format!(
            "[plugins.marks]\npath = \"plugins/marks.wasm\"\n{rules}\n{rehearse}{probation}[[routes]]\nname = \"marks\"\n\
             topic = \"machine/{{serial_no}}/do\"\nhandlers = [\"marks\"]\n"
        )
    }

    /// Puts other settings into the file's place.
    async fn apply(&self, rules: &str) {
        let settings = Gateway::settings(self.broker.port, self.redis.port, &Self::settings(rules));
        replace(&self.gateway.path("sluicegate.toml"), settings.as_bytes());
        let answer = self.gateway.post("/api/settings/reload", "{}").await;
        assert!(answer.contains("200 OK"), "{answer}");
    }

    /// In order, so that the broker has each acknowledgement: after a kill -9 it may send a message again whose job is in the list, and the
    /// rounds count each once.
    async fn restart(&mut self) {
        self.gateway.signal("TERM");
        assert!(self.gateway.ended().await.success());
        self.gateway.run().await;
    }

    /// One message of each machine.
    async fn round(&mut self) {
        for name in MACHINES {
            let seq = self.sent.entry(name).or_default();
            self.machine.publish(&format!("machine/{name}/do"), format!(r#"{{"by":0,"seq":{seq}}}"#)).await;
            *seq += 1;
        }
    }

    fn all_sent(&self) -> u64 {
        self.sent.values().sum()
    }

    /// The jobs and the dead letters, once all that was sent is in one of the two.
    async fn lists(&self) -> (Vec<Value>, Vec<Value>) {
        let parse = |list: Vec<String>| list.iter().map(|entry| serde_json::from_str(entry).expect("JSON")).collect();
        eventually("all are in one of the lists", async || {
            let (jobs, dead) = (self.redis.list(JOBS).await, self.redis.list(DEAD).await);
            ((jobs.len() + dead.len()) as u64 == self.all_sent()).then(|| (parse(jobs), parse(dead)))
        })
        .await
    }

    /// What each machine's jobs were marked with, in their order; none may be missing, there twice or out of order.
    async fn marks(&self) -> BTreeMap<String, String> {
        let (jobs, dead) = self.lists().await;
        assert_eq!(dead, Vec::<Value>::new());
        let mut marks = BTreeMap::<String, String>::new();
        let mut next = BTreeMap::<String, u64>::new();
        for job in jobs {
            let name = job["serial_no"].as_str().expect("a machine").to_owned();
            let seq = next.entry(name.clone()).or_default();
            assert_eq!(job["payload"]["seq"], *seq, "{name}");
            *seq += 1;
            marks.entry(name).or_default().push_str(&job["payload"]["by"].to_string());
        }
        marks
    }

    /// The machines whose last job was made by the build that marks so.
    async fn served_by(&self, digit: char) -> BTreeSet<String> {
        let last = |(name, marks): (String, String)| marks.ends_with(digit).then_some(name);
        self.marks().await.into_iter().filter_map(last).collect()
    }

    async fn plugin(&self) -> Value {
        self.gateway.plugin("marks").await.expect("a status")
    }

    async fn canary(&self) -> Value {
        eventually("a canary", async || {
            let canary = self.gateway.plugin("marks").await?["canary"].clone();
            canary["until"].is_string().then_some(canary)
        })
        .await
    }

    async fn live(&self, generation: u64) -> Value {
        eventually(&format!("generation {generation} is live"), async || {
            let plugin = self.gateway.plugin("marks").await?;
            (plugin["live"]["generation"] == generation && plugin["canary"].is_null()).then_some(plugin)
        })
        .await
    }

    /// The history, the newest first: what, by whom, how it ended, at which step.
    async fn history(&self) -> Vec<String> {
        let history = self.gateway.get("/api/history?plugin=marks").await.expect("JSON");
        let part = |change: &Value, name: &str| change[name].as_str().unwrap_or("-").to_owned();
        let told = |change: &Value| ["what", "who", "outcome", "step"].map(|name| part(change, name)).join(" ");
        history["changes"].as_array().expect("changes").iter().map(told).collect()
    }
}

#[tokio::test]
async fn a_good_canary_serves_its_machines_and_then_all_and_no_machine_goes_back_and_forth() {
    let mut stage = Stage::start("canary = { percent = 50, machines = [\"M-00*\"], for = \"4s\" }").await;
    stage.round().await;
    assert_eq!(stage.served_by('1').await.len(), MACHINES.len());
    stage.gateway.install("marks", &marking('2').handler());
    let canary = stage.canary().await;
    assert_eq!((&canary["generation"], stage.plugin().await["live"]["generation"].as_u64()), (&2.into(), Some(1)));
    let (code, text) = plugin(&stage.gateway, "list");
    assert!(code == Some(0) && text.contains("marks  canary  1.2.3  "), "{text}");
    assert!(text.contains("generation 2 since 20") && text.contains(" calls failed, "), "{text}");
    stage.round().await;
    let first = stage.served_by('2').await;
    assert!(first.contains("M-001") && first.contains("M-002"), "{first:?}");
    assert!(first.len() > 2 && first.len() < MACHINES.len(), "a half of the others: {first:?}");
    let mut rounds = 0;
    let plugin = eventually("it is live for all", async || {
        stage.round().await;
        rounds += 1;
        let plugin = stage.gateway.plugin("marks").await?;
        // The gateway swaps, then the registry writes down what is kept.
        (plugin["live"]["generation"] == 2 && plugin["fallback"].is_object()).then_some(plugin)
    })
    .await;
    assert_eq!(plugin["live"]["source"], "file", "{plugin}");
    stage.live(2).await;
    stage.round().await;
    let marks = stage.marks().await;
    for (name, marks) in &marks {
        // Once 1 has become 2 it stays so; its own machines never saw 1 again.
        assert!(!marks.contains("21"), "{name}: {marks}");
        assert!(marks.ends_with('2'), "{name}: {marks}");
        let by_the_first = marks.matches('1').count();
        assert_eq!(first.contains(name), by_the_first == 1, "{name}: {marks}");
    }
    stage.gateway.counts(&[("received", stage.all_sent()), ("pushed", stage.all_sent()), ("in_flight", 0)]).await;
    assert_eq!(
        stage.history().await,
        ["load canary live live", "load file canary canary", "load start live live"],
        "{rounds}"
    );
    let metrics = stage.gateway.text("/metrics").await.expect("metrics");
    for result in ["begun", "passed"] {
        let line = format!(r#"sluicegate_plugin_reloads_total{{plugin="marks",step="canary",result="{result}"}} 1"#);
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn a_bad_canary_is_withdrawn_and_only_its_machines_ever_saw_it() {
    let rules = "canary = { machines = [\"M-00*\"], for = \"1h\" }\nrehearse = { messages = 0 }\nprobation = { min_calls = 20 }";
    let mut stage = Stage::start(rules).await;
    stage.round().await;
    stage.lists().await;
    stage.gateway.install("marks", &refusing());
    stage.canary().await;
    let plugin = eventually("it is withdrawn", async || {
        stage.round().await;
        let plugin = stage.gateway.plugin("marks").await?;
        (plugin["canary"].is_null() && plugin["last_refusal"]["step"] == "canary").then_some(plugin)
    })
    .await;
    let reason = plugin["last_refusal"]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("100.00 % of its calls fail, where 0.00 % did before"), "{reason}");
    assert!(reason.contains(" calls, by the machines that it served)"), "{reason}");
    assert_eq!((&plugin["live"]["generation"], &plugin["rejected"][0]), (&1.into(), &plugin["last_refusal"]["digest"]));
    let (_, dead) = stage.lists().await;
    assert!(dead.len() >= 20, "{}", dead.len());
    let named = |letter: &Value| letter["serial_no"].as_str().is_some_and(|name| name.starts_with("M-00"));
    assert!(dead.iter().all(named), "others saw it: {dead:?}");
    stage.round().await;
    let (jobs, after) = stage.lists().await;
    assert_eq!(after.len(), dead.len());
    assert!(jobs.iter().all(|job| job["payload"]["by"] == 1));
    let sent = stage.all_sent();
    let dead = dead.len() as u64;
    stage.gateway.counts(&[("received", sent), ("pushed", sent - dead), ("dead", dead), ("in_flight", 0)]).await;
    let history = ["load canary withdrawn canary", "load file canary canary", "load start live live"];
    assert_eq!(stage.history().await, history);
    // The same file is not tried again, after a restart neither; another one is.
    stage.gateway.signal("TERM");
    stage.gateway.ended().await;
    stage.gateway.run().await;
    let plugin = stage.live(1).await;
    assert_eq!((&plugin["live"]["source"], plugin["rejected"].as_array().map(Vec::len)), (&"fallback".into(), Some(1)));
    assert_eq!(stage.history().await, history);
    stage.gateway.install("marks", &marking('3').handler());
    assert_eq!(stage.canary().await["generation"], 2);
}

#[tokio::test]
async fn a_canary_that_fails_at_everything_is_withdrawn_long_before_it_had_enough_calls() {
    let rules = "canary = { machines = [\"M-00*\", \"A\"], for = \"1h\" }\nrehearse = { messages = 0 }\nprobation = { min_calls = 100000 }";
    let mut stage = Stage::start(rules).await;
    stage.gateway.install("marks", &Guest::doing("unreachable").handler());
    stage.canary().await;
    eventually("it is withdrawn", async || {
        stage.round().await;
        let plugin = stage.gateway.plugin("marks").await?;
        plugin["last_refusal"]["reason"].as_str()?.starts_with("it fails at everything").then_some(())
    })
    .await;
    // What waited for it is handled by the live build; what it failed at too often is a dead letter of its machines alone.
    let (jobs, dead) = stage.lists().await;
    assert!(jobs.iter().all(|job| job["payload"]["by"] == 1));
    assert!(
        dead.iter().all(|letter| ["M-001", "M-002", "A"].iter().any(|name| letter["serial_no"] == *name)),
        "{dead:?}"
    );
    assert_eq!(stage.gateway.get("/readyz").await.expect("JSON")["ready"], true);
}

#[tokio::test]
async fn a_canary_is_promoted_withdrawn_replaced_and_taken_back_by_hand() {
    let mut stage = Stage::start("canary = { machines = [\"M-00*\"], for = \"1h\" }").await;
    for what in ["promote", "rollback"] {
        assert!(stage.gateway.post(&format!("/api/plugins/marks/{what}"), "{}").await.contains("409 Conflict"));
    }
    let (code, text) = plugin(&stage.gateway, "promote marks");
    assert!(code == Some(3) && text.contains("has no canary"), "{text}");
    // Another file takes its place; the live build is not touched.
    stage.gateway.install("marks", &marking('2').handler());
    assert_eq!(stage.canary().await["generation"], 2);
    stage.gateway.install("marks", &marking('3').handler());
    eventually("the newer one is the canary", async || {
        (stage.gateway.plugin("marks").await?["canary"]["generation"] == 3).then_some(())
    })
    .await;
    stage.round().await;
    assert_eq!(stage.served_by('3').await.len(), 2);
    assert_eq!(stage.served_by('1').await.len(), MACHINES.len() - 2);
    // A bad file changes nothing.
    stage.gateway.install("marks", b"garbage");
    eventually("it is refused", async || {
        (stage.gateway.plugin("marks").await?["last_refusal"]["step"] == "verified").then_some(())
    })
    .await;
    assert_eq!(stage.canary().await["generation"], 3);
    stage.gateway.install("marks", &marking('3').handler());
    // By hand: live for all at once.
    let (code, text) = plugin(&stage.gateway, "promote marks");
    assert!(code == Some(0) && text.contains("is live for all machines, as generation 3"), "{text}");
    let plugin_now = stage.live(3).await;
    assert!(plugin_now["fallback"].is_object(), "{plugin_now}");
    stage.round().await;
    assert_eq!(stage.served_by('3').await.len(), MACHINES.len());
    // By hand: withdrawn, and not tried again; the build before is still kept.
    stage.gateway.install("marks", &marking('4').handler());
    assert_eq!(stage.canary().await["generation"], 4);
    let (code, text) = plugin(&stage.gateway, "rollback marks");
    assert!(code == Some(0) && text.contains("serves all machines again, as generation 3"), "{text}");
    let plugin_now = stage.live(3).await;
    assert_eq!(plugin_now["fallback"]["version"], "1.2.3", "{plugin_now}");
    assert_eq!(plugin_now["rejected"].as_array().map(Vec::len), Some(1), "{plugin_now}");
    // The live build's file is put back: the canary ends, and is not rejected.
    stage.gateway.install("marks", &marking('5').handler());
    assert_eq!(stage.canary().await["generation"], 5);
    stage.gateway.install("marks", &marking('3').handler());
    let plugin_now = stage.live(3).await;
    assert_eq!(plugin_now["rejected"].as_array().map(Vec::len), Some(0), "{plugin_now}");
    stage.round().await;
    assert_eq!(stage.served_by('3').await.len(), MACHINES.len());
    assert_eq!(
        stage.history().await,
        [
            "load file withdrawn canary",
            "load file canary canary",
            "load api withdrawn canary",
            "load file canary canary",
            "load api live live",
            "load file refused verified",
            "load file canary canary",
            "load file withdrawn canary",
            "load file canary canary",
            "load start live live",
        ]
    );
}

#[tokio::test]
async fn who_loads_a_build_and_waits_is_told_of_the_canary_and_of_its_end() {
    let stage = Stage::start("canary = { machines = [\"M-00*\"], for = \"1s\" }").await;
    fs::write(stage.gateway.path("two.wasm"), marking('2').handler()).expect("written");
    fs::write(stage.gateway.path("three.wasm"), marking('3').handler()).expect("written");
    let (code, text) = plugin(&stage.gateway, "load marks two.wasm --wait");
    let steps = ["found", "verified", "compiled", "checked", "rehearsed"];
    let told = ["canary: marks 1.2.3 as generation 2, for some machines", "live: marks 1.2.3 as generation 2"];
    assert_eq!((code, text.lines().collect::<Vec<_>>()), (Some(0), [&steps[..], &told[..]].concat()));
    stage.apply("canary = { machines = [\"M-00*\"], for = \"1h\" }").await;
    let back = async {
        stage.canary().await;
        stage.gateway.post("/api/plugins/marks/rollback", "{}").await
    };
    let (address, folder) = (stage.gateway.address(), stage.gateway.path(""));
    let load = tokio::task::spawn_blocking(move || {
        let arguments = ["plugin", "load", "marks", "three.wasm", "--wait", "--address", &address];
        Command::new(binary()).args(arguments).current_dir(folder).env_remove("RUST_LOG").output().expect("it runs")
    });
    let (back, loaded) = tokio::join!(back, load);
    assert!(back.contains("200 OK"), "{back}");
    let loaded = loaded.expect("it ran");
    let text = String::from_utf8(loaded.stderr).expect("UTF-8");
    assert_eq!(loaded.status.code(), Some(3), "{text}");
    assert!(text.contains("error: canary withdrawn: somebody asked for it; what was live goes on"), "{text}");
}

#[tokio::test]
async fn other_settings_during_a_canary() {
    let mut stage = Stage::start("canary = { machines = [\"M-00*\"], for = \"1h\" }").await;
    stage.gateway.install("marks", &marking('2').handler());
    assert_eq!(stage.canary().await["generation"], 2);
    // Other machines: the same canary goes on.
    stage.apply("canary = { machines = [\"M-001\", \"A\", \"B\"], for = \"1h\" }").await;
    stage.round().await;
    assert_eq!(stage.served_by('2').await, BTreeSet::from(["M-001", "A", "B"].map(str::to_owned)));
    assert_eq!(stage.canary().await["generation"], 2);
    // Another setting of the plugin: a new generation of the live build, and the canary begins anew beside it.
    stage.apply("canary = { machines = [\"A\"], for = \"1h\" }\nlimits = { calls = 7 }").await;
    let canary = eventually("the canary is begun anew", async || {
        let plugin = stage.gateway.plugin("marks").await?;
        (plugin["canary"]["generation"] == 4 && plugin["live"]["generation"] == 3).then_some(())
    });
    canary.await;
    stage.round().await;
    assert_eq!(stage.served_by('2').await, BTreeSet::from(["A".to_owned()]));
    // No canaries any more: its time is over, and it does no worse.
    stage.apply("limits = { calls = 7 }").await;
    stage.live(4).await;
    stage.round().await;
    assert_eq!(stage.served_by('2').await.len(), MACHINES.len());
    // The next one is live at once.
    stage.gateway.install("marks", &marking('3').handler());
    stage.live(5).await;
    // The plugin goes, and its canary with it.
    stage.apply("limits = { calls = 7 }\ncanary = { machines = [\"A\"], for = \"1h\" }").await;
    stage.gateway.install("marks", &marking('4').handler());
    assert_eq!(stage.canary().await["generation"], 6);
    let without = "[[routes]]\nname = \"plain\"\ntopic = \"machine/{serial_no}/plain\"\nhandlers = []\n[plugins]\n";
    let settings = Gateway::settings(stage.broker.port, stage.redis.port, without);
    replace(&stage.gateway.path("sluicegate.toml"), settings.as_bytes());
    eventually("the plugin is gone", async || stage.gateway.plugin("marks").await.is_none().then_some(())).await;
    stage.gateway.counts(&[("received", stage.all_sent()), ("pushed", stage.all_sent()), ("in_flight", 0)]).await;
}

#[tokio::test]
async fn after_a_restart_the_live_build_serves_and_the_canary_begins_anew() {
    let mut stage = Stage::start("canary = { machines = [\"M-00*\"], for = \"3s\" }").await;
    stage.round().await;
    stage.gateway.install("marks", &marking('2').handler());
    stage.canary().await;
    stage.round().await;
    assert_eq!(stage.served_by('2').await.len(), 2);
    stage.restart().await;
    let canary = stage.canary().await;
    assert_eq!((&canary["generation"], stage.plugin().await["live"]["generation"].as_u64()), (&2.into(), Some(1)));
    let notices = stage.gateway.get("/readyz").await.expect("JSON")["notices"].clone();
    assert_eq!(notices, Value::Array(Vec::new()), "nothing is wrong");
    stage.round().await;
    assert_eq!(stage.served_by('2').await.len(), 2);
    stage.live(2).await;
    stage.round().await;
    assert_eq!(stage.served_by('2').await.len(), MACHINES.len());
    // The start repeats nothing in the history.
    let told = ["load canary live live", "load file canary canary", "load start live live"];
    assert_eq!(stage.history().await, told);
    // And with the file gone, what was live goes on, as ever.
    stage.gateway.install("marks", &marking('3').handler());
    stage.canary().await;
    fs::remove_file(stage.gateway.path("plugins/marks.wasm")).expect("removed");
    stage.restart().await;
    let plugin = stage.live(1).await;
    assert_eq!(plugin["live"]["source"], "fallback");
    stage.round().await;
    assert_eq!(stage.served_by('2').await.len(), MACHINES.len());
    // A build that is refused is no canary, and it is said that the file is not what serves.
    stage.gateway.install("marks", b"garbage");
    stage.gateway.kill();
    stage.gateway.run().await;
    assert_eq!(stage.live(1).await["live"]["source"], "fallback");
    stage.gateway.says("plugin marks serves with the kept build 1.2.3 (sha256:").await;
    stage.gateway.install("marks", &marking('4').handler());
    stage.canary().await;
}

#[tokio::test]
async fn a_canary_in_a_chain_is_judged_by_what_fails_behind_it_too() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    // Obeys what stands behind `"by":`; a 3 it refuses.
    let settings = "[plugins.first]\npath = \"plugins/first.wasm\"\ncanary = { machines = [\"M-1\"], for = \"1h\" }\n\
        rehearse = { messages = 0 }\nprobation = { min_calls = 20 }\n[plugins.second]\npath = \"plugins/second.wasm\"\n\
        [[routes]]\nname = \"chain\"\ntopic = \"machine/{serial_no}/do\"\nhandlers = [\"first\", \"second\"]\n";
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, settings));
    gateway.install("first", &marking('0').handler());
    gateway.install("second", &Guest::obedient().handler());
    gateway.run().await;
    gateway.install("first", &marking('3').handler());
    eventually("a canary", async || gateway.plugin("first").await?["canary"].is_object().then_some(())).await;
    let machine = Machine::connect(broker.port, "M", None).await;
    let mut sent = 0_u64;
    let plugin = eventually("it is withdrawn", async || {
        for name in ["M-1", "M-2"] {
            machine.publish(&format!("machine/{name}/do"), r#"{"by":0}"#).await;
            sent += 1;
        }
        let plugin = gateway.plugin("first").await?;
        plugin["canary"].is_null().then_some(plugin)
    })
    .await;
    assert_eq!(plugin["last_refusal"]["step"], "canary");
    let dead = eventually("all are in one of the lists", async || {
        let (jobs, dead) = (redis.list(JOBS).await, redis.list(DEAD).await);
        ((jobs.len() + dead.len()) as u64 == sent).then_some(dead)
    })
    .await;
    assert!(dead.iter().all(|letter| letter.contains("\"serial_no\":\"M-1\"")), "{dead:?}");
}

#[tokio::test]
async fn a_validators_canary_goes_by_the_commands_target() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let settings = "[plugins.checks]\npath = \"plugins/checks.wasm\"\ncanary = { machines = [\"M-1\"], for = \"1h\" }\n\
        [[routes]]\nname = \"plain\"\ntopic = \"machine/{serial_no}/do\"\nhandlers = []\n[commands]\nvalidator = \"checks\"\n";
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, settings));
    gateway.install("checks", &marking_validator('1'));
    gateway.run().await;
    let mut machines = Vec::new();
    for name in ["M-1", "M-2"] {
        let filter = format!("machine/{name}/command");
        machines.push(Machine::connect(broker.port, name, Some(&filter)).await);
    }
    let mut number = 0;
    let mut marks = async || {
        let mut marks = String::new();
        for (name, machine) in ["M-1", "M-2"].iter().zip(&mut machines) {
            number += 1;
            let command =
                format!(r#"{{"target":"{name}","command":"x","payload":{{"by":0}},"message_id":"{number}"}}"#);
            redis.push("mqtt_outgoing_commands", &[command]).await;
            let (_, body) = machine.next().await;
            let body: Value = serde_json::from_str(&body).expect("JSON");
            marks.push_str(&body["payload"]["by"].to_string());
        }
        marks
    };
    assert_eq!(marks().await, "11");
    gateway.install("checks", &marking_validator('2'));
    let calls = async || gateway.plugin("checks").await?["canary"]["calls"].as_u64();
    eventually("a canary", calls).await;
    assert_eq!((marks().await, marks().await), ("21".to_owned(), "21".to_owned()));
    eventually("its calls are counted", async || (calls().await? == 2).then_some(())).await;
    assert!(gateway.post("/api/plugins/checks/promote", "{}").await.contains("200 OK"));
    assert_eq!(marks().await, "22");
}
