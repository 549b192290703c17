//! What EMQX's HTTP authenticator and authorizer ask: who may log in, and who may do what. It has a thread of its own with a runtime of its
//! own, and a listener of its own: the admin server has no passwords.
//!
//! Invariant: every answer is 200, and says `deny` where nothing says `allow`. EMQX takes any other status, a time-out and what it cannot read
//! for "ignore", and asks the next one; so what cannot be decided is denied.
//!
//! - [`rules`]: what the settings say, swapped whole.
//! - `server`: connections.
//! - `request`: what EMQX sends.
//! - `decide`: the answer.

mod decide;
mod request;
pub mod rules;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::redis::tokens::{Keeper, Tokens};
use crate::telemetry::board::Board;
use crate::thread::Thread;
use decide::Decider;
use rules::Current;

/// Why nobody is answered.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The address is taken, or not of this machine.
    #[error("cannot listen on {address} (access.listen)")]
    Listen {
        /// The address of the settings.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No thread.
    #[error("the system gives no thread for the broker's questions")]
    Thread(#[source] std::io::Error),
}

/// Binds the address, then answers on a thread until `stop`.
///
/// # Errors
/// [`AccessError`], where it cannot listen.
pub fn start(
    address: SocketAddr,
    rules: Current,
    (tokens, keeper): (Tokens, Keeper),
    board: &Arc<Board>,
    stop: CancellationToken,
) -> Result<Thread, AccessError> {
    let listen = |source| AccessError::Listen { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    // One thread: `Tokens` needs it so.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AccessError::Thread)?;
    board.set_access(bound);
    let thread = Thread::spawn("access", move || {
        runtime.block_on(async {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                // Its end is a fault that the gateway answers.
                Err(error) => return tracing::error!(%error, "the broker's questions cannot be listened for"),
            };
            let decider = Arc::new(Decider::new(rules, tokens));
            tokio::select! {
                () = stop.cancelled() => {}
                () = keeper.run() => {}
                () = server::run(listener, decider) => {}
            }
        });
    })
    .map_err(AccessError::Thread)?;
    tracing::info!(address = %bound, "access listening");
    Ok(thread)
}
