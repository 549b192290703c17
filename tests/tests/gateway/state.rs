//! What a plugin keeps: in Redis, its own, exact, and only of calls that succeeded.

use std::time::Duration;

use serde_json::Value;
use sluicegate_guests::Guest;
use sluicegate_tests::gateway::binary;
use sluicegate_tests::{Broker, Cluster, Gateway, Machine, Proxy, RedisServer, eventually};

const JOBS: &str = "mqtt_incoming_jobs";
const DEAD: &str = "mqtt_dead_letters";

/// One plugin that does with its state what the payloads say.
fn settings(broker: &Broker, redis: &RedisServer, more: &str) -> String {
    // On a machine that is busy with other tests Redis's answers take longer than a call has by default.
    let own = format!(
        "[plugins.keeper]\npath = \"plugins/keeper.wasm\"\nprobation = {{ for = \"0s\" }}\nrehearse = {{ max_slowdown = 1000 }}\n\
         grants = {{ state = true }}\nlimits = {{ call_timeout = \"2s\" }}\n[[routes]]\nname = \"keeper\"\n\
         topic = \"machine/{{serial_no}}/do\"\nhandlers = [\"keeper\"]\n{more}"
    );
    Gateway::settings(broker.port, redis.port, &own)
}

async fn start(broker: &Broker, redis: &RedisServer, more: &str) -> Gateway {
    let mut gateway = Gateway::with(&settings(broker, redis, more));
    gateway.install("keeper", &Guest::stateful().handler());
    gateway.run().await;
    gateway
}

async fn order(machine: &Machine, name: &str, what: char, key: &str) {
    machine.publish(&format!("machine/{name}/do"), format!(r#"{{"do":"{what}","key":"{key}"}}"#)).await;
}

fn payloads(jobs: &[String]) -> Vec<String> {
    jobs.iter().map(|job| serde_json::from_str::<Value>(job).expect("JSON")["payload"].to_string()).collect()
}

async fn letters(redis: &RedisServer) -> Vec<String> {
    let reason = |letter: &String| serde_json::from_str::<Value>(letter).expect("JSON")["reason"].to_string();
    redis.list(DEAD).await.iter().map(reason).collect()
}

const KEY: &str = "{sluicegate:state:keeper}:key:";

#[tokio::test]
async fn what_a_call_keeps_the_next_one_finds_after_a_restart_too() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = start(&broker, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for (what, key) in [('g', "a"), ('s', "a"), ('g', "a"), ('i', "n"), ('m', "n"), ('d', "a"), ('g', "a")] {
        order(&machine, "M-1", what, key).await;
    }
    let jobs = redis.list_of(JOBS, 7).await;
    let kept = r#"{"do":"s","key":"a"}"#;
    assert_eq!(payloads(&jobs), ["null", kept, kept, "1", "101", r#"{"do":"d","key":"a"}"#, "null"]);
    // In order: what is killed may come again, and count again.
    gateway.signal("TERM");
    gateway.ended().await;
    gateway.run().await;
    order(&machine, "M-1", 'i', "n").await;
    assert_eq!(payloads(&redis.list_of(JOBS, 8).await)[7], "102");
    assert_eq!(redis.ask::<String>(&format!("GET {KEY}n")).await, Ok("102".to_owned()));
    assert_eq!(redis.ask::<u64>("ZCARD {sluicegate:state:keeper}:keys").await, Ok(1));
}

#[tokio::test]
async fn what_a_call_that_fails_would_have_kept_is_nowhere() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&settings(&broker, &redis, "").replace("\"2s\"", "\"200ms\""));
    gateway.install("keeper", &Guest::stateful().handler());
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for what in ['x', 't', 'n', 'w', 'f', 'a', 'i'] {
        order(&machine, "M-1", what, "n").await;
    }
    // Asked for another attempt twice, then it succeeded; then once more.
    let jobs = redis.list_of(JOBS, 2).await;
    assert_eq!(payloads(&jobs), ["1", "2"]);
    let letters = letters(&redis).await;
    for (letter, words) in letters.iter().zip(["refused", "trapped", "not JSON", "call_timeout", "limits.host_calls"]) {
        assert!(letter.contains(words), "{letter}");
    }
    assert_eq!(letters.len(), 5, "{letters:?}");
}

/// Many machines add to one key at once: in both lanes, on several instances, in two gateways.
#[tokio::test]
async fn many_machines_add_to_one_key_and_each_is_told_its_own_sum() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let _gateway = start(&broker, &redis, "").await;
    let mut second = settings(&broker, &redis, "").replace("machine/", "other/");
    second = second.replace("[mqtt]\n", "[gateway]\ninstance = \"second\"\n[mqtt]\nclient_id = \"second\"\n");
    let mut other = Gateway::with(&second);
    other.install("keeper", &Guest::stateful().handler());
    other.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for number in 0..400 {
        order(&machine, &format!("M-{}", number % 40), 'i', "n").await;
        let topic = format!("other/M-{}/do", number % 40);
        machine.publish(&topic, r#"{"do":"i","key":"n"}"#).await;
    }
    let jobs = redis.list_of(JOBS, 800).await;
    let mut sums: Vec<u64> = payloads(&jobs).iter().map(|sum| sum.parse().expect("a sum")).collect();
    sums.sort_unstable();
    let missing: Vec<u64> = (1..=800).filter(|sum| !sums.contains(sum)).collect();
    assert_eq!((sums.len(), sums.last(), missing), (800, Some(&800), Vec::new()));
    assert_eq!(redis.list(DEAD).await, Vec::<String>::new());
}

#[tokio::test]
async fn keys_go_when_their_time_is_over_and_make_room() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut text = settings(&broker, &redis, "attempts = 1\n");
    text = text.replace("limits = {", "limits = { state_keys = 3, state_value = \"1KiB\",");
    let mut gateway = Gateway::with(&text);
    gateway.install("keeper", &Guest::stateful().handler());
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for (what, key) in [('s', "a"), ('e', "b"), ('u', "c"), ('s', "d"), ('i', "d"), ('s', "a"), ('v', "a")] {
        order(&machine, "M-1", what, key).await;
    }
    redis.list_of(JOBS, 4).await;
    let letters = eventually("the dead letters", async || {
        let letters = letters(&redis).await;
        (letters.len() == 3).then_some(letters)
    })
    .await;
    for (letter, words) in letters.iter().zip(["limits.state_keys", "limits.state_keys", "limits.state_value"]) {
        assert!(letter.contains(words), "{letter}");
    }
    // Half a second later two of them are gone.
    eventually("there is room again", async || {
        let before = redis.list(JOBS).await.len();
        order(&machine, "M-1", 'i', "d").await;
        gateway.counts(&[("in_flight", 0), ("spooled", 0)]).await;
        (redis.list(JOBS).await.len() > before).then_some(())
    })
    .await;
    assert_eq!(redis.ask::<u64>(&format!("EXISTS {KEY}a {KEY}b {KEY}c {KEY}d")).await, Ok(2));
    assert_eq!(redis.ask::<u64>("ZCARD {sluicegate:state:keeper}:keys").await, Ok(2));
}

#[tokio::test]
async fn keys_that_redis_evicted_take_no_room() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut text = settings(&broker, &redis, "attempts = 1\n");
    text = text.replace("limits = {", "limits = { state_keys = 3,");
    let mut gateway = Gateway::with(&text);
    gateway.install("keeper", &Guest::stateful().handler());
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for (key, jobs) in [("a", 1), ("b", 2), ("c", 3)] {
        order(&machine, "M-1", 's', key).await;
        redis.list_of(JOBS, jobs).await;
    }
    // One that nobody asks for any more, and one that is asked for.
    redis.command(&format!("DEL {KEY}a {KEY}b")).await;
    for (what, key, jobs) in [('s', "d", 4), ('g', "b", 5), ('s', "e", 6)] {
        order(&machine, "M-1", what, key).await;
        redis.list_of(JOBS, jobs).await;
    }
    assert_eq!(letters(&redis).await, Vec::<String>::new());
    let index = redis.ask::<Vec<String>>("ZRANGE {sluicegate:state:keeper}:keys 0 -1").await.expect("the index");
    let mut named: Vec<&str> = index.iter().filter_map(|key| key.strip_prefix(KEY)).collect();
    named.sort_unstable();
    assert_eq!(named, ["c", "d", "e"]);
    order(&machine, "M-1", 's', "f").await;
    let letter = eventually("a dead letter", async || letters(&redis).await.pop()).await;
    assert!(letter.contains("limits.state_keys"), "{letter}");
}

#[tokio::test]
async fn while_redis_hangs_or_is_away_nothing_is_lost_given_up_or_counted() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "attempts = 2\n").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    order(&machine, "M-1", 'i', "n").await;
    redis.list_of(JOBS, 1).await;
    redis.freeze();
    for number in 0..10 {
        order(&machine, &format!("M-{number}"), 'i', "n").await;
    }
    gateway.counts(&[("received", 11), ("spooled", 10), ("in_flight", 0), ("dead", 0)]).await;
    gateway.says("redis: ").await;
    redis.thaw();
    gateway.counts(&[("pushed", 11), ("spooled", 0), ("dead", 0)]).await;
    redis.kill();
    for number in 0..10 {
        order(&machine, &format!("M-{number}"), 'i', "n").await;
    }
    gateway.counts(&[("received", 21), ("spooled", 10), ("in_flight", 0), ("dead", 0)]).await;
    redis.restart().await;
    gateway.counts(&[("pushed", 21), ("spooled", 0), ("dead", 0)]).await;
    let mut sums: Vec<u64> = payloads(&redis.list(JOBS).await).iter().map(|sum| sum.parse().expect("a sum")).collect();
    sums.sort_unstable();
    sums.dedup();
    assert_eq!(sums.len(), 21, "each is told a sum of its own: {sums:?}");
    assert_eq!(gateway.plugin("keeper").await.expect("it")["usage"]["faults"], 0, "it is no fault of the plugin's");
    gateway.ready().await;
}

/// What is acknowledged to nobody comes again, and what it kept is kept again: at least once.
#[tokio::test]
async fn a_kill_before_the_acknowledgement_repeats_what_was_kept() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let proxy = Proxy::to(broker.port).await;
    let mut gateway =
        Gateway::with(&settings(&broker, &redis, "").replace(&broker.port.to_string(), &proxy.port.to_string()));
    gateway.install("keeper", &Guest::stateful().handler());
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    proxy.hold_requests(true);
    order(&machine, "M-1", 'i', "n").await;
    assert_eq!(payloads(&redis.list_of(JOBS, 1).await), ["1"]);
    gateway.kill();
    // With what was held.
    proxy.cut();
    proxy.hold_requests(false);
    gateway.run().await;
    assert_eq!(payloads(&redis.list_of(JOBS, 2).await), ["1", "2"]);
}

/// Redis takes the state and not the jobs: those are in the spool when the gateway is killed, and nothing is kept twice.
#[tokio::test]
async fn a_kill_behind_the_acknowledgement_keeps_nothing_twice() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    redis.command(&format!("SET {JOBS} x")).await;
    let mut gateway = start(&broker, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for number in 0..10 {
        order(&machine, &format!("M-{number}"), 'i', "n").await;
    }
    gateway.counts(&[("spooled", 10), ("in_flight", 0)]).await;
    gateway.kill();
    redis.command(&format!("DEL {JOBS}")).await;
    gateway.run().await;
    let mut sums = payloads(&redis.list_of(JOBS, 10).await);
    sums.sort_by_key(|sum| sum.parse::<u64>().expect("a sum"));
    assert_eq!(sums, (1..=10).map(|sum| sum.to_string()).collect::<Vec<_>>());
    assert_eq!(redis.ask::<u64>(&format!("GET {KEY}n")).await, Ok(10));
}

/// All keys of a plugin lie in one slot, with whatever prefix, and what is added while it moves to another node is added once.
#[tokio::test]
async fn on_a_cluster_a_plugins_state_lies_in_one_slot_and_moves_with_it() {
    let (broker, cluster) = (Broker::start().await, Cluster::start().await);
    let keys = "cluster = true\nkey_prefix = \"laravel_\"\n[admin]";
    let mut gateway = Gateway::with(&settings(&broker, &cluster.nodes[0], "attempts = 2\n").replace("[admin]", keys));
    gateway.install("keeper", &Guest::stateful().handler());
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let index = "{laravel_sluicegate:state:keeper}:keys";
    let from = cluster.node_of(index).await;
    for number in 0..90 {
        if number == 30 {
            cluster.move_slot(index, (from + 1) % 3).await;
        }
        order(
            &machine,
            &format!("M-{}", number % 10),
            if number % 3 == 0 { 's' } else { 'i' },
            &format!("k{}", number % 3),
        )
        .await;
    }
    let jobs = cluster.list_of("laravel_mqtt_incoming_jobs", 90).await;
    let mut sums: Vec<u64> = payloads(&jobs).iter().filter_map(|sum| sum.parse().ok()).collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=30).flat_map(|sum| [sum, sum]).collect::<Vec<_>>());
    assert_eq!(cluster.ask::<u64>(&format!("ZCARD {index}")).await, 3);
    gateway.counts(&[("dead", 0), ("pushed", 90), ("in_flight", 0), ("spooled", 0)]).await;
}

#[tokio::test]
async fn no_key_leaves_its_own_plugins() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let _gateway = start(&broker, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for key in ["../../mqtt_incoming_jobs", "}:keys", "{other}:key:x", "a b\\r\\nFLUSHALL\\r\\n", "é"] {
        order(&machine, "M-1", 's', key).await;
    }
    redis.list_of(JOBS, 5).await;
    let mut keys: Vec<String> = redis.ask("KEYS *state*").await.expect("keys");
    keys.sort_unstable();
    assert!(keys.iter().all(|key| key.starts_with("{sluicegate:state:keeper}:key")), "{keys:?}");
    assert_eq!(keys.len(), 6, "{keys:?}");
    assert!(keys.contains(&format!("{KEY}%7Bother%7D:key:x")), "{keys:?}");
}

#[tokio::test]
async fn a_grant_that_is_taken_away_refuses_the_edit_and_one_that_is_given_lets_the_build_in() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let text = settings(&broker, &redis, "");
    let mut gateway = Gateway::with(&text.replace("state = true", "state = false"));
    gateway.install("keeper", &Guest::echo().handler());
    gateway.run().await;
    gateway.install("keeper", &Guest::stateful().handler());
    eventually("the build is refused", async || {
        let refusal = gateway.plugin("keeper").await?["last_refusal"].clone();
        let reason = refusal["reason"].as_str()?.to_owned();
        (refusal["step"] == "checked"
            && reason.contains("sluicegate:plugin/state@0.1.0")
            && reason.contains("grants.state"))
        .then_some(())
    })
    .await;
    std::fs::write(gateway.path("sluicegate.toml"), &text).expect("written");
    eventually("it is live", async || gateway.generation("keeper").await.filter(|number| *number > 1)).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    order(&machine, "M-1", 'i', "n").await;
    assert_eq!(payloads(&redis.list_of(JOBS, 1).await), ["1"]);
    let live = gateway.generation("keeper").await;
    std::fs::write(gateway.path("sluicegate.toml"), text.replace("state = true", "state = false")).expect("written");
    gateway.says("grants.state").await;
    order(&machine, "M-1", 'i', "n").await;
    assert_eq!(payloads(&redis.list_of(JOBS, 2).await), ["1", "2"], "what was in force goes on");
    assert_eq!(gateway.generation("keeper").await, live);
}

/// A new build is tried on what came before: it reads the real state, and leaves it as it is.
#[tokio::test]
async fn what_is_tried_in_shadow_changes_no_state() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for _ in 0..20 {
        order(&machine, "M-1", 'i', "n").await;
    }
    redis.list_of(JOBS, 20).await;
    let mut build = Guest::stateful().handler();
    sluicegate_guests::custom(&mut build, "build", b"2");
    gateway.install("keeper", &build);
    eventually("it is live", async || gateway.generation("keeper").await.filter(|number| *number == 2)).await;
    let page = gateway.get("/api/plugins/keeper/rehearsal").await.expect("a report");
    assert_eq!(page["report"]["messages"], 20, "{page}");
    assert_eq!((&page["report"]["new_failures"], &page["report"]["differing"]), (&0.into(), &0.into()), "{page}");
    assert_eq!(redis.ask::<u64>(&format!("GET {KEY}n")).await, Ok(20));
}

#[tokio::test]
async fn a_plugin_is_tried_without_redis_on_a_state_that_is_empty() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keeper.wasm");
    let sample = r#"{"name":"one","message":{"topic":"machine/M-1/do","captures":{"serial_no":"M-1"},"payload":"{\"do\":\"i\",\"key\":\"n\"}"},"expect":{"jobs":[{"payload":"1"}]}}"#;
    let samples = format!("[{sample},{}]", sample.replace("one", "another"));
    let guest = Guest { samples: Some(samples), ..Guest::stateful() };
    std::fs::write(&file, guest.handler()).expect("written");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(binary())
            .args(arguments)
            .current_dir(folder.path())
            .env_remove("RUST_LOG")
            .output()
            .expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, text) = run(&["plugin", "inspect", "keeper.wasm"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("needs        grants.state\n"), "{text}");
    let (code, text) = run(&["plugin", "test", "keeper.wasm"]);
    assert_eq!((code, text.contains("2 samples gave what they promise")), (Some(0), true), "{text}");
    let settings = "[plugins.keeper]\npath = \"keeper.wasm\"\ngrants = { state = true }\n[[routes]]\nname = \"keeper\"\n\
                    topic = \"machine/{serial_no}/do\"\nhandlers = [\"keeper\"]\n";
    std::fs::write(folder.path().join("sluicegate.toml"), settings).expect("written");
    let (code, text) = run(&["try", "machine/M-1/do", r#"{"do":"i","key":"n"}"#, "--config", "sluicegate.toml"]);
    assert_eq!((code, text.contains(r#""payload":1,"#)), (Some(0), true), "{text}");
}

#[tokio::test]
async fn the_redis_in_this_process_keeps_it_too() {
    let broker = Broker::start().await;
    let redis_port = sluicegate_tests::servers::free_port();
    let settings = format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[redis]\nurl = \"embedded\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [plugins.keeper]\npath = \"plugins/keeper.wasm\"\ngrants = {{ state = true }}\nlimits = {{ state_keys = 2, call_timeout = \"2s\" }}\n[[routes]]\n\
         name = \"keeper\"\ntopic = \"machine/{{serial_no}}/do\"\nhandlers = [\"keeper\"]\nattempts = 1\n",
        broker.port
    );
    let mut gateway =
        Gateway::with(&settings).env("SLUICEGATE_EMBEDDED_REDIS_LISTEN", &format!("127.0.0.1:{redis_port}"));
    gateway.install("keeper", &Guest::stateful().handler());
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for number in 0..50 {
        order(&machine, &format!("M-{number}"), 'i', "n").await;
    }
    for (what, key) in [('e', "a"), ('g', "a"), ('d', "a"), ('s', "b"), ('s', "c")] {
        order(&machine, "M-1", what, key).await;
    }
    gateway.counts(&[("pushed", 54), ("dead", 1), ("in_flight", 0)]).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{redis_port}")).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connected");
    let sum: u64 = redis::cmd("GET").arg(format!("{KEY}n")).query_async(&mut connection).await.expect("a sum");
    assert_eq!(sum, 50);
    let limit = Duration::from_secs(30);
    let stopped = tokio::time::timeout(limit, async {
        gateway.signal("TERM");
        gateway.ended().await
    });
    assert!(stopped.await.expect("in time").success());
}
