//! Whether broker and Redis answer, and what they grant; asked beside a gateway that may be running.

use std::io;

use sluicegate_core::keys::Keys;
use sluicegate_core::settings::{MqttUrl, RedisUrl, Settings};

use crate::mqtt::probe;
use crate::redis::connect::Connector;
use crate::telemetry::causes::with_causes;

/// A server that answers.
pub struct Good {
    /// What people call it.
    pub name: String,
    /// What it grants less of than the settings ask for, each after its name.
    pub less: Vec<String>,
}

/// Connects to both. Those that would run in the gateway's own process are not asked: there is nothing to reach yet.
///
/// # Errors
/// Where the system gives no event loop; what a server answers instead stands in its place.
pub fn ask(settings: &Settings) -> io::Result<Vec<Result<Good, String>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut answers = Vec::new();
        if let MqttUrl::At { host, port, .. } = &settings.mqtt.url {
            let name = settings.mqtt.name.clone();
            answers.push(match probe::less(settings).await {
                Ok(less) => Ok(Good { name, less }),
                Err(reason) => Err(format!("{name} at {host}:{port} does not take a connection: {reason}")),
            });
        }
        if let RedisUrl::At { host, port, .. } = &settings.redis.url {
            let keys = Keys::new(&settings.redis, &settings.queues, &settings.gateway.instance);
            let list = keys.queue(&settings.queues.incoming);
            let asked = async { Connector::new(&settings.redis, None)?.ask(&list).await };
            answers.push(match asked.await {
                Ok(()) => Ok(Good { name: "Redis".to_owned(), less: Vec::new() }),
                Err(fault) => {
                    Err(format!("Redis at {host}:{port} does not take a connection: {}", with_causes(&fault)))
                }
            });
        }
        answers
    }))
}
