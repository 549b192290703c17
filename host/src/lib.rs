//! Sluicegate: a gateway between MQTT and Redis whose handlers are WebAssembly components.

pub mod embedded;
