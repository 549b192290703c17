//! Machines: they report, and acknowledge the commands that reach them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::Packet;
use rumqttc::{AsyncClient, Broker, Event, EventLoop, MqttOptions, PublishOptions};
use serde_json::{Value, json};
use tokio::time::sleep;

/// How often a machine reports.
const BEAT: Duration = Duration::from_secs(5);
/// Before it connects again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long it takes to do what it was told.
const WORK: Duration = Duration::from_millis(700);

pub(crate) fn serial_no(number: u32) -> String {
    format!("DEMO-{number:03}")
}

pub(crate) async fn run(number: u32, mqtt: SocketAddr) -> Result<()> {
    let serial_no = serial_no(number);
    let mut options = MqttOptions::new(serial_no.clone(), Broker::tcp(mqtt.ip().to_string(), mqtt.port()));
    options.set_keep_alive(30);
    let (client, events) = AsyncClient::builder(options).capacity(16).build();
    tokio::select! {
        result = report(&serial_no, &client) => result,
        result = commands(&serial_no, &client, events) => result,
    }
}

async fn report(serial_no: &str, client: &AsyncClient) -> Result<()> {
    for count in 0_u64.. {
        let (kind, payload) = match count % 4 {
            1 => (
                "transaction",
                json!({ "transaction_id": format!("{serial_no}-{count}"), "slot_no": 5, "amount": "35.00" }),
            ),
            3 => ("error", json!({ "error_code": "E042", "message": "slot jam", "slot_no": 7, "level": "warning" })),
            _ => ("heartbeat", json!({ "current_page": count, "temperature": 4.5 })),
        };
        publish(client, serial_no, kind, &payload).await?;
        sleep(BEAT).await;
    }
    Ok(())
}

async fn publish(client: &AsyncClient, serial_no: &str, kind: &str, payload: &Value) -> Result<()> {
    let topic = format!("machine/{serial_no}/{kind}");
    client.publish(topic, payload.to_string(), PublishOptions::new(QoS::AtLeastOnce)).await?;
    Ok(())
}

async fn commands(serial_no: &str, client: &AsyncClient, mut events: EventLoop) -> Result<()> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                client.try_subscribe(format!("machine/{serial_no}/command"), QoS::AtLeastOnce)?;
            }
            Ok(Event::Incoming(Packet::Publish(command))) => {
                println!("{serial_no:>12}  received      {}", String::from_utf8_lossy(&command.payload));
                let told: Option<Value> = serde_json::from_slice(&command.payload).ok();
                if let Some(id) = told.as_ref().and_then(|told| told["message_id"].as_str()) {
                    sleep(WORK).await;
                    // From here no answer can be awaited: this loop is who reads it.
                    let topic = format!("machine/{serial_no}/command/ack");
                    let said = json!({ "message_id": id, "status": "ok" }).to_string();
                    client.try_publish(topic, said, PublishOptions::new(QoS::AtLeastOnce))?;
                }
            }
            Ok(_) => {}
            Err(_) => sleep(AGAIN).await,
        }
    }
}
