//! Connections to the servers that were granted: a name is looked up once, every address of it is judged, and what was judged is what is
//! connected to.

use std::error::Error as StdError;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::select_ok;
use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use sluicegate_core::http::{Host, HttpGrant};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tower_service::Service;

use super::server;

/// To connect, with TLS. The call that waits for it mostly has less.
const MAX_TIME: Duration = Duration::from_secs(10);
/// Until the next address of a name is tried beside the one before (RFC 8305).
const NEXT: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;
/// Look-ups of one build at once: one that hangs holds a thread.
const MAX_LOOKUPS: usize = 2;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreached {
    #[error("it is not granted")]
    NotGranted,
    #[error("its name has no address")]
    Lookup(#[source] io::Error),
    #[error("its name leads to no address that it may be at")]
    Prohibited,
    #[error("it takes no connection")]
    Connect(#[source] io::Error),
    #[error("it did not take a connection in time")]
    Late,
}

type Failure = Box<dyn StdError + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// TCP, TLS where the scheme says so, and a limit of time over both.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<Dial>);

impl Connector {
    pub(super) fn new(grants: Arc<[HttpGrant]>, tls: Arc<ClientConfig>) -> Self {
        Self(HttpsConnector::from((Dial { grants, lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }, tls)))
    }
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<Dial> as Service<Uri>>::Response;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = self.0.call(uri);
        Box::pin(async { timeout(MAX_TIME, connected).await.unwrap_or_else(|_| Err(Unreached::Late.into())) })
    }
}

/// TCP alone.
#[derive(Clone)]
pub(super) struct Dial {
    grants: Arc<[HttpGrant]>,
    lookups: Arc<Semaphore>,
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { grants, lookups } = self.clone();
        Box::pin(async move {
            let grant = server(&grants, &uri).ok_or(Unreached::NotGranted)?;
            Ok(TokioIo::new(connect(grant, lookups).await?))
        })
    }
}

async fn connect(grant: &HttpGrant, lookups: Arc<Semaphore>) -> Result<TcpStream, Unreached> {
    let mut addresses = match &grant.host {
        Host::Address(address) => vec![SocketAddr::new(*address, grant.port)],
        Host::Name(name) => look_up(name.clone(), grant.port, lookups).await.map_err(Unreached::Lookup)?,
    };
    addresses.retain(|address| grant.may_be_at(address.ip()));
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() {
        return Err(Unreached::Prohibited);
    }
    let attempts = addresses.into_iter().zip(0..).map(|(address, place)| {
        Box::pin(async move {
            sleep(NEXT * place).await;
            TcpStream::connect(address).await
        })
    });
    let (stream, _) = select_ok(attempts).await.map_err(Unreached::Connect)?;
    // Requests are written in parts, and an answer is waited for.
    stream.set_nodelay(true).map_err(Unreached::Connect)?;
    Ok(stream)
}

async fn look_up(name: String, port: u16, lookups: Arc<Semaphore>) -> io::Result<Vec<SocketAddr>> {
    let place = lookups.acquire_owned().await.map_err(io::Error::other)?;
    let found = Handle::current().spawn_blocking(move || {
        // Whoever stops waiting does not end it.
        let _place = place;
        (name.as_str(), port).to_socket_addrs().map(Vec::from_iter)
    });
    found.await.map_err(io::Error::other)?
}
