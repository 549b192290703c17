//! Asks a broker what it would grant, beside a gateway that may be running: under a client id of its own, with a session that
//! ends with the connection.

use std::time::Duration;

use rumqttc::mqttbytes::v5::{ConnAck, DisconnectProperties, DisconnectReasonCode, Packet};
use rumqttc::{AsyncClient, Event};
use sluicegate_core::settings::Settings;
use tokio::time::timeout;

use super::connect::{self, Connect, MqttError};
use super::grants::{self, Asked};
use crate::telemetry::causes::with_causes;

/// For its answer to the CONNECT.
const ANSWER: Duration = Duration::from_secs(10);
/// For the DISCONNECT to be written.
const LAST: Duration = Duration::from_secs(2);

/// What the broker grants less of than these settings ask for, each after its name.
///
/// # Errors
/// Why there is no connection.
pub async fn less(settings: &Settings) -> Result<Vec<String>, String> {
    let connect = Connect {
        client_id: format!("{}-check-{}", settings.mqtt.client_id, std::process::id()),
        receive_maximum: settings.mqtt.receive_maximum,
        send_maximum: 1,
        requests: 4,
        session: true,
    };
    let made = |error: MqttError| with_causes(&error);
    let mut options = connect::options(&settings.mqtt, None, &connect).map_err(made)?;
    options.set_clean_start(true);
    let (client, mut events) = AsyncClient::builder(options)
        .capacity(connect.requests)
        .try_build()
        .map_err(|error| made(MqttError::Client(error.to_string())))?;
    let connack: ConnAck = loop {
        match timeout(ANSWER, events.poll()).await {
            Ok(Ok(Event::Incoming(Packet::ConnAck(connack)))) => break connack,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(with_causes(&error)),
            Err(_) => return Err(format!("no answer within {ANSWER:?}")),
        }
    };
    let end = DisconnectProperties {
        session_expiry_interval: Some(0),
        reason_string: None,
        user_properties: Vec::new(),
        server_reference: None,
    };
    if client.disconnect_with_properties(DisconnectReasonCode::NormalDisconnection, end).await.is_ok() {
        let _ = timeout(LAST, async { while events.poll().await.is_ok() {} }).await;
    }
    let mut less = Asked::of(settings).less(&connack);
    less.extend(grants::window(&connack, settings.commands.in_flight).1);
    Ok(less)
}
