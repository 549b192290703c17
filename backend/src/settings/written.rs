//! The settings file as it is written. Texts may hold `${…}`; what a key means is said in `config/backend.toml`.

#![expect(missing_docs, reason = "each key is documented in config/backend.toml and docs/backend.md")]

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Written {
    pub listener: Listener,
    pub redis: Redis,
    pub queues: Queues,
    pub types: Types,
    pub database: Database,
    pub commands: Commands,
    pub alerts: Alerts,
    pub api: Api,
    pub machines: Machines,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    pub instance: Option<String>,
    pub batch: Option<u64>,
    pub workers: Option<u64>,
    pub attempts: Option<u64>,
    pub unknown_types: Option<String>,
    pub unknown_machines: Option<String>,
    pub alert_levels: Option<Vec<String>>,
    pub keeps_stock: Option<Vec<String>>,
    pub shutdown_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    pub url: Option<String>,
    pub ca_file: Option<String>,
    pub client_cert_file: Option<String>,
    pub client_key_file: Option<String>,
    pub key_prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queues {
    pub incoming: Option<String>,
    pub outgoing: Option<String>,
    pub command_results: Option<String>,
    pub dead_letters: Option<String>,
    pub dead_letters_max: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Types {
    pub heartbeat: Option<String>,
    pub error: Option<String>,
    pub transaction: Option<String>,
    pub command_ack: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    pub url: Option<String>,
    pub migrate: Option<bool>,
    pub time_zone: Option<String>,
    pub max_connections: Option<u64>,
    pub timeout: Option<String>,
    pub tables: BTreeMap<String, String>,
    pub columns: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    pub expiry: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    pub webhook: Option<String>,
    pub secret: Option<String>,
    pub timeout: Option<String>,
    pub window: Option<String>,
    pub attempts: Option<u64>,
    pub offline_after: Option<String>,
    pub offline_every: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    pub listen: Option<String>,
    pub tokens: Vec<ApiToken>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiToken {
    pub name: String,
    pub sha256: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machines {
    pub auth_format: Option<String>,
    pub auth_key: Option<String>,
    pub reserved: Option<Vec<String>>,
}
