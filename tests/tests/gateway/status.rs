//! What people and machines see of it.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use sluicegate_tests::gateway::binary;
use sluicegate_tests::servers::free_port;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn log_status_and_metrics_say_what_is_so_and_no_payload_is_logged() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    machine.publish("machine/M-1/heartbeat", r#"{"note":"xyzzy-secret"}"#).await;
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":"xyzzy-secret"}"#).await;
    redis.list_of("mqtt_incoming_jobs", 1).await;
    redis.list_of("mqtt_dead_letters", 1).await;
    let log = gateway.log();
    assert!(log.contains("Connected to Redis") && log.contains("Connected to EMQX"), "{log}");
    assert!(!log.contains("xyzzy"), "{log}");

    let status = gateway.get("/api/status").await.expect("a status");
    assert_eq!((&status["ready"], &status["instance"]), (&true.into(), &"gateway-1".into()));
    assert_eq!(status["routes"][0]["topic"], "machine/{serial_no}/heartbeat");
    let plugin = gateway.plugin("heartbeat").await.expect("a plugin");
    assert_eq!((&plugin["live"]["version"], &plugin["live"]["world"]), (&"0.1.0".into(), &"topic-handler".into()));
    assert!(plugin["live"]["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));

    let metrics = gateway.text("/metrics").await.expect("metrics");
    for line in [
        "sluicegate_uplink_received_total{route=\"heartbeat\"} 2",
        "sluicegate_uplink_pushed_total{route=\"heartbeat\"} 1",
        "sluicegate_uplink_dead_total{route=\"heartbeat\"} 1",
        "sluicegate_uplink_rejected_total{route=\"heartbeat\",reason=\"rejected\"} 1",
        "sluicegate_plugin_reloads_total{plugin=\"heartbeat\",step=\"live\",result=\"live\"} 1",
        "sluicegate_connection_up{connection=\"redis\"} 1",
        "sluicegate_plugin_call_seconds_count{plugin=\"heartbeat\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(metrics.contains("sluicegate_sink_batch_messages_bucket"), "{metrics}");
    assert_eq!(gateway.get("/nowhere").await.expect("JSON")["error"], "there is nothing here; see /api/openapi.json");
}

#[tokio::test]
async fn the_environment_alone_is_enough() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let (mqtt, cache) = (broker.port.to_string(), redis.port.to_string());
    let mut gateway = Gateway::without_settings(&[
        ("MQTT_BROKER_HOST", "127.0.0.1"),
        ("MQTT_BROKER_PORT", &mqtt),
        ("MQTT_GATEWAY_CLIENT_ID", "gw-7"),
        ("MQTT_REDIS_HOST", "127.0.0.1"),
        ("MQTT_REDIS_PORT", &cache),
    ]);
    // It has the address that it has unless it is told another: a test of another program may have it now.
    eventually("its address is free", async || TcpListener::bind("127.0.0.1:9090").ok().map(drop)).await;
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    machine.publish("machine/M-1/heartbeat", "{}").await;
    redis.list_of("mqtt_incoming_jobs", 1).await;
}

#[tokio::test]
async fn a_redis_that_evicts_lists_is_a_notice() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    redis.command("CONFIG SET maxmemory-policy allkeys-lru").await;
    let gateway = Gateway::start(broker.port, redis.port).await;
    gateway.says("maxmemory-policy allkeys-lru").await;
    assert_eq!(gateway.get("/readyz").await.expect("JSON")["ready"], true);
}

/// An orchestrator that restarts what is not healthy must not do so in the middle of an outage.
#[tokio::test]
async fn a_gateway_without_broker_and_redis_lives_and_is_not_ready() {
    let mut gateway = Gateway::with(&Gateway::settings(free_port(), free_port(), ""));
    gateway.spawn().await;
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("sluicegate.toml");
    fs::write(&file, format!("[admin]\nlisten = \"{}\"\n", gateway.address())).expect("written");
    // As in the image: what it asks is in the environment alone.
    let health = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("health").args(arguments).env("SLUICEGATE_CONFIG", &file).current_dir(folder.path());
        let Output { status, stdout, .. } = command.output().expect("it runs");
        (status.code(), String::from_utf8(stdout).expect("UTF-8"))
    };
    assert_eq!(health(&["--live"]), (Some(0), "alive\n".to_owned()));
    let (code, text) = health(&[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("not ready\n"), "{text}");
    gateway.kill();
    assert_eq!(health(&["--live"]).0, Some(4));
}

#[tokio::test]
async fn a_redis_that_comes_after_the_start_is_noticed_without_a_message() {
    let (broker, mut redis) = (Broker::start().await, RedisServer::start().await);
    redis.kill();
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, ""));
    gateway.spawn().await;
    gateway.says("redis: ").await;
    redis.restart().await;
    gateway.ready().await;
    let metrics = gateway.text("/metrics").await.expect("metrics");
    assert!(metrics.contains(r#"sluicegate_connection_up{connection="redis"} 1"#), "{metrics}");
}

/// Status and body of an answer to whoever asks for `host`.
async fn ask(gateway: &Gateway, method: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(gateway.address()).await.expect("the admin server listens");
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
}

#[tokio::test]
async fn the_admin_server_answers_as_its_description_says() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let description = gateway.get("/api/openapi.json").await.expect("a description");
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.len() > 8, "{paths:?}");
    for (path, operations) in paths {
        let real = path.replace("{id}", "0123456789abcdef").replace("{name}", "nobody");
        for (method, operation) in operations.as_object().expect("operations") {
            let method = method.to_uppercase();
            let (status, body) = ask(&gateway, &method, &real, "localhost").await;
            let expected = match (&*method, path.contains("{id}") || path.contains("{name}")) {
                // It asks for nothing that could be said wrong.
                ("POST", _) if path == "/api/settings/reload" => 200,
                ("POST", false) => 400,
                (_, true) => 404,
                _ => 200,
            };
            assert_eq!(status, expected, "{method} {path}: {body}");
            assert!(operation["responses"][status.to_string()].is_object(), "{method} {path} does not name {status}");
            let (status, body) = ask(&gateway, &method, &real, "evil.example").await;
            assert_eq!(status, 403, "{method} {path}: {body}");
            assert!(operation["responses"]["403"].is_object() && body.starts_with("{\"error\":"), "{path}: {body}");
        }
        assert_eq!(ask(&gateway, "DELETE", &real, "localhost").await.0, 405, "{path}");
    }
    assert_eq!(ask(&gateway, "GET", "/nowhere", "localhost").await.0, 404);
}
