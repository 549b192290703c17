//! Whether broker and Redis answer, and what they grant.

use sluicegate_core::keys::Keys;
use sluicegate_core::settings::{MqttUrl, RedisUrl, Settings};

use super::output::{Code, Failure};
use crate::mqtt::probe;
use crate::redis::connect::Connector;
use crate::telemetry::causes::with_causes;

/// A server that answers.
pub(super) struct Good {
    /// What people call it.
    pub(super) name: String,
    /// What it grants less of than the settings ask for, each after its name.
    pub(super) less: Vec<String>,
}

/// Connects to both. Those that would run in the gateway's own process are not asked: there is nothing to reach yet.
pub(super) fn ask(settings: &Settings) -> Result<Vec<Result<Good, String>>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Wrong, format!("the system gives no event loop: {error}"), ""))?;
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
