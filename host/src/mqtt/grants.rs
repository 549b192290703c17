//! What a broker grants less of than was asked for: it is where messages are lost in silence, or commands wait.

use rumqttc::mqttbytes::v5::ConnAck;
use sluicegate_core::settings::{Mqtt, Settings};

/// What the uplink connection asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    session_expiry: u64,
    max_packet: u64,
    /// The highest of the subscriptions.
    qos: u8,
}

impl Asked {
    pub(super) fn new(mqtt: &Mqtt, qos: u8) -> Self {
        Self { session_expiry: mqtt.session_expiry.as_secs(), max_packet: mqtt.max_packet_size.0, qos }
    }

    pub(super) fn of(settings: &Settings) -> Self {
        Self::new(&settings.mqtt, settings.routes.iter().map(|route| route.qos).max().unwrap_or_default())
    }

    /// Each thing that the broker grants less of, after its name.
    pub(super) fn less(&self, connack: &ConnAck) -> Vec<String> {
        let Some(properties) = &connack.properties else { return Vec::new() };
        let mut less = Vec::new();
        if let Some(granted) = properties.session_expiry_interval
            && u64::from(granted) < self.session_expiry
        {
            let asked = self.session_expiry;
            less.push(format!("keeps the session {granted} s, where mqtt.session_expiry asks for {asked} s"));
        }
        if let Some(granted) = properties.max_packet_size
            && u64::from(granted) < self.max_packet
        {
            let asked = self.max_packet;
            less.push(format!("takes packets of {granted} bytes, where mqtt.max_packet_size says {asked}"));
        }
        if let Some(granted) = properties.max_qos
            && self.qos > granted
        {
            less.push(format!("has QoS {granted} at the most"));
        }
        less
    }
}

/// How many commands the broker takes before it answered to one of them [MQTT 5, 3.2.2.3.3]; and, where that is less than
/// `in_flight`, the words for it.
pub(super) fn window(connack: &ConnAck, in_flight: usize) -> (usize, Option<String>) {
    let granted = connack.properties.as_ref().and_then(|properties| properties.receive_max);
    let most = usize::from(granted.unwrap_or(u16::MAX));
    let less =
        (most < in_flight).then(|| format!("takes {most} commands at once, where commands.in_flight is {in_flight}"));
    (most, less)
}
