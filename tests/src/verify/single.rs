//! What the machine of the single steps does, on whichever deployment: each as long as it takes, so whoever calls says how long that may be.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use crate::wire::{Packet, Wire};

/// The machine.
pub(super) const MACHINE: &str = "VERIFY-ONE";
/// How long a single message may take through everything.
pub(super) const SINGLE: Duration = Duration::from_secs(20);

/// Publishes a heartbeat, until the broker has it.
pub(super) async fn beat(wire: &mut Wire) -> io::Result<()> {
    let payload = br#"{"temperature":4.5,"current_page":1}"#;
    wire.publish(1, &format!("machine/{MACHINE}/heartbeat"), payload, false).await?;
    while wire.next().await? != Packet::Acknowledged(1) {}
    Ok(())
}

/// Subscribes to its commands, until the subscription stands.
pub(super) async fn subscribe(wire: &mut Wire) -> io::Result<()> {
    wire.subscribe(&format!("machine/{MACHINE}/command")).await?;
    while wire.next().await? != Packet::Subscribed {}
    Ok(())
}

/// Waits until this reboot reaches it.
pub(super) async fn reboot(wire: &mut Wire, message_id: &str) -> io::Result<()> {
    loop {
        if let Packet::Publish(identifier, payload) = wire.next().await? {
            if let Some(identifier) = identifier {
                wire.acknowledge(identifier).await?;
            }
            let told: Value = serde_json::from_slice(&payload).unwrap_or_default();
            if told["message_id"] == *message_id && told["command"] == "reboot" {
                return Ok(());
            }
        }
    }
}

/// Says that the command is done.
pub(super) async fn acknowledge(wire: &mut Wire, message_id: &str) -> io::Result<()> {
    let said = json!({ "message_id": message_id, "status": "ok" }).to_string();
    wire.publish(2, &format!("machine/{MACHINE}/command/ack"), said.as_bytes(), false).await
}
