//! The settings are reloaded while traffic flows: as a whole or not at all, and nothing is lost, doubled or out of order.

mod effects;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::Value;
use sluicegate_guests::Guest;
use sluicegate_tests::gateway::{binary, replace};
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

const JOBS: &str = "mqtt_incoming_jobs";
const DEAD: &str = "mqtt_dead_letters";
/// A route without handlers: what comes is pushed as it is.
const A: &str = "[[routes]]\nname = \"a\"\ntopic = \"machine/{serial_no}/a\"\nhandlers = []\n";
const B: &str = "[[routes]]\nname = \"b\"\ntopic = \"machine/{serial_no}/b\"\nhandlers = []\n";
const HEARTBEAT: &str = "[plugins.heartbeat]\npath = \"plugins/heartbeat.wasm\"\n";

struct Stage {
    broker: Broker,
    redis: RedisServer,
    gateway: Gateway,
}

impl Stage {
    async fn start(more: &str) -> Self {
        Self::prepared(more, |_| {}).await
    }

    async fn prepared(more: &str, prepare: impl FnOnce(&Gateway)) -> Self {
        let (broker, redis) = (Broker::start().await, RedisServer::start().await);
        let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, more));
        prepare(&gateway);
        gateway.run().await;
        Self { broker, redis, gateway }
    }

    /// Puts other settings into the file's place, by an atomic rename.
    fn write(&self, more: &str) {
        self.write_text(&Gateway::settings(self.broker.port, self.redis.port, more));
    }

    fn write_text(&self, text: &str) {
        replace(&self.gateway.path("sluicegate.toml"), text.as_bytes());
    }

    /// The status line and what the gateway says.
    async fn reload(&self) -> (String, Value) {
        let answer = self.gateway.post("/api/settings/reload", "{}").await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.lines().next().unwrap_or_default().to_owned(), serde_json::from_str(body).expect("JSON"))
    }

    /// What the file says is in force, and the broker has confirmed it.
    async fn applied(&self, more: &str, changed: &str) {
        self.write(more);
        let (status, answer) = self.reload().await;
        assert!(status.contains("200") && answer.get("unconfirmed").is_none(), "{status} {answer}");
        // Where the watch was faster, that was waited for.
        assert!(answer["outcome"] == "unchanged" || answer["changes"][0]["key"] == changed, "{answer}");
    }

    async fn settings(&self) -> Option<Value> {
        Some(self.gateway.get("/api/status").await?["settings"].clone())
    }

    async fn in_force(&self, number: u64) {
        eventually(&format!("settings {number} are in force"), async || {
            (self.settings().await?["number"] == number).then_some(())
        })
        .await;
    }
}

/// A machine that publishes on one topic, one number after another.
struct Publisher {
    machine: Machine,
    name: String,
    next: Cell<u64>,
}

impl Publisher {
    async fn connect(stage: &Stage, name: &str) -> Self {
        let machine = Machine::connect(stage.broker.port, name, None).await;
        Self { machine, name: name.to_owned(), next: Cell::new(0) }
    }

    async fn publish(&self, topic: &str, messages: u64) {
        for _ in 0..messages {
            let seq = self.next.get();
            self.machine.publish(&format!("machine/{}/{topic}", self.name), format!(r#"{{"seq":{seq}}}"#)).await;
            self.next.set(seq + 1);
        }
    }

    /// Publishes until something else is done, and gives what that gave.
    async fn meanwhile<T>(&self, topic: &str, other: impl Future<Output = T>) -> T {
        let done = Cell::new(false);
        let other = async {
            let gave = other.await;
            done.set(true);
            gave
        };
        // Each publish to its end: one that is cut off may have been taken.
        let publishing = async {
            while !done.get() {
                self.publish(topic, 1).await;
            }
        };
        tokio::join!(other, publishing).0
    }
}

fn jobs(entries: &[String]) -> Vec<Value> {
    entries.iter().map(|entry| serde_json::from_str(entry).expect("JSON")).collect()
}

/// The numbers of one machine's jobs of one type, in the order of the list.
fn seqs(jobs: &[Value], serial_no: &str, kind: &str) -> Vec<u64> {
    jobs.iter()
        .filter(|job| job["serial_no"] == serial_no && job["type"] == kind)
        .filter_map(|job| job["payload"]["seq"].as_u64())
        .collect()
}

/// One after another from 0; gives how many.
#[track_caller]
fn in_order(seqs: &[u64]) -> u64 {
    assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>());
    seqs.len() as u64
}

#[tokio::test]
async fn routes_come_change_and_go_under_traffic() {
    let stage = Stage::start(&format!("{HEARTBEAT}{A}")).await;
    let steady = Publisher::connect(&stage, "M-1").await;
    let passing = Publisher::connect(&stage, "M-2").await;
    let moved = A.replace("/a\"", "/moved\"");
    steady.publish("a", 50).await;

    // One comes.
    steady.meanwhile("a", stage.applied(&format!("{HEARTBEAT}{A}{B}"), "routes.b")).await;
    passing.publish("b", 200).await;
    // Its chain changes: what comes is checked by a plugin from then on, and takes what was in the chain's place.
    let chained = B.replace("handlers = []", "handlers = [\"heartbeat\"]");
    passing.meanwhile("b", stage.applied(&format!("{HEARTBEAT}{A}{chained}"), "routes.b.handlers")).await;
    passing.publish("b", 50).await;
    // It goes: what the broker took for it before that is handled.
    let before = passing.next.get();
    passing.meanwhile("b", stage.applied(&format!("{HEARTBEAT}{A}"), "routes.b")).await;
    // The other one's topic changes.
    let on_the_old_topic = steady.next.get();
    stage.applied(&format!("{HEARTBEAT}{moved}"), "routes.a.topic").await;
    steady.publish("moved", 100).await;
    let here = on_the_old_topic + 100;
    eventually("they are pushed by these settings", async || {
        (seqs(&jobs(&stage.redis.list(JOBS).await), "M-1", "a").len() as u64 >= here).then_some(())
    })
    .await;
    // An order of routes, a queue, a type.
    let other = moved.replace("handlers", "queue = \"other\"\ntype = \"new\"\nhandlers");
    steady.meanwhile("moved", stage.applied(&format!("{HEARTBEAT}{B}{other}"), "routes.a.queue")).await;
    steady.publish("moved", 50).await;

    let all = steady.next.get();
    // The last messages of the route that is gone may not come: its subscription ends while they are published.
    let (first, second) = eventually("everything is pushed", async || {
        let messages = stage.gateway.messages().await?;
        let (first, second) = (jobs(&stage.redis.list(JOBS).await), jobs(&stage.redis.list("other").await));
        let steady = seqs(&first, "M-1", "a").len() + seqs(&second, "M-1", "new").len();
        let pushed = first.len() + second.len();
        let over = messages["in_flight"] == 0 && messages["pushed"] == pushed;
        (over && steady as u64 == all && seqs(&first, "M-2", "b").len() as u64 >= before).then_some((first, second))
    })
    .await;
    let mut of_the_steady = seqs(&first, "M-1", "a");
    assert!(of_the_steady.len() as u64 >= here, "the old topic's and the new one's");
    of_the_steady.extend(seqs(&second, "M-1", "new"));
    in_order(&of_the_steady);
    assert!(in_order(&seqs(&first, "M-2", "b")) <= passing.next.get());
    assert_eq!(stage.redis.list(DEAD).await, Vec::<String>::new());
    assert_eq!(stage.gateway.messages().await.expect("a status")["returned"], 0);
}

#[tokio::test]
async fn a_route_that_goes_is_let_go_once_what_is_parked_is_handled() {
    let obedient = "[plugins.obedient]\npath = \"plugins/obedient.wasm\"\n";
    let route =
        "[[routes]]\nname = \"o\"\ntopic = \"machine/{serial_no}/do\"\nhandlers = [\"obedient\"]\nattempts = 100\n";
    let start = format!("{obedient}{route}{A}");
    let stage = Stage::prepared(&start, |gateway| gateway.install("obedient", &Guest::obedient().handler())).await;
    let machine = Machine::connect(stage.broker.port, "M-1", None).await;
    // Fails until its sixth attempt, so it is parked, and the others behind it.
    for seq in 0..20 {
        let what = if seq == 0 { 5 } else { 0 };
        machine.publish("machine/M-1/do", format!(r#"{{"do":{what},"seq":{seq}}}"#)).await;
    }
    stage.applied(A, "plugins.obedient").await;
    let settings = stage.settings().await.expect("a status");
    assert_eq!(settings["leaving"], serde_json::json!(["o"]), "{settings}");
    let pushed = jobs(&stage.redis.list_of(JOBS, 20).await);
    in_order(&seqs(&pushed, "M-1", "o"));
    assert_eq!(stage.redis.list(DEAD).await, Vec::<String>::new());
    eventually("it is let go", async || (stage.settings().await?["leaving"] == serde_json::json!([])).then_some(()))
        .await;
    stage.gateway.counts(&[("received", 20), ("pushed", 20), ("spooled", 0), ("in_flight", 0)]).await;
    // And comes again, with its topic of before.
    stage.applied(&start, "plugins.obedient").await;
    machine.publish("machine/M-1/do", r#"{"do":0,"seq":20}"#).await;
    let pushed = jobs(&stage.redis.list_of(JOBS, 21).await);
    assert_eq!(in_order(&seqs(&pushed, "M-1", "o")), 21);
    assert_eq!(stage.gateway.generation("obedient").await, Some(2), "its builds are counted on");
}

#[tokio::test]
async fn what_is_parked_by_an_old_topic_is_handled_with_what_that_topic_named() {
    let obedient = "[plugins.obedient]\npath = \"plugins/obedient.wasm\"\n";
    let route =
        "[[routes]]\nname = \"o\"\ntopic = \"machine/{serial_no}/do\"\nhandlers = [\"obedient\"]\nattempts = 100\n";
    let start = format!("{obedient}{route}");
    let stage = Stage::prepared(&start, |gateway| gateway.install("obedient", &Guest::obedient().handler())).await;
    let machine = Machine::connect(stage.broker.port, "M-1", None).await;
    for seq in 0..5 {
        let what = if seq == 0 { 5 } else { 0 };
        machine.publish("machine/M-1/do", format!(r#"{{"do":{what},"seq":{seq}}}"#)).await;
    }
    stage.applied(&start.replace("/do\"", "/{what}/go\""), "routes.o.topic").await;
    for seq in 5..10 {
        machine.publish("machine/M-1/x/go", format!(r#"{{"do":0,"seq":{seq}}}"#)).await;
    }
    let pushed = jobs(&stage.redis.list_of(JOBS, 10).await);
    assert_eq!(in_order(&seqs(&pushed, "M-1", "o")), 10);
}

#[tokio::test]
async fn a_bad_edit_and_one_that_needs_a_restart_are_refused_as_a_whole() {
    let stage = Stage::start(A).await;
    let publisher = Publisher::connect(&stage, "M-1").await;
    publisher.publish("a", 10).await;
    stage.write(&format!("{A}{B}attempts = \"many\"\n"));
    let refused = eventually("the file is refused", async || {
        let refused = stage.settings().await?["refused"].clone();
        refused.is_object().then_some(refused)
    })
    .await;
    let reason = refused["reasons"][0].as_str().expect("a reason");
    assert!(reason.starts_with("sluicegate.toml:16:12: routes[1].attempts: expected an integer"), "{reason}");
    let ready = stage.gateway.get("/readyz").await.expect("an answer");
    assert!(ready["ready"] == true && ready["notices"].to_string().contains("routes[1].attempts"), "{ready}");

    // Not even the part that could be applied.
    stage.write(&format!("[gateway]\ninstance = \"other\"\n[commands]\nexpiry = \"1s\"\n{A}{B}"));
    let (status, answer) = stage.reload().await;
    assert!(status.contains("409"), "{status}");
    assert_eq!(answer["restart"], serde_json::json!(["gateway.instance"]));
    assert!(answer["error"].as_str().expect("a text").starts_with("needs a restart: gateway.instance;"), "{answer}");
    let settings = stage.settings().await.expect("a status");
    assert_eq!((&settings["number"], &settings["refused"]["restart"][0]), (&1.into(), &"gateway.instance".into()));
    publisher.publish("a", 10).await;
    publisher.publish("b", 10).await;

    // A plugin that is not there.
    let missing = A.replace("handlers = []", "handlers = [\"late\"]");
    let late = "[plugins.late]\npath = \"plugins/late.wasm\"\n";
    stage.write(&format!("{late}{missing}"));
    let (status, answer) = stage.reload().await;
    assert!(
        status.contains("409") && answer["error"].as_str().is_some_and(|text| text.starts_with("plugin late: ")),
        "{answer}"
    );
    assert!(stage.gateway.plugin("late").await.is_none());
    stage.gateway.install("late", &Guest::echo().handler());
    let (status, answer) = stage.reload().await;
    assert!(status.contains("200") && answer["number"] == 2, "{answer}");
    assert_eq!(stage.settings().await.expect("a status")["refused"], Value::Null);
    assert_eq!(stage.gateway.get("/readyz").await.expect("an answer")["notices"], serde_json::json!([]));

    publisher.publish("a", 10).await;
    let pushed = jobs(&stage.redis.list_of(JOBS, 30).await);
    let numbers = seqs(&pushed, "M-1", "a");
    assert_eq!(numbers, (0..20).chain(30..40).collect::<Vec<_>>());
    // Back to what is in force is no edit.
    stage.write("");
    assert!(stage.reload().await.0.contains("200"), "the built-in routes");
}

#[tokio::test]
async fn a_plugins_setting_makes_a_new_generation_through_all_steps() {
    let route =
        "[[routes]]\nname = \"heartbeat\"\ntopic = \"machine/{serial_no}/heartbeat\"\nhandlers = [\"heartbeat\"]\n";
    let stage = Stage::start(&format!("{HEARTBEAT}{route}")).await;
    let machine = Machine::connect(stage.broker.port, "M-1", None).await;
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":50}"#).await;
    stage.redis.list_of(JOBS, 1).await;
    let set = |settings: &str| format!("{HEARTBEAT}[plugins.heartbeat.settings]\n{settings}\n{route}");
    stage.applied(&set("max_temperature = 40"), "plugins.heartbeat.settings.max_temperature").await;
    assert_eq!(stage.gateway.generation("heartbeat").await, Some(2));
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":50}"#).await;
    stage.redis.list_of(DEAD, 1).await;
    // Its own samples do not pass with so little memory: nothing of the edit is applied.
    stage.write(&format!("{}{B}", set("[plugins.heartbeat.limits]\nmemory = \"64KiB\"")));
    let (status, answer) = stage.reload().await;
    assert!(
        status.contains("409") && answer["error"].as_str().is_some_and(|text| text.contains("rehearsed")),
        "{answer}"
    );
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":39}"#).await;
    stage.redis.list_of(JOBS, 2).await;
    assert_eq!(stage.gateway.generation("heartbeat").await, Some(2));
    // A new build is loaded with the settings in force.
    stage.gateway.install("heartbeat", &sluicegate_tests::gateway::another_build("heartbeat", 1));
    eventually("it is live", async || (stage.gateway.generation("heartbeat").await? == 3).then_some(())).await;
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":50}"#).await;
    stage.redis.list_of(DEAD, 2).await;
}

#[tokio::test]
async fn a_plugin_that_leaves_the_settings_stands_in_the_history() {
    let route =
        "[[routes]]\nname = \"heartbeat\"\ntopic = \"machine/{serial_no}/heartbeat\"\nhandlers = [\"heartbeat\"]\n";
    let mut stage = Stage::start(&format!("{HEARTBEAT}{route}")).await;
    let live = stage.gateway.plugin("heartbeat").await.expect("JSON")["live"]["digest"].clone();
    let told = async |stage: &Stage| {
        let history = stage.gateway.get("/api/history?plugin=heartbeat").await.expect("JSON");
        let last = &history["changes"][0];
        assert_eq!((&last["from"], &last["to"]), (&live, &Value::Null), "{last}");
        ["what", "who", "outcome"].map(|part| last[part].as_str().unwrap_or("-").to_owned())
    };
    stage.applied(B, "plugins.heartbeat").await;
    assert_eq!(told(&stage).await, ["remove", "settings", "removed"]);
    // The same while it is down.
    stage.applied(&format!("{HEARTBEAT}{route}"), "plugins.heartbeat").await;
    stage.gateway.signal("TERM");
    stage.gateway.ended().await;
    stage.write(B);
    stage.gateway.run().await;
    assert_eq!(told(&stage).await, ["remove", "start", "removed"]);
}

#[tokio::test]
async fn the_file_a_symlink_sighup_and_the_api_are_a_reload_each() {
    let filled = "[gateway]\ntime_zone = \"${file:zone}\"\n";
    let zone = |stage: &Stage, zone: &str| fs::write(stage.gateway.path("zone"), zone).expect("written");
    let stage = Stage::prepared(&format!("{A}{filled}"), |gateway| {
        fs::write(gateway.path("zone"), "+01:00\n").expect("written");
    })
    .await;
    stage.in_force(1).await;
    // The settings' own file did not change: that the other one did is noticed by the look of every 30 s, unless somebody asks.
    zone(&stage, "+02:00");
    stage.gateway.signal("HUP");
    stage.in_force(2).await;
    zone(&stage, "+03:00");
    let (_, mut answer) = stage.reload().await;
    let mut number = 3;
    if answer["outcome"] == "unchanged" {
        // That look came in between. The next one is 30 s away.
        stage.in_force(number).await;
        zone(&stage, "+04:00");
        (_, answer) = stage.reload().await;
        number += 1;
    }
    assert_eq!((&answer["number"], &answer["changes"][0]["key"]), (&number.into(), &"gateway.time_zone".into()));
    let told = answer.to_string();
    assert!(!told.contains("+03:00") && !told.contains("+04:00"), "it is from a file, so it is hidden: {answer}");
    let (_, answer) = stage.reload().await;
    assert_eq!(answer["outcome"], "unchanged");

    stage.write(&format!("{A}{B}{filled}"));
    stage.in_force(number + 1).await;
    // As Kubernetes mounts a ConfigMap.
    let folder = stage.gateway.path("");
    for (version, more) in [("v1", format!("{A}{B}{filled}")), ("v2", format!("{A}{filled}"))] {
        fs::create_dir(folder.join(version)).expect("a folder");
        let text = Gateway::settings(stage.broker.port, stage.redis.port, &more);
        fs::write(folder.join(version).join("sluicegate.toml"), text).expect("written");
    }
    symlink("v1", folder.join("..data")).expect("a link");
    symlink("..data/sluicegate.toml", folder.join("link")).expect("a link");
    fs::rename(folder.join("link"), folder.join("sluicegate.toml")).expect("renamed");
    symlink("v2", folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("switched");
    stage.in_force(number + 2).await;
    let machine = Machine::connect(stage.broker.port, "M-1", None).await;
    machine.publish("machine/M-1/a", "{}").await;
    let job = stage.redis.list_of(JOBS, 1).await.remove(0);
    assert!(job.contains(if number == 3 { "+03:00" } else { "+04:00" }), "{job}");

    // Gone, it changes nothing, and that is said.
    fs::remove_file(folder.join("sluicegate.toml")).expect("removed");
    eventually("it is said", async || {
        stage.settings().await?["refused"].to_string().contains("cannot read the settings file").then_some(())
    })
    .await;
    assert_eq!(stage.settings().await.expect("a status")["number"], number + 2);
}

#[tokio::test]
async fn another_connection_is_made_without_losing_or_doubling_anything() {
    let stage = Stage::start(A).await;
    let publisher = Publisher::connect(&stage, "M-1").await;
    let mut listener = Machine::connect(stage.broker.port, "L-1", Some("machine/L-1/command")).await;
    let settings = Gateway::settings(stage.broker.port, stage.redis.port, A);
    publisher.publish("a", 100).await;
    for (number, maximum) in [(2, 10), (3, 500), (4, 20)] {
        let more = format!("\"EMQX\"\nreceive_maximum = {maximum}\nsession_expiry = \"{number}h\"");
        stage.write_text(&settings.replace("\"EMQX\"", &more));
        let (status, answer) = publisher.meanwhile("a", stage.reload()).await;
        assert!(status.contains("200") && answer.get("unconfirmed").is_none(), "{status} {answer}");
        assert!(answer["outcome"] == "unchanged" || answer["changes"][0]["applies"] == "reconnect", "{answer}");
        publisher.publish("a", 200).await;
        let command = format!(r#"{{"target":"L-1","command":"reboot","payload":{{}},"message_id":"{number}"}}"#);
        stage.redis.push("mqtt_outgoing_commands", &[command]).await;
        assert!(listener.next().await.1.contains(&format!("\"message_id\":\"{number}\"")));
    }
    let all = publisher.next.get();
    let pushed = jobs(&stage.redis.list_of(JOBS, usize::try_from(all).expect("small")).await);
    assert_eq!(in_order(&seqs(&pushed, "M-1", "a")), all);
    eventually("all is counted once", async || (stage.gateway.messages().await?["pushed"] == all).then_some(())).await;
    assert_eq!(stage.redis.list(JOBS).await.len() as u64, all);
    assert!(stage.gateway.log().contains("by other settings"), "it did connect anew");
}

#[tokio::test]
async fn bounds_and_commands_change_live() {
    let stage = Stage::start(&format!("{A}[queues]\nincoming_max = 10\n")).await;
    let publisher = Publisher::connect(&stage, "M-1").await;
    publisher.publish("a", 50).await;
    stage.gateway.says("queues.incoming_max").await;
    publisher.publish("a", 50).await;
    eventually("what is too much is in the spool", async || {
        let messages = stage.gateway.messages().await?;
        (messages["received"] == 100 && messages["in_flight"] == 0 && messages["spooled"].as_u64()? >= 50).then_some(())
    })
    .await;
    stage.applied(A, "queues.incoming_max").await;
    let pushed = jobs(&stage.redis.list_of(JOBS, 100).await);
    assert_eq!(in_order(&seqs(&pushed, "M-1", "a")), 100);

    let mut listener = Machine::connect(stage.broker.port, "L-1", Some("box/L-1/do")).await;
    stage
        .applied(
            &format!("{A}[commands]\ntopic = \"box/{{target}}/do\"\n[queues]\ndead_letters_max = 1\n"),
            "commands.topic",
        )
        .await;
    let command = r#"{"target":"L-1","command":"reboot","payload":{},"message_id":"1"}"#.to_owned();
    stage.redis.push("mqtt_outgoing_commands", &[command]).await;
    assert_eq!(listener.next().await.0, "box/L-1/do");
    for _ in 0..3 {
        publisher.machine.publish("machine/M-1/a", "no JSON").await;
    }
    eventually("only the newest is kept", async || {
        let messages = stage.gateway.messages().await?;
        (messages["dead"] == 3 && stage.redis.list(DEAD).await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_route_whose_priority_changes_keeps_its_order() {
    let low = format!("{A}priority = \"low\"\n");
    let mut stage = Stage::start(&low).await;
    let publisher = Publisher::connect(&stage, "M-1").await;
    publisher.publish("a", 10).await;
    stage.redis.list_of(JOBS, 10).await;
    stage.redis.kill();
    publisher.publish("a", 100).await;
    stage.applied(A, "routes.a.priority").await;
    publisher.publish("a", 100).await;
    stage.applied(&low, "routes.a.priority").await;
    publisher.publish("a", 100).await;
    stage.gateway.counts(&[("received", 310), ("spooled", 300)]).await;
    stage.redis.restart().await;
    eventually("everything is pushed", async || (stage.gateway.messages().await?["pushed"] == 310).then_some(())).await;
    let pushed = jobs(&stage.redis.list(JOBS).await);
    let numbers = seqs(&pushed, "M-1", "a");
    // What Redis had not written when it was killed is its own.
    assert_eq!(numbers[numbers.len() - 300..], (10..310).collect::<Vec<_>>());
    // Once nothing of the route waits it takes its new line.
    stage.applied(A, "routes.a.priority").await;
    publisher.publish("a", 10).await;
    stage.gateway.counts(&[("pushed", 320), ("in_flight", 0)]).await;
}

#[tokio::test]
async fn the_command_line_plans_and_reloads() {
    let stage = Stage::start(A).await;
    let folder = stage.gateway.path("");
    let address = stage.gateway.address();
    let run = |arguments: &[&str]| {
        let output = Command::new(binary()).args(arguments).current_dir(&folder).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let url = format!("http://{address}/");
    let check = ["check", "--config", "sluicegate.toml", "--against", &*url];
    let (code, out, _) = run(&check);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("plan   nothing changes"), "{out}");
    let planned = folder.join("planned.toml");
    let text = Gateway::settings(
        stage.broker.port,
        stage.redis.port,
        &format!("{A}attempts = 5\n[commands]\nin_flight = 10\n"),
    );
    fs::write(&planned, text.replace("\"EMQX\"", "\"mosquitto\"")).expect("written");
    let (code, out, _) = run(&["check", "--config", "planned.toml", "--against", &address]);
    assert_eq!(code, Some(0), "{out}");
    for line in [
        "restart    commands.in_flight: 1000 -> 10\n",
        "reconnect  mqtt.name: \"EMQX\" -> \"mosquitto\"\n",
        "live       routes.a.attempts: 3 -> 5\n",
        "unknown    redis.url holds a secret, which is masked: it may have changed\n",
        "plan   the running gateway refuses it as a whole: a part of it needs a restart\n",
    ] {
        assert_eq!(out.contains(line), !line.starts_with("unknown"), "{line}{out}");
    }

    let reload = ["config", "reload", "--address", &*address];
    let (code, out, _) = run(&reload);
    assert_eq!((code, &*out), (Some(0), "nothing changed; settings 1 are in force\n"));
    fs::rename(&planned, folder.join("sluicegate.toml")).expect("renamed");
    let (code, _, err) = run(&reload);
    assert_eq!(code, Some(3), "{err}");
    assert!(
        err.contains("error: needs a restart: commands.in_flight;") && err.contains("next: sluicegate check --against"),
        "{err}"
    );
    stage.write(&format!("{A}attempts = 5\n"));
    // The watch may have been faster; what is in force is the same.
    let (code, out, _) = run(&reload);
    assert!(code == Some(0) && out.contains("settings 2 are in force\n"), "{out}");
    let (code, out, _) = run(&["config", "reload", "--address", &address, "--json"]);
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["data"]["outcome"]), (Some(0), &"unchanged".into()));
    let free = sluicegate_tests::servers::free_port();
    assert_eq!(run(&["config", "reload", "--address", &format!("127.0.0.1:{free}")]).0, Some(4));
    assert_eq!(run(&["check", "--config", "sluicegate.toml", "--against", "nonsense"]).0, Some(2));
    let answer = stage.gateway.text("/api/settings").await.expect("an answer");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["number"], 2);
    assert!(answer["keys"].as_array().is_some_and(|keys| {
        keys.iter().any(|key| key["key"] == "routes[0].attempts" && key["value"] == "5" && key["applies"] == "live")
    }));
}
