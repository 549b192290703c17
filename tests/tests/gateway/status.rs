//! What people and machines see of it.

use sluicegate_tests::{Broker, Gateway, Machine, RedisServer};

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
        "sluicegate_plugin_reloads_total{plugin=\"heartbeat\",result=\"live\"} 1",
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
