//! The HTTP server: commands given and looked up, tokens issued, rotated, revoked; how this program is.
//!
//! - `auth`: who may ask.
//! - `routes`: what is answered.

mod auth;
mod routes;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::commands::Commander;
use crate::machines::Machines;
use crate::metrics::Exporter;
use crate::settings::ApiToken;

/// What the answers are made from.
#[derive(Clone)]
pub struct Desk {
    /// What is so at the moment.
    pub board: Arc<Board>,
    /// Commands.
    pub commander: Commander,
    /// Tokens.
    pub machines: Machines,
    /// What `/metrics` shows; none: whoever embeds this program shows them, or nobody.
    pub exporter: Option<Exporter>,
    /// Who may ask.
    pub tokens: Arc<[ApiToken]>,
}

/// Serves until `stop`; answers under way are finished.
pub async fn run(listener: TcpListener, desk: Desk, stop: CancellationToken) {
    let serving = axum::serve(listener, routes::routes(desk)).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "the API stopped");
    }
}
