//! What the integration tests stand on: real servers on free ports, the real gateway, machines that remember what was
//! acknowledged to them.
//!
//! Everything is killed when it is dropped. A server that is not installed fails the test: nothing is skipped.

pub mod backend;
pub mod backlog;
pub mod certificates;
pub mod chaos;
pub mod cluster;
pub mod compiled;
pub mod eventually;
pub mod gateway;
pub mod machine;
pub mod mariadb;
pub mod proxy;
pub mod servers;
pub mod swap;
pub mod verify;
pub mod web;
mod wire;

pub use backend::Backend;
pub use cluster::Cluster;
pub use eventually::eventually;
pub use gateway::Gateway;
pub use machine::Machine;
pub use mariadb::MariaDb;
pub use proxy::Proxy;
pub use servers::{Broker, RedisServer};
pub use web::Web;
