//! What the broker does beside passing messages on: it drops, it grants less than was asked, it wants to know who connects.

use std::fs;
use std::process::Command;

use sluicegate_tests::certificates::certificates;
use sluicegate_tests::servers::free_port;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};
use tempfile::TempDir;

async fn heartbeat_arrives(machine: &Machine, redis: &RedisServer) {
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":4}"#).await;
    redis.list_of("mqtt_incoming_jobs", 1).await;
}

#[tokio::test]
async fn a_broker_that_drops_messages_raises_an_alarm() {
    let broker = Broker::with("sys_interval 1\nmax_queued_messages 10").await;
    let redis = RedisServer::start().await;
    let gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    heartbeat_arrives(&machine, &redis).await;
    // Somebody else's session, whose queue runs over.
    let port = broker.port.to_string();
    let subscribe = ["-p", &port, "-i", "away", "-c", "-q", "1", "-t", "flood", "-E"];
    let subscribed = Command::new("mosquitto_sub").args(subscribe).status().expect("mosquitto_sub runs");
    assert!(subscribed.success());
    for number in 0..200 {
        machine.publish("flood", number.to_string()).await;
    }
    gateway.says("EMQX dropped ").await;
    let metrics = gateway.text("/metrics").await.expect("metrics");
    let counter =
        metrics.lines().find(|line| line.starts_with("sluicegate_broker_dropped_messages ")).expect("the counter");
    assert!(!counter.ends_with(" 0"), "{counter}");
}

#[tokio::test]
async fn a_broker_that_takes_smaller_packets_raises_an_alarm() {
    let broker = Broker::with("max_packet_size 20000").await;
    let redis = RedisServer::start().await;
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, ""));
    gateway.spawn().await;
    gateway.says("takes packets of 20000 bytes, where mqtt.max_packet_size says 1048576").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    heartbeat_arrives(&machine, &redis).await;
}

#[tokio::test]
async fn a_broker_that_takes_fewer_commands_at_once_is_no_fault_and_the_status_says_so() {
    let (broker, redis) = (Broker::with("max_inflight_messages 7").await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    eventually("the status says so", async || {
        let status = gateway.get("/api/status").await?;
        let connection = status["connections"].as_array()?.iter().find(|one| one["name"] == "mqtt-commands")?;
        connection["detail"].as_str()?.contains("takes 7 commands at once").then_some(())
    })
    .await;
    assert_eq!(gateway.get("/readyz").await.expect("an answer")["ready"], true);
}

#[tokio::test]
async fn a_broker_with_tls_and_passwords_is_spoken_to_and_one_of_another_authority_is_not() {
    let folder = TempDir::new().expect("a folder");
    certificates(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let users = at("users");
    let made = Command::new("mosquitto_passwd").args(["-b", "-c", &users, "gateway", "s3cret word"]).status();
    assert!(made.expect("mosquitto_passwd runs").success());
    let plain = free_port();
    let broker = Broker::with(&format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\npassword_file {users}\nlistener {plain} 127.0.0.1",
        at("ca.pem"),
        at("server.pem"),
        at("server.key"),
    ))
    .await;
    let redis = RedisServer::start().await;
    fs::write(folder.path().join("password"), "s3cret word\n").expect("written");
    let settings = |ca: &str| {
        format!(
            "[mqtt]\nurl = \"mqtts://localhost:{}\"\nusername = \"gateway\"\npassword = \"${{file:{}}}\"\nca_file = \"{ca}\"\n\
             client_cert_file = \"{}\"\nclient_key_file = \"{}\"\n[redis]\nurl = \"redis://127.0.0.1:{}\"\n[admin]\n\
             listen = \"127.0.0.1:0\"\n",
            broker.port,
            at("password"),
            at("client.pem"),
            at("client.key"),
            redis.port
        )
    };
    let mut gateway = Gateway::with(&settings(&at("ca.pem")));
    gateway.run().await;
    let mut machine = Machine::connect(plain, "M-1", Some("machine/M-1/command")).await;
    heartbeat_arrives(&machine, &redis).await;
    let command = r#"{"target":"M-1","command":"reboot","payload":[],"message_id":"1"}"#;
    redis.push("mqtt_outgoing_commands", &[command.to_owned()]).await;
    assert_eq!(machine.next().await.1, command);
    assert!(!gateway.log().contains("s3cret"), "{}", gateway.log());

    // The broker's certificate is not of this authority.
    let other = TempDir::new().expect("a folder");
    certificates(other.path());
    let mut deceived = Gateway::with(&settings(&other.path().join("ca.pem").display().to_string()));
    deceived.spawn().await;
    deceived.says("certificate").await;
    // What is wrong with a file is said with its key.
    let mut nowhere = Gateway::with(&settings("none.pem"));
    nowhere.spawn().await;
    nowhere.ended().await;
    eventually("it says which file", async || nowhere.log().contains("(mqtt.ca_file): No such file").then_some(()))
        .await;
}
