//! What would keep a gateway with these settings from starting, found without starting anything: no connection is made, no
//! port taken, nothing written and nothing locked, so that it can be asked beside a gateway that runs.

use std::net::SocketAddr;

use sluicegate_core::settings::{MqttUrl, RedisUrl, Settings};

use super::GatewayError;
use crate::redis::connect::Connector;
use crate::{embedded, mqtt, spool};

/// Every reason, in the order in which a start would meet them.
#[must_use]
pub fn check(settings: &Settings) -> Vec<GatewayError> {
    let mut reasons: Vec<GatewayError> = Vec::new();
    reasons.extend(spool::usable(&settings.spool.path).err().map(Into::into));
    match &settings.mqtt.url {
        MqttUrl::Embedded => reasons.extend(embedded::broker::listen().err().map(Into::into)),
        MqttUrl::At { .. } => reasons.extend(mqtt::connect::check(&settings.mqtt).err().map(Into::into)),
    }
    let address = match &settings.redis.url {
        RedisUrl::Embedded => embedded::resp::listen().map(Some),
        RedisUrl::At { .. } => Ok(None::<SocketAddr>),
    };
    match address {
        Ok(address) => reasons.extend(Connector::new(&settings.redis, address).err().map(Into::into)),
        Err(error) => reasons.push(error.into()),
    }
    reasons
}
