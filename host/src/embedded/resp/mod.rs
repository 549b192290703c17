//! The embedded Redis-compatible server: RESP2, the commands that a gateway and a back end need to talk through lists, a
//! part of Lua for their scripts, and the commands with which client libraries open a connection. Owns the listener and what all connections share.

mod command;
mod connection;
mod frame;
mod script;
mod store;
mod waiting;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::Connection;
use self::store::{Millis, Store};
use super::{EmbeddedError, REDIS_LISTEN, announce, loopback_only};

const SERVER: &str = "Redis";
/// Connections at once.
const MAX_CLIENTS: usize = 1_000;
/// What all connections together may have read and not yet carried out.
const MAX_UNREAD: usize = 256 << 20;
/// How long to wait after the operating system refused a connection: usually it has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where it is to listen.
///
/// # Errors
/// [`EmbeddedError::Address`], [`EmbeddedError::NotLoopback`]: the environment names no address, or one that others reach.
pub fn listen() -> Result<SocketAddr, EmbeddedError> {
    super::listen(SERVER, REDIS_LISTEN, 6379)
}

/// Starts the server on `listen` (port 0: any free one) and answers where it listens. It runs in `tasks` until `stop`.
///
/// # Errors
/// [`EmbeddedError`]: not a loopback address, or one that cannot be had.
#[expect(clippy::disallowed_methods, reason = "the tracker is the gateway's")]
pub async fn start(
    listen: SocketAddr,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<SocketAddr, EmbeddedError> {
    loopback_only(SERVER, listen)?;
    let failed = |source| EmbeddedError::Bind { server: SERVER, address: listen, variable: REDIS_LISTEN, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let shared = Arc::new(Shared::new(address.port()));
    tasks.spawn(accept(listener, shared, tasks.clone(), stop));
    announce(SERVER, address);
    Ok(address)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((socket, _)) => serve(socket, &shared, &tasks, &stop),
            Err(error) => {
                tracing::warn!(%error, "the embedded Redis cannot take a connection");
                stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the tracker is the gateway's")]
fn serve(socket: TcpStream, shared: &Arc<Shared>, tasks: &TaskTracker, stop: &CancellationToken) {
    // Replies are written whole, so that waiting for more would only delay them.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection to the embedded Redis was lost at once");
        return;
    }
    let Some(seat) = Seat::take(shared) else {
        // A new socket's buffer has room for it; a client that is gone needs no answer.
        let _ = socket.try_write(b"-ERR max number of clients reached\r\n");
        return;
    };
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    tasks.spawn(async move {
        stop.run_until_cancelled(Connection::new(socket, shared).run()).await;
        drop(seat);
    });
}

/// What all connections share.
struct Shared {
    /// Held for one command at a time, never across a wait.
    store: Mutex<Store>,
    started: Instant,
    port: u16,
    clients: AtomicUsize,
    last_client: AtomicI64,
    unread: AtomicUsize,
}

impl Shared {
    fn new(port: u16) -> Self {
        Self {
            store: Mutex::default(),
            started: Instant::now(),
            port,
            clients: AtomicUsize::new(0),
            last_client: AtomicI64::new(0),
            unread: AtomicUsize::new(0),
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // A panic in one command must not take the other connections with it.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn next_client(&self) -> i64 {
        self.last_client.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// One of the places that [`MAX_CLIENTS`] allows.
struct Seat(Arc<Shared>);

impl Seat {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let seat = Self(Arc::clone(shared));
        // Dropped where there were too many, it gives back what it counted.
        (shared.clients.fetch_add(1, Ordering::Relaxed) < MAX_CLIENTS).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
