//! Redis behind TLS with a certificate authority of one's own, and behind a user of its own who may do no more than docs/redis.md says.

use std::fs;

use sluicegate_tests::certificates::certificates;
use sluicegate_tests::gateway::root;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};
use tempfile::TempDir;

/// The user that docs/redis.md makes for one of the two programs.
fn documented(user: &str) -> String {
    let text = fs::read_to_string(root().join("docs/redis.md")).expect("the page");
    let line = text.lines().map(str::trim).find(|line| line.starts_with(&format!("ACL SETUSER {user} ")));
    line.unwrap_or_else(|| panic!("docs/redis.md makes no user {user}")).to_owned()
}

fn settings(broker: &Broker, url: &str, more: &str) -> String {
    format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nname = \"EMQX\"\n[redis]\nurl = \"{url}\"\n{more}[admin]\nlisten = \"127.0.0.1:0\"\n",
        broker.port
    )
}

async fn both_ways(broker: &Broker, redis: &RedisServer) {
    let mut machine = Machine::connect(broker.port, "M-1", Some("machine/M-1/command")).await;
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":4}"#).await;
    let sale = r#"{"transaction_id":"T1","slot_no":1,"amount":1.5}"#;
    machine.publish("machine/M-1/transaction", sale).await;
    assert_eq!(redis.list_of("mqtt_incoming_jobs", 2).await.len(), 2);
    let command = r#"{"target":"M-1","command":"reboot","payload":{},"message_id":"1"}"#;
    redis.push("mqtt_outgoing_commands", &[command.to_owned()]).await;
    assert_eq!(machine.next().await.0, "machine/M-1/command");
}

#[tokio::test]
async fn redis_over_tls_with_an_authority_of_its_own_and_a_user_of_its_own() {
    let (broker, redis) = (Broker::start().await, RedisServer::start_with_tls(true).await);
    redis.command(&documented("sluicegate")).await;
    let url = format!("rediss://sluicegate:PASSWORD@localhost:{}", redis.tls_port());
    let file = |name: &str| redis.path(name).display().to_string();
    let files = format!(
        "ca_file = \"{}\"\nclient_cert_file = \"{}\"\nclient_key_file = \"{}\"\n",
        file("ca.pem"),
        file("client.pem"),
        file("client.key")
    );
    let mut gateway = Gateway::with(&settings(&broker, &url, &files));
    gateway.run().await;
    both_ways(&broker, &redis).await;
    let clients: String = redis.ask("CLIENT LIST").await.expect("a list");
    assert!(clients.lines().any(|line| line.contains("user=sluicegate")), "{clients}");
    let status = gateway.get("/api/status").await.expect("a status");
    assert_eq!(status["alarms"].as_object().map_or(0, serde_json::Map::len), 0, "{status:#}");
}

#[tokio::test]
async fn whom_nobody_vouches_for_is_not_spoken_to_and_the_log_says_why() {
    let (broker, redis) = (Broker::start().await, RedisServer::start_with_tls(false).await);
    let (other, url) = (TempDir::new().expect("a folder"), format!("rediss://localhost:{}", redis.tls_port()));
    certificates(other.path());
    let foreign = format!("ca_file = \"{}\"\n", other.path().join("ca.pem").display());
    for more in ["", &foreign] {
        let mut gateway = Gateway::with(&settings(&broker, &url, more));
        gateway.spawn().await;
        eventually("the log says why", async || {
            let log = gateway.log();
            log.contains("redis.ca_file must hold the certificate that signed its own").then_some(())
        })
        .await;
    }
    assert_eq!(redis.ask::<u64>("DBSIZE").await.expect("a number"), 0);
}

#[tokio::test]
async fn a_file_that_is_none_is_a_mistake_of_the_settings() {
    let broker = Broker::start().await;
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("empty.pem"), "").expect("written");
    for (file, part) in
        [("missing.pem", "(redis.ca_file): No such file"), ("empty.pem", "it holds no certificate in PEM")]
    {
        let more = format!("ca_file = \"{}\"\n", folder.path().join(file).display());
        let mut gateway = Gateway::with(&settings(&broker, "rediss://localhost:1", &more));
        gateway.launch();
        assert_eq!(gateway.ended().await.code(), Some(1));
        assert!(gateway.log().contains(part), "{}", gateway.log());
    }
}
