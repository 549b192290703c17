//! The embedded MQTT broker: MQTT 5 and 3.1.1, everything in memory. Owns its limits; the protocol is the library's.

use std::net::SocketAddr;

use mqtt5::broker::config::{StorageBackend, StorageConfig};
use mqtt5::broker::{BrokerConfig, MqttBroker};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{EmbeddedError, announce, loopback_only};

const SERVER: &str = "MQTT broker";
/// The gateway's largest message (1 MiB), and room for its topic and properties.
const MAX_PACKET: usize = (1 << 20) + (64 << 10);
/// For a session whose client is away: more than a try-out sends, less than a small machine's memory.
const MAX_QUEUED: usize = 1_000_000;
const MAX_QUEUED_BYTES: usize = 256 << 20;
/// Messages between the router and one client's connection; beyond it they go to the client's queue.
const CLIENT_CHANNEL: usize = 20_000;
/// As many as the gateway's default receive maximum lets be under way.
const IN_FLIGHT: u16 = 2_000;
const MAX_CLIENTS: usize = 10_000;

/// Where it is to listen.
///
/// # Errors
/// [`EmbeddedError::Address`], [`EmbeddedError::NotLoopback`]: the environment names no address, or one that others reach.
pub fn listen() -> Result<SocketAddr, EmbeddedError> {
    super::listen(SERVER, "SLUICEGATE_EMBEDDED_MQTT_LISTEN", 1883)
}

/// Starts the broker on `listen` (port 0: any free one) and answers where it listens. It runs in `tasks` until `stop`.
///
/// # Errors
/// [`EmbeddedError`]: not a loopback address, or one that cannot be had.
pub async fn start(
    listen: SocketAddr,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<SocketAddr, EmbeddedError> {
    loopback_only(SERVER, listen)?;
    let refused = |reason: String| EmbeddedError::Broker { address: listen, reason };
    let mut broker = MqttBroker::with_config(settings(listen)).await.map_err(|error| refused(error.to_string()))?;
    let address = broker.local_addr().ok_or_else(|| refused("it has no address".to_owned()))?;
    let shutdown = broker.shutdown_handle();
    let mut ready = broker.ready_receiver();
    let mut ready_to_stop = broker.ready_receiver();

    // The library starts the tasks of its connections itself, and `run` waits for them when it ends.
    tasks.spawn(async move {
        if let Err(error) = broker.run().await {
            tracing::error!(%error, "the embedded MQTT broker ended");
        }
    });
    tasks.spawn(async move {
        stop.cancelled().await;
        // Before it is ready nobody listens for the shutdown, and it would be lost.
        if ready_to_stop.wait_for(|ready| *ready).await.is_ok() {
            shutdown.shutdown();
        }
    });

    ready.wait_for(|ready| *ready).await.map_err(|_| refused("it ended before it was ready".to_owned()))?;
    announce(SERVER, address);
    Ok(address)
}

fn settings(listen: SocketAddr) -> BrokerConfig {
    let storage = StorageConfig::new()
        .with_backend(StorageBackend::Memory)
        .with_max_queued_messages_per_client(MAX_QUEUED)
        .with_max_queued_bytes_per_client(MAX_QUEUED_BYTES);
    BrokerConfig::new()
        .with_bind_address(listen)
        .with_max_clients(MAX_CLIENTS)
        .with_max_packet_size(MAX_PACKET)
        .with_client_channel_capacity(CLIENT_CHANNEL)
        .with_max_outbound_inflight(IN_FLIGHT)
        .with_sys_topics_enabled(false)
        .with_storage(storage)
}
