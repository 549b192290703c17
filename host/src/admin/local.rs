//! Who may change something.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;

use super::routes::{Route, answer};

/// The same route, answered to this machine alone.
pub(super) fn from_here<S: Clone + Send + Sync + 'static>(route: Route<S>) -> Route<S> {
    route.map(|answers| answers.layer(from_fn(from_this_machine)))
}

/// Changes have no password, so they are taken from this machine alone. A web page that a person of this machine looks at cannot
/// send JSON here: its browser asks first, and is not allowed to.
async fn from_this_machine(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        return answer(StatusCode::FORBIDDEN, "changes are taken from the gateway's own machine alone");
    }
    next.run(request).await
}
