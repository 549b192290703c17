//! What a plugin publishes: where it was granted, before its message is acknowledged, beside commands.

use rumqttc::PublishOptions;
use rumqttc::mqttbytes::QoS;
use serde_json::Value;
use sluicegate_guests::Guest;
use sluicegate_tests::gateway::binary;
use sluicegate_tests::{Broker, Gateway, Machine, Proxy, RedisServer, eventually};

const JOBS: &str = "mqtt_incoming_jobs";
const DEAD: &str = "mqtt_dead_letters";

/// One plugin that publishes to the topics that the payloads name.
fn settings(mqtt: u16, redis: u16, more: &str) -> String {
    let own = format!(
        "[plugins.herald]\npath = \"plugins/herald.wasm\"\nprobation = {{ for = \"0s\" }}\nrehearse = {{ max_slowdown = 1000 }}\n\
         [plugins.herald.grants]\npublish = [\"machine/{{serial_no}}/config\", \"alerts/#\"]\n[[routes]]\nname = \"herald\"\n\
         topic = \"machine/{{serial_no}}/tell\"\nhandlers = [\"herald\"]\n{more}"
    );
    Gateway::settings(mqtt, redis, &own)
}

async fn start(mqtt: u16, redis: &RedisServer, more: &str) -> Gateway {
    let mut gateway = Gateway::with(&settings(mqtt, redis.port, more));
    gateway.install("herald", &Guest::publishing().handler());
    gateway.run().await;
    gateway
}

async fn tell(machine: &Machine, name: &str, how: &str, topic: &str, seq: u64) {
    let payload = format!(r#"{{"{how}":"{topic}","seq":{seq}}}"#);
    machine.publish(&format!("machine/{name}/tell"), payload).await;
}

fn seq(payload: &str) -> u64 {
    serde_json::from_str::<Value>(payload).expect("JSON")["seq"].as_u64().expect("a number")
}

async fn seqs(redis: &RedisServer) -> Vec<u64> {
    let payload = |job: &String| serde_json::from_str::<Value>(job).expect("JSON")["payload"].to_string();
    redis.list(JOBS).await.iter().map(|job| seq(&payload(job))).collect()
}

#[tokio::test]
async fn what_was_granted_reaches_the_machine_and_the_back_end() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(broker.port, &redis, "").await;
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/config")).await;
    let mut alerts = Machine::connect(broker.port, "alerts", Some("alerts/#")).await;
    tell(&machine, "M-1", "to", "machine/M-1/config", 0).await;
    tell(&machine, "M-1", "on", "alerts/door", 1).await;
    tell(&machine, "M-1", "tt", "machine/M-1/config", 2).await;
    tell(&machine, "M-1", "ko", "alerts/kept", 3).await;
    for expected in [0, 2, 2] {
        let (topic, payload) = machine.next().await;
        assert_eq!((topic.as_str(), seq(&payload)), ("machine/M-1/config", expected));
        assert_eq!(machine.expiry(), None);
    }
    for (topic, expected) in [("alerts/door", 1), ("alerts/kept", 3)] {
        let (to, payload) = alerts.next().await;
        assert_eq!((to.as_str(), seq(&payload)), (topic, expected));
    }
    redis.list_of(JOBS, 3).await;
    assert_eq!(seqs(&redis).await, [0, 2, 3]);
    gateway.counts(&[("pushed", 3), ("dropped", 1), ("in_flight", 0)]).await;
    // Only what was to be kept is kept.
    let mut late = Machine::connect(broker.port, "late", Some("alerts/#")).await;
    assert_eq!(late.next().await.0, "alerts/kept");
    let metrics = gateway.text("/metrics").await.expect("metrics");
    assert!(
        metrics.contains(r#"sluicegate_plugin_publications_total{plugin="herald",outcome="published"} 5"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_was_not_granted_is_a_dead_letter_and_reaches_nobody() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let _gateway = start(broker.port, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let mut all = Machine::connect(broker.port, "all", Some("#")).await;
    let topics = ["machine/M-2/config", "machine/M-1/command", "machine/+/config", "alerts/#", "$SYS/x", "", "other"];
    for topic in topics {
        tell(&machine, "M-1", "to", topic, 0).await;
    }
    tell(&machine, "M-1", "to", "alerts/end", 1).await;
    let reasons: Vec<String> = redis
        .list_of(DEAD, topics.len())
        .await
        .iter()
        .map(|letter| serde_json::from_str::<Value>(letter).expect("JSON")["reason"].to_string())
        .collect();
    for (reason, words) in reasons.iter().zip([
        "publishes to `machine/M-2/config`, which is not granted (grants.publish); a named level",
        "publishes to `machine/M-1/command`, which is not granted",
        "it holds a wildcard",
        "it holds a wildcard",
        "it begins with `$`",
        "it is empty",
        "publishes to `other`, which is not granted",
    ]) {
        assert!(reason.contains(words), "{reason}");
    }
    loop {
        let (topic, _) = all.next().await;
        match topic.as_str() {
            "machine/M-1/tell" => {}
            "alerts/end" => break,
            other => panic!("{other} was reached"),
        }
    }
    redis.list_of(JOBS, 1).await;
    assert_eq!(seqs(&redis).await, [1]);
}

#[tokio::test]
async fn while_the_broker_answers_nothing_the_message_is_parked_in_order_and_goes_on_when_it_does() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let proxy = Proxy::to(broker.port).await;
    let gateway = start(proxy.port, &redis, "attempts = 2\n").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let mut alerts = Machine::connect(broker.port, "alerts", Some("alerts/#")).await;
    // What the gateway sends is held: publications and acknowledgements.
    proxy.hold_requests(true);
    for number in 0..10 {
        tell(&machine, "M-1", "to", "alerts/door", number).await;
    }
    gateway.counts(&[("received", 10), ("spooled", 10), ("pushed", 0), ("in_flight", 0), ("dead", 0)]).await;
    proxy.hold_requests(false);
    gateway.counts(&[("spooled", 0), ("dead", 0), ("in_flight", 0)]).await;
    let arrived = seqs(&redis).await;
    let mut first = arrived.clone();
    first.dedup();
    assert_eq!(first, (0..10).collect::<Vec<_>>(), "in order: {arrived:?}");
    let (mut told, mut next) = (Vec::new(), 0);
    while next < 10 {
        let number = seq(&alerts.next().await.1);
        // At least once, and the first of each in order.
        assert!(number <= next, "{number} after {told:?}");
        next = next.max(number + 1);
        told.push(number);
    }
}

/// Neither side knows whether the broker has what was under way: it is published again, and its message is nobody's failure.
#[tokio::test]
async fn connections_that_break_while_it_is_published_cost_no_message() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let proxy = Proxy::to(broker.port).await;
    let gateway = start(proxy.port, &redis, "attempts = 3\n").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let mut alerts = Machine::connect(broker.port, "alerts", Some("alerts/#")).await;
    for number in 0..3 {
        proxy.hold_requests(true);
        tell(&machine, "M-1", "to", "alerts/door", number).await;
        eventually("it is under way", async || (gateway.messages().await?["in_flight"].as_u64()? > 0).then_some(()))
            .await;
        // With what was held.
        proxy.cut();
        proxy.hold_requests(false);
        while seq(&alerts.next().await.1) != number {}
        gateway.counts(&[("spooled", 0), ("dead", 0), ("in_flight", 0)]).await;
        // It may be published before the other connection stands, which would then be held back in the middle of its handshake.
        gateway.ready().await;
    }
    // Acknowledgements were cut off, too: what comes again is pushed again, and the first of each in order.
    let mut first = Vec::new();
    for number in seqs(&redis).await {
        if !first.contains(&number) {
            first.push(number);
        }
    }
    assert_eq!(first, [0, 1, 2]);
}

#[tokio::test]
async fn what_the_broker_refuses_is_tried_again_then_it_is_what_the_route_says() {
    let (broker, redis) = (Broker::with("max_packet_size 500\n").await, RedisServer::start().await);
    let gateway = start(broker.port, &redis, "attempts = 2\n").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    // With its topic once more it is larger than the broker takes.
    let payload = format!(r#"{{"to":"alerts/{}","seq":1}}"#, "x".repeat(250));
    machine.publish_with("machine/M-1/tell", payload, PublishOptions::new(QoS::AtLeastOnce)).await;
    let letter: Value = serde_json::from_str(&redis.list_of(DEAD, 1).await[0]).expect("JSON");
    assert_eq!(letter["attempts"], 2, "{letter}");
    let reason = letter["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("the broker does not take what the plugin publishes to `alerts/xxx"), "{reason}");
    assert!(reason.ends_with("the broker takes packets of 500"), "{reason}");
    gateway.counts(&[("dead", 1), ("pushed", 0), ("in_flight", 0)]).await;
}

/// Commands find their places, whatever plugins publish, and the other way round.
#[tokio::test]
async fn neither_commands_nor_publications_starve() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let more = "[commands]\nin_flight = 2\ntopic = \"machine/{target}/command\"\n";
    let gateway = start(broker.port, &redis, more).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let mut commands = Machine::connect(broker.port, "commands", Some("machine/+/command")).await;
    let mut alerts = Machine::connect(broker.port, "alerts", Some("alerts/#")).await;
    let all: Vec<String> = (0..200)
        .map(|number| format!(r#"{{"target":"M-{number}","command":"reboot","message_id":"{number}"}}"#))
        .collect();
    redis.push("mqtt_outgoing_commands", &all).await;
    for number in 0..200 {
        tell(&machine, &format!("M-{}", number % 50), "to", "alerts/door", number).await;
    }
    for _ in 0..200 {
        alerts.next().await;
        commands.next().await;
    }
    gateway.counts(&[("pushed", 200), ("in_flight", 0), ("dead", 0)]).await;
}

#[tokio::test]
async fn a_kill_between_publication_and_acknowledgement_repeats_and_loses_nothing() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = start(broker.port, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let mut alerts = Machine::connect(broker.port, "alerts", Some("alerts/#")).await;
    redis.freeze();
    for number in 0..10 {
        tell(&machine, &format!("M-{number}"), "to", "alerts/door", number).await;
    }
    let mut told = Vec::new();
    for _ in 0..10 {
        told.push(seq(&alerts.next().await.1));
    }
    gateway.kill();
    redis.kill();
    redis.restart().await;
    gateway.run().await;
    let jobs = eventually("all of them are pushed", async || {
        let jobs = seqs(&redis).await;
        (0..10).all(|number| jobs.contains(&number)).then_some(jobs)
    })
    .await;
    assert!(jobs.len() >= 10);
    told.sort_unstable();
    assert_eq!(told, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_grant_that_would_feed_itself_is_refused_at_the_check_and_at_a_reload() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(broker.port, &redis, "").await;
    let wrong = settings(broker.port, redis.port, "").replace("alerts/#", "machine/+/tell");
    std::fs::write(gateway.path("wrong.toml"), &wrong).expect("written");
    let check = std::process::Command::new(binary())
        .args(["check", "--config", "wrong.toml"])
        .current_dir(gateway.path(""))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned();
    assert_eq!(check.status.code(), Some(1), "{text}");
    assert!(text.contains("`machine/+/tell` overlaps `machine/{serial_no}/tell` of the route `herald`"), "{text}");
    std::fs::write(gateway.path("sluicegate.toml"), &wrong).expect("written");
    gateway.says("feed itself").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    tell(&machine, "M-1", "to", "alerts/door", 0).await;
    redis.list_of(JOBS, 1).await;
}

/// A grant that is taken away is gone with the edit: the same build, checked anew.
#[tokio::test]
async fn a_grant_that_is_taken_away_is_gone_at_once() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(broker.port, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    tell(&machine, "M-1", "to", "alerts/door", 0).await;
    redis.list_of(JOBS, 1).await;
    let less = settings(broker.port, redis.port, "").replace(", \"alerts/#\"", "");
    std::fs::write(gateway.path("sluicegate.toml"), less).expect("written");
    eventually("the next generation is live", async || {
        gateway.generation("herald").await.filter(|number| *number == 2)
    })
    .await;
    tell(&machine, "M-1", "to", "alerts/door", 1).await;
    assert!(redis.list_of(DEAD, 1).await[0].contains("not granted"));
}

#[tokio::test]
async fn what_is_only_tried_publishes_nothing() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(broker.port, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let mut alerts = Machine::connect(broker.port, "alerts", Some("alerts/#")).await;
    for number in 0..10 {
        tell(&machine, "M-1", "to", "alerts/door", number).await;
        alerts.next().await;
    }
    // In shadow.
    gateway.install("herald", &Guest::echo().handler());
    eventually("it is live", async || gateway.generation("herald").await.filter(|number| *number == 2)).await;
    let page = gateway.get("/api/plugins/herald/rehearsal").await.expect("a report");
    let difference = &page["report"]["differences"][0];
    assert_eq!(page["report"]["differing"], 10, "{page}");
    assert_eq!(difference["before"][0], r#"publishes on alerts/door: {"to":"alerts/door","seq":0}"#, "{page}");
    gateway.install("herald", &Guest::publishing().handler());
    eventually("it is live again", async || gateway.generation("herald").await.filter(|number| *number == 3)).await;
    // By hand.
    let tried = std::process::Command::new(binary())
        .args(["try", "machine/M-1/tell", r#"{"to":"alerts/door","seq":99}"#, "--config", "sluicegate.toml"])
        .current_dir(gateway.path(""))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&tried.stdout).into_owned();
    assert_eq!(tried.status.code(), Some(0), "{text}");
    assert!(text.contains("publish   alerts/door {\"to\":\"alerts/door\",\"seq\":99}\n"), "{text}");
    tell(&machine, "M-1", "to", "alerts/door", 100).await;
    assert_eq!(seq(&alerts.next().await.1), 100, "nothing came in between");
}
