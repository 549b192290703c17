//! Trying it out with nothing installed: broker and Redis in the process.

use sluicegate_tests::servers::free_port;
use sluicegate_tests::{Gateway, Machine, eventually};

#[tokio::test]
async fn the_whole_way_works_on_the_embedded_servers() {
    let (mqtt, cache) = (free_port(), free_port());
    let settings = "[mqtt]\nurl = \"embedded\"\n[redis]\nurl = \"embedded\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let mut gateway = Gateway::with(settings)
        .env("SLUICEGATE_EMBEDDED_MQTT_LISTEN", &format!("127.0.0.1:{mqtt}"))
        .env("SLUICEGATE_EMBEDDED_REDIS_LISTEN", &format!("127.0.0.1:{cache}"));
    gateway.run().await;
    assert!(gateway.log().contains("never for production"), "{}", gateway.log());
    let mut machine = Machine::connect(mqtt, "M-1", Some("machine/M-1/command")).await;
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":12.30}"#).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{cache}")).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let job: String = eventually("the job is there", async || {
        redis::cmd("LINDEX")
            .arg("mqtt_incoming_jobs")
            .arg(0)
            .query_async::<Option<String>>(&mut connection)
            .await
            .expect("an answer")
    })
    .await;
    assert!(job.contains(r#""payload":{"temperature":12.30}"#), "{job}");
    let command = r#"{"target":"M-1","command":"reboot","payload":[],"message_id":"1"}"#;
    redis::cmd("RPUSH").arg("mqtt_outgoing_commands").arg(command).exec_async(&mut connection).await.expect("pushed");
    assert_eq!(machine.next().await.1, command);
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn the_embedded_servers_refuse_to_be_reached_from_elsewhere() {
    let mut gateway = Gateway::with("[redis]\nurl = \"embedded\"\n[admin]\nlisten = \"127.0.0.1:0\"\n")
        .env("SLUICEGATE_EMBEDDED_REDIS_LISTEN", "0.0.0.0:0");
    gateway.spawn().await;
    assert_eq!(gateway.ended().await.code(), Some(1));
    assert!(gateway.log().contains("which other machines can reach"), "{}", gateway.log());
}
