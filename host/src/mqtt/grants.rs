//! What the broker grants less of than it was asked for: it is where messages are lost in silence.

use rumqttc::mqttbytes::v5::ConnAck;
use sluicegate_core::settings::Mqtt;

use crate::telemetry::board::Board;

/// The alarm.
const GRANTS: &str = "the broker grants less";

/// Looks at what the broker granted with a connection; `qos` is the highest that is subscribed with.
pub(super) fn look(mqtt: &Mqtt, qos: u8, connack: &ConnAck, board: &Board) {
    let Some(properties) = &connack.properties else { return };
    let mut less = Vec::new();
    let (expiry, packet) = (mqtt.session_expiry.as_secs(), mqtt.max_packet_size.0);
    if let Some(granted) = properties.session_expiry_interval
        && u64::from(granted) < expiry
    {
        less.push(format!("keeps the session {granted} s, where mqtt.session_expiry asks for {expiry} s"));
    }
    if let Some(granted) = properties.max_packet_size
        && u64::from(granted) < packet
    {
        less.push(format!("takes packets of {granted} bytes, where mqtt.max_packet_size says {packet}"));
    }
    if let Some(granted) = properties.max_qos
        && qos > granted
    {
        less.push(format!("has QoS {granted} at the most"));
    }
    let text = (!less.is_empty()).then(|| format!("{} {}", mqtt.name, less.join("; ")));
    if board.notice(GRANTS, text.as_deref())
        && let Some(text) = text
    {
        tracing::warn!("the broker grants less than was asked: {text}");
    }
}
