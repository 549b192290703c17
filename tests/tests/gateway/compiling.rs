//! Compiling a stranger's file costs the process that does it, and nobody else.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate_guests::section;
use sluicegate_tests::gateway::{another_build, binary, component, plugins, route};
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

use super::plugins_lifecycle::kept;

/// What the files of bombs have at least, in bytes, and usual builds have not.
const LARGE: u64 = 300 << 10;
/// Until then a process that gave way and gets too little is started anew, by the gateway itself.
const HEAD_START: Duration = Duration::from_millis(1_100);

/// The heartbeat's build with a module more, which nobody uses and which takes a compiler long: the more rounds, the longer.
fn bomb(rounds: u32) -> Vec<u8> {
    let module = sluicegate_guests::hard_to_compile(rounds);
    let mut bytes = component("heartbeat");
    section(&mut bytes, 1, &module);
    bytes
}

/// Minutes of a compiler's work, wherever this runs.
fn bombs() -> Vec<u8> {
    bombs_of("heartbeat")
}

fn bombs_of(name: &str) -> Vec<u8> {
    let module = sluicegate_guests::hard_to_compile(30_000);
    let mut bytes = component(name);
    (0..20).for_each(|_| section(&mut bytes, 1, &module));
    bytes
}

async fn start(more: &str) -> (Broker, RedisServer, Gateway) {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, more));
    gateway.run().await;
    (broker, redis, gateway)
}

/// The most memory that a process ever had, in KiB.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// The process that compiles for this gateway, once it has its limits and gave way; it stands still from then on, so that it takes no time from other tests.
async fn held(gateway: u32) -> u32 {
    let child = compiling(gateway).await;
    let stopped = Command::new("kill").args(["-STOP", &child.to_string()]).status().expect("kill");
    assert!(stopped.success());
    child
}

/// The process that compiles for this gateway or command, once it has its limits and gave way, and will not be started anew for want of time.
async fn compiling(starter: u32) -> u32 {
    eventually("a process compiles", async || {
        let settled = |process: &u32| gave_way(*process, starter) == Some(true) && age(*process) >= Some(HEAD_START);
        compilers(starter).into_iter().find(settled)
    })
    .await
}

/// What compiles a large file for this gateway or command.
fn compilers(starter: u32) -> Vec<u32> {
    // A gateway's is started by what it started for that, or by itself.
    let own = children(starter);
    let all = own.iter().flat_map(|child| children(*child)).chain(own.iter().copied());
    all.filter(|process| {
        // A usual build's is soon gone: one of this size is meant.
        fs::metadata(format!("/proc/{process}/fd/0")).is_ok_and(|file| file.is_file() && file.len() >= LARGE)
    })
    .collect()
}

fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Whether it has its limits, and gave way.
fn gave_way(process: u32, starter: u32) -> Option<bool> {
    // Every thread of it has a priority of its own.
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let nice: Vec<i32> = threads.flatten().filter_map(|thread| nice_of(&thread.path())).collect();
    // Taken upon itself before it reads: from then on it ends with what started it, stopped or not.
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let limited = limits.lines().any(|line| line.starts_with("Max cpu time") && !line.contains("unlimited  "));
    if !limited {
        return None;
    }
    Some(
        !nice.is_empty()
            && nice.iter().all(|nice| *nice == 10)
            && session(process)? != session(starter)?
            && is_low_as_a_whole(process),
    )
}

/// For how long it has been there.
fn age(process: u32) -> Option<Duration> {
    let ticks: f64 = stat(Path::new(&format!("/proc/{process}")), 20)?;
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    // There are a hundred in a second, on every machine that this runs on.
    Some(Duration::from_secs_f64((uptime - ticks / 100.0).max(0.0)))
}

/// Lets it go before all else, where whoever runs this may: at its low priority it would wait for the other tests for minutes.
fn hurry(child: u32) {
    let threads = fs::read_dir(format!("/proc/{child}/task")).into_iter().flatten().flatten();
    let mut renice = Command::new("renice");
    let _ = renice.args(["-n", "-10", "-p"]).args(threads.map(|thread| thread.file_name())).output().expect("renice");
    let _ = fs::write(format!("/proc/{child}/autogroup"), "-10");
}

/// Whether its session, which nothing else is in, has a low priority as well, where the kernel gives sessions any.
fn is_low_as_a_whole(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/autogroup"))
        .map_or(true, |group| group.trim_end().ends_with(" nice 10"))
}

async fn gone(process: u32) {
    eventually("it went with the gateway", async || {
        // A zombie has no command line.
        fs::read(format!("/proc/{process}/cmdline")).map_or(true, |line| line.is_empty()).then_some(())
    })
    .await;
}

fn session(process: u32) -> Option<u32> {
    stat(Path::new(&format!("/proc/{process}")), 4)
}

fn nice(process: u32) -> Option<i32> {
    nice_of(Path::new(&format!("/proc/{process}")))
}

fn nice_of(task: &Path) -> Option<i32> {
    stat(task, 17)
}

/// A field of `stat` (proc(5)), counted from the name, which may hold anything: the state is the first behind it.
fn stat<T: FromStr>(task: &Path, field: usize) -> Option<T> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(field - 1)?.parse().ok()
}

/// Waits until it is refused, and hurries what compiles until then.
async fn refused(gateway: &Gateway, part: &str) {
    let refusal = eventually(&format!("it is refused: {part}"), async || {
        compilers(gateway.process()).into_iter().for_each(hurry);
        let refusal = gateway.plugin("heartbeat").await?["last_refusal"].clone();
        refusal["reason"].as_str()?.contains(part).then_some(refusal)
    })
    .await;
    assert_eq!(refusal["step"], "compiled");
    assert_eq!(compilers(gateway.process()), [0; 0], "it is gone");
}

#[tokio::test]
async fn a_compile_bomb_costs_neither_traffic_nor_memory() {
    let (broker, redis, gateway) = start("[gateway]\ncompile_time = \"3s\"\n").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let before = peak(gateway.process());
    gateway.install("heartbeat", &bomb(30_000));
    eventually("a process compiles", async || (!compilers(gateway.process()).is_empty()).then_some(())).await;
    for _ in 0..300 {
        machine.publish("machine/M-1/heartbeat", "{}").await;
    }
    redis.list_of("mqtt_incoming_jobs", 300).await;
    refused(&gateway, "more than 3s of the processor (gateway.compile_time)").await;
    let grown = peak(gateway.process()).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
    // The bomb is not tried again, and a good build goes live after it.
    gateway.install("heartbeat", &another_build("heartbeat", 1));
    eventually("the next build is live", async || (gateway.generation("heartbeat").await? == 2).then_some(())).await;
    machine.publish("machine/M-1/heartbeat", "{}").await;
    redis.list_of("mqtt_incoming_jobs", 301).await;
}

#[tokio::test]
async fn nobody_waits_for_a_compile_bomb_whatever_is_asked_for() {
    let (broker, redis, mut gateway) = start("[gateway]\ncompile_time = \"10m\"\ncompile_memory = \"4GiB\"\n").await;
    gateway.install("error", &another_build("error", 1));
    eventually("the other build of the error's is live", async || {
        (gateway.generation("error").await? == 2).then_some(())
    })
    .await;
    gateway.install("heartbeat", &bombs());
    let child = held(gateway.process()).await;
    // Another plugin goes back to the build before, and the compiler is still at it.
    let back = gateway.post("/api/plugins/error/rollback", "{}").await;
    assert!(back.contains("200 OK"), "{back}");
    assert!(nice(child).is_some(), "it was waited for");
    assert_eq!(gateway.generation("error").await, Some(3));
    // Other settings come into force.
    let settings = fs::read_to_string(gateway.path("sluicegate.toml")).expect("settings");
    let settings = format!("{settings}\n[commands]\nexpiry = \"30s\"\n");
    fs::write(gateway.path("sluicegate.toml"), settings).expect("written");
    eventually("other settings are in force", async || {
        (gateway.get("/api/status").await?["settings"]["number"] == 2).then_some(())
    })
    .await;
    assert!(nice(child).is_some(), "it has nothing to do with them");
    // A good build in its place is wanted in its stead.
    gateway.install("heartbeat", &another_build("heartbeat", 1));
    eventually("the good build is live", async || (gateway.generation("heartbeat").await? == 2).then_some(())).await;
    eventually("nobody wants what it compiled", async || nice(child).is_none().then_some(())).await;
    let plugin = gateway.plugin("heartbeat").await.expect("a status");
    assert_eq!((&plugin["candidate"], &plugin["last_refusal"]), (&Value::Null, &Value::Null), "{plugin}");

    // After a restart the last good build serves, whatever the compiler is at.
    let digest = plugin["live"]["digest"].clone();
    kept(&gateway, 2).await;
    gateway.kill();
    fs::write(gateway.path("plugins/heartbeat.wasm"), bombs()).expect("written");
    gateway.run().await;
    let plugin = eventually("it is compiled beside the traffic", async || {
        gateway.plugin("heartbeat").await.filter(|plugin| plugin["candidate"]["step"] == "compiled")
    })
    .await;
    assert_eq!((&plugin["live"]["source"], &plugin["live"]["digest"]), (&json!("fallback"), &digest), "{plugin}");
    held(gateway.process()).await;
    gateway.says("not with its file: the build in its file was not ready in time").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    machine.publish("machine/M-1/heartbeat", "{}").await;
    redis.list_of("mqtt_incoming_jobs", 1).await;
    // Nobody waited for it. It may be another process: that of the start was given up in this moment, perhaps.
    let child = held(gateway.process()).await;
    // Nor does the end wait.
    gateway.signal("TERM");
    gateway.ended().await;
    eventually("it went with the gateway", async || nice(child).is_none().then_some(())).await;
}

#[tokio::test]
async fn nobody_waits_for_an_edit_that_needs_a_compile_bomb() {
    let own = plugins(&["heartbeat", "error"]) + &route("heartbeat", "") + &route("error", "");
    let limits = "[gateway]\ncompile_time = \"10m\"\ncompile_memory = \"4GiB\"\n";
    let (_broker, _redis, gateway) = start(&format!("{limits}{own}")).await;
    let good = fs::read_to_string(gateway.path("sluicegate.toml")).expect("settings");
    let write = |text: &str| fs::write(gateway.path("sluicegate.toml"), text).expect("written");
    let elsewhere = |name: &str| good.replace("plugins/heartbeat.wasm", name);
    assert_ne!(elsewhere("x"), good);
    let number = async || gateway.get("/api/status").await?["settings"]["number"].as_u64();
    gateway.install("error", &another_build("error", 1));
    eventually("it is live", async || (gateway.generation("error").await? == 2).then_some(())).await;

    fs::write(gateway.path("bombs.wasm"), bombs()).expect("written");
    write(&elsewhere("bombs.wasm"));
    held(gateway.process()).await;
    // Another plugin goes back to the build before.
    let back = gateway.post("/api/plugins/error/rollback", "{}").await;
    assert!(back.contains("200 OK"), "{back}");
    assert_eq!((gateway.generation("error").await, number().await), (Some(3), Some(1)));
    // What the file says by then is wanted.
    let child = held(gateway.process()).await;
    write(&format!("{good}\n[commands]\nexpiry = \"30s\"\n"));
    eventually("the edit of the edit is in force", async || (number().await? == 2).then_some(())).await;
    eventually("nobody wants what it compiled", async || nice(child).is_none().then_some(())).await;

    // One that is refused for a plugin's sake keeps no build from going live, however often it is read.
    fs::write(gateway.path("bombs.wasm"), b"garbage").expect("written");
    write(&elsewhere("bombs.wasm"));
    eventually("it is refused", async || {
        let refused = gateway.get("/api/status").await?["settings"]["refused"]["reasons"][0].clone();
        refused.as_str()?.starts_with("plugin heartbeat: not verified: ").then_some(())
    })
    .await;
    gateway.install("error", &bombs_of("error"));
    let child = held(gateway.process()).await;
    for _ in 0..3 {
        let again = gateway.post("/api/settings/reload", "{}").await;
        assert!(again.contains("409 Conflict") && again.contains("plugin heartbeat"), "{again}");
    }
    assert!(nice(child).is_some(), "it is the same that compiles");
}

#[tokio::test]
async fn what_needs_too_much_memory_is_refused() {
    let (_broker, _redis, gateway) = start("[gateway]\ncompile_memory = \"256MiB\"\n").await;
    gateway.install("heartbeat", &bomb(30_000));
    refused(&gateway, "more than 256MiB of memory (gateway.compile_memory)").await;
    assert_eq!(gateway.generation("heartbeat").await, Some(1));
    // What is no bomb has enough. Nobody compiled this one before.
    gateway.install("heartbeat", &another_build("heartbeat", 9));
    eventually("the next build is live", async || (gateway.generation("heartbeat").await? == 2).then_some(())).await;
}

#[tokio::test]
async fn the_compiling_process_has_nothing_of_the_gateways_and_ends_with_it() {
    let (_broker, _redis, mut gateway) = start("").await;
    gateway.install("heartbeat", &bomb(30_000));
    let child = held(gateway.process()).await;
    // The registry waits for it; who asks what the plugin was given does not.
    assert_eq!(gateway.get("/api/plugins/heartbeat/messages").await.expect("an answer")["messages"], json!([]));
    let environment = fs::read(format!("/proc/{child}/environ")).expect("it runs");
    assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
    for entry in fs::read_dir(format!("/proc/{child}/fd")).expect("it runs") {
        let path = entry.expect("an entry").path();
        let (number, file) = (path.file_name().expect("a number"), fs::read_link(&path).expect("it is open"));
        // Beside its three: what whoever runs this test left open for all, which the gateway does not know of.
        let inherited = fs::read_link(Path::new("/proc/self/fd").join(number)).is_ok_and(|own| own == file);
        let memory = file.to_string_lossy().starts_with("/memfd:");
        assert!(memory && ["0", "1", "2"].map(Some).contains(&number.to_str()) || inherited, "{number:?}: {file:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{child}/limits")).expect("it runs");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).expect("a limit");
        line[name.len()..].split_whitespace().next().expect("a number").to_owned()
    };
    // One that did not give way before it began has a thread more, for that.
    let line = fs::read_to_string(format!("/proc/{child}/cmdline")).expect("it runs");
    let reserved = if line.contains("--gave-way") { 0 } else { (64 << 20) + (128 << 10) };
    assert_eq!(limit("Max address space"), ((1_u64 << 30) + reserved).to_string());
    assert_eq!(limit("Max cpu time"), "120");
    assert_eq!(limit("Max core file size"), "0");
    gateway.kill();
    gone(child).await;
}

/// What starts compiling processes for this gateway, once it gave way and waits to be asked.
async fn launcher(gateway: u32) -> u32 {
    eventually("something starts what compiles", async || {
        children(gateway).into_iter().find(|child| {
            let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"internal-launch")
                && stat(Path::new(&format!("/proc/{child}")), 1) == Some('S')
                && nice(*child) == Some(10)
                && session(*child) == Some(*child)
                && is_low_as_a_whole(*child)
        })
    })
    .await
}

#[tokio::test]
async fn whatever_becomes_of_what_starts_them_builds_go_live_and_it_ends_with_the_gateway() {
    let (_broker, _redis, mut gateway) = start("").await;
    let folder = gateway.path("").display().to_string();
    let mut generation = 1;
    for signal in ["-KILL", "-STOP"] {
        let launcher = launcher(gateway.process()).await;
        assert!(Command::new("kill").args([signal, &launcher.to_string()]).status().expect("kill").success());
        // Beside other tests it may be that none is asked for a while.
        eventually("nobody waits for the one before", async || {
            generation += 1;
            // Nobody compiled this one before.
            let mut build = component("heartbeat");
            section(&mut build, 0, format!("\u{1}x{generation}{folder}").as_bytes());
            gateway.install("heartbeat", &build);
            let is_live = async || (gateway.generation("heartbeat").await? == generation).then_some(());
            eventually("it is live", is_live).await;
            nice(launcher).is_none().then_some(())
        })
        .await;
    }
    let launcher = launcher(gateway.process()).await;
    gateway.kill();
    gone(launcher).await;
}

#[tokio::test]
async fn a_process_that_somebody_ends_says_nothing_of_the_file() {
    let gateway = Gateway::with(&Gateway::settings(1, 1, ""));
    fs::write(gateway.path("bombs.wasm"), bombs()).expect("written");
    let command = Command::new(binary())
        .args(["--config", "sluicegate.toml", "plugin", "compile", "bombs.wasm"])
        .current_dir(gateway.path(""))
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let child = compiling(command.id()).await;
    assert!(Command::new("kill").arg(child.to_string()).status().expect("kill").success());
    let output = command.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ended by the signal 15") && said.contains("next: try it again"), "{said}");
}

#[tokio::test]
async fn what_was_compiled_ahead_is_used_and_what_was_altered_is_not() {
    let mut gateway = {
        let (broker, redis) = (Broker::start().await, RedisServer::start().await);
        let gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, ""));
        (broker, redis, gateway)
    };
    let compile = |gateway: &Gateway, file: &str| -> Value {
        let output = Command::new(binary())
            .args(["--config", "sluicegate.toml", "--json", "plugin", "compile", file])
            .current_dir(gateway.path(""))
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let gateway = &mut gateway.2;
    fs::remove_dir_all(gateway.path("state/compiled")).expect("nothing is compiled");
    assert_eq!(compile(gateway, "plugins/heartbeat.wasm")["data"]["compiled"], true);
    assert_eq!(compile(gateway, "plugins/heartbeat.wasm")["data"]["compiled"], false);
    gateway.run().await;
    assert!(!gateway.log().contains("compiled anew"), "{}", gateway.log());
    gateway.kill();
    let folder = gateway.path("state/compiled");
    let files: Vec<_> = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(files.len(), 5, "four plugins and the key: {files:?}");
    for file in files.iter().filter(|file| !file.ends_with("key")) {
        let mut bytes = fs::read(file).expect("it is there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).expect("altered");
    }
    gateway.run().await;
    let log = gateway.log();
    assert_eq!(log.matches("it is damaged, or another program wrote it").count(), 4, "{log}");
    gateway.kill();
    gateway.run().await;
    assert!(!gateway.log().contains("compiled anew"), "{}", gateway.log());
    // A folder that others may write is no place for what is run.
    gateway.kill();
    let chmod = Command::new("chmod").arg("777").arg(&folder).status().expect("chmod");
    assert!(chmod.success());
    gateway.run().await;
    assert!(gateway.log().contains("is not this user's alone"), "{}", gateway.log());
}

#[tokio::test]
async fn the_status_tells_what_each_plugin_uses() {
    let (broker, redis, gateway) = start("").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for _ in 0..10 {
        machine.publish("machine/M-1/heartbeat", "{}").await;
    }
    redis.list_of("mqtt_incoming_jobs", 10).await;
    let usage = gateway.plugin("heartbeat").await.expect("a status")["usage"].clone();
    assert_eq!((&usage["calls"], &usage["faults"]), (&10.into(), &0.into()), "{usage}");
    assert!(usage["memory_peak_bytes"].as_u64().is_some_and(|bytes| bytes >= 64 << 10), "{usage}");
    assert!(usage["instances"].as_u64().is_some_and(|instances| instances >= 1), "{usage}");
    eventually("the metrics tell it too", async || {
        let metrics = gateway.text("/metrics").await?;
        metrics.contains("sluicegate_plugin_memory_peak_bytes{plugin=\"heartbeat\"}").then_some(())
    })
    .await;
}
