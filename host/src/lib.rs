//! Sluicegate: a gateway between MQTT and Redis whose handlers are WebAssembly components.
//!
//! The way of a message is told by the names of the modules; ARCHITECTURE.md is the map.

pub mod access;
pub mod admin;
pub mod cli;
pub mod dead_letters;
pub mod downlink;
pub mod embedded;
pub mod gateway;
pub mod live;
mod lock;
pub mod mqtt;
pub mod recent;
pub mod redis;
pub mod registry;
pub mod rehearsal;
pub mod sandbox;
pub mod settings;
pub mod spool;
pub mod telemetry;
pub mod thread;
pub mod tls;
pub mod uplink;
pub mod watch;
pub mod whole;
