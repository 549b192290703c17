//! Broker, Redis, database, gateway and back end, each in a process of its own; all end when this is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use super::rows::Rows;
use crate::gateway::{Gateway, component, plugins, route};
use crate::{Backend, Broker, MariaDb, RedisServer};

/// What the gateway does beyond the built-in settings: commands' results and acknowledgements reach the back end.
#[must_use]
pub fn settings() -> String {
    let routes: String = ["heartbeat", "error", "transaction"].map(|name| route(name, "")).concat();
    let names = ["heartbeat", "error", "transaction", "command-validation", "command-ack"];
    format!(
        r#"[queues]
command_results = "mqtt_command_results"
[commands]
validator = "command-validation"
{}{routes}[[routes]]
name = "command-ack"
type = "command_ack"
topic = "machine/{{serial_no}}/command/ack"
handlers = ["command-ack"]
"#,
        plugins(&names)
    )
}

/// All of it, and the folder of what they write.
pub(super) struct Stage {
    // Dropped in this order: whoever uses a server goes before it.
    pub(super) backend: Backend,
    pub(super) gateway: Gateway,
    pub(super) redis: RedisServer,
    pub(super) broker: Broker,
    _mariadb: Option<MariaDb>,
    pub(super) rows: Rows,
    folder: PathBuf,
}

impl Stage {
    /// Starts it.
    ///
    /// # Panics
    /// Where a server or the gateway does not start.
    pub(super) async fn start(folder: &Path, on_mariadb: bool) -> Result<Self, String> {
        let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(wrong)?;
        let file = folder.join("backend.db");
        // What an earlier run left would be counted.
        for ending in ["", "-wal", "-shm"] {
            match fs::remove_file(folder.join(format!("backend.db{ending}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(wrong(error)),
                _ => {}
            }
        }
        // A message is acknowledged once the gateway answered for it; what a broker keeps over its own end is not looked at here.
        let (broker, redis) = (Broker::start().await, RedisServer::start().await);
        let mariadb = if on_mariadb { Some(MariaDb::start().await) } else { None };
        let (url, rows) = match &mariadb {
            Some(mariadb) => (mariadb.url(), Rows::mysql(&mariadb.url())?),
            None => ("sqlite:backend.db".to_owned(), Rows::sqlite(&file)),
        };
        let backend = Backend::start(folder, redis.port, &url);
        let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &settings()))
            .keeping_logs(folder.to_owned(), "gateway");
        gateway.install("command-ack", &component("command-ack"));
        gateway.run().await;
        Ok(Self { backend, gateway, redis, broker, _mariadb: mariadb, rows, folder: folder.to_owned() })
    }

    /// Where the gateway's log stands once this is dropped.
    pub(super) fn gateway_log(&self) -> String {
        self.folder.join("gateway-1.log").display().to_string()
    }

    pub(super) fn backend_log(&self) -> String {
        self.backend.log_path().display().to_string()
    }

    /// How many jobs stand in the list, and how many the back end has under way.
    pub(super) async fn queue(&self, connection: &mut redis::aio::MultiplexedConnection) -> Option<(u64, u64)> {
        let mut lengths = redis::pipe();
        lengths.cmd("LLEN").arg("mqtt_incoming_jobs");
        lengths.cmd("LLEN").arg("{mqtt_incoming_jobs}:processing:backend-1");
        lengths.query_async(connection).await.ok()
    }
}
