//! The settings: as written (a TOML file and the environment) and as resolved (what the rest of the program reads).

mod resolved;
mod units;

pub use resolved::{
    Admin, Commands, Gateway, Grants, Limits, Mqtt, MqttUrl, OnFailure, Plugin, Priority, Queues, Redis, RedisUrl,
    Route, Secret, Settings, Spool, Tls, WhenBehind,
};
pub use units::{ByteSize, UtcOffset};
