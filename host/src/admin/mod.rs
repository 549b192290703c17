//! The admin HTTP server: health, metrics, status, plugins, settings, dead letters. It has a thread of its own, so that a slow scrape disturbs
//! nobody.

mod dead_letters;
mod local;
mod plugins;
mod refused;
mod routes;
mod settings;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::dead_letters::desk::Desk;
use crate::registry;
use crate::telemetry::board::Board;
use crate::telemetry::metrics::Exporter;

/// How often histograms are folded, whether or not anybody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why the admin server does not run.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken, or not of this machine.
    #[error("cannot listen on {address} (admin.listen)")]
    Listen {
        /// The address of the settings.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No thread.
    #[error("the system gives no thread for the admin server")]
    Thread(#[source] std::io::Error),
}

/// The running server.
pub struct Admin {
    address: SocketAddr,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

/// Who answers what is more than a look at the board.
pub struct Shown {
    /// Set once the gateway handles messages.
    pub letters: Arc<OnceLock<Desk>>,
    /// Which builds there are.
    pub plugins: registry::desk::Desk,
    /// Which settings are in force.
    pub settings: crate::settings::desk::Desk,
}

/// Binds the address, then serves on a thread.
///
/// # Errors
/// [`AdminError`], where it cannot listen.
#[expect(clippy::disallowed_methods, reason = "`Admin::stop` joins it")]
pub fn start(address: SocketAddr, board: Arc<Board>, exporter: Exporter, shown: Shown) -> Result<Admin, AdminError> {
    let listen = |source| AdminError::Listen { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminError::Thread)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let listener = match TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "the admin server cannot listen"),
                };
                let routes = routes::routes(board, exporter.clone(), shown, bound.ip().is_loopback());
                let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
                tokio::select! {
                    () = stopped.cancelled() => {}
                    served = axum::serve(listener, routes) => {
                        if let Err(error) = served {
                            tracing::error!(%error, "the admin server stopped");
                        }
                    }
                    () = upkeep(exporter) => {}
                }
            });
        })
        .map_err(AdminError::Thread)?;
    Ok(Admin { address: bound, stop, thread })
}

async fn upkeep(exporter: Exporter) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        exporter.upkeep();
    }
}

impl Admin {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; answers under way are cut.
    pub fn stop(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the admin server panicked");
        }
    }
}
