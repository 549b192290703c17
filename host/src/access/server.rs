//! Connections: HTTP/1.1, kept alive. EMQX has `pool_size` of them, and asks on each one question after the other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::decide::Decider;

/// Beyond these the next ones wait in the system's queue. EMQX has 8 (`pool_size`) for each node and endpoint. A process may mostly have 1,024 files, and
/// whoever connects here must not take those that messages need.
const CONNECTIONS: usize = 256;
/// How long a connection may say nothing, and how long a request's head may take. What EMQX does not use for so long it makes anew.
const IDLE: Duration = Duration::from_secs(60);
/// A request's head.
const HEAD: usize = 16 << 10;
/// How long to wait where the system gives no connection: it has no file for it, say.
const RETRY: Duration = Duration::from_millis(100);

/// Answers, for ever.
#[expect(clippy::disallowed_methods, reason = "connections end with this loop, which the gateway awaits")]
pub(super) async fn run(listener: TcpListener, decider: Arc<Decider>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an answer to the broker failed; it takes that for no");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, decider.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "the system gives no connection for the broker's questions");
                    sleep(RETRY).await;
                }
            },
        }
    }
}

async fn serve(stream: TcpStream, decider: Arc<Decider>) {
    // Where the system refuses it answers are slower, and that is all.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let decider = decider.clone();
        async move { Ok::<_, Infallible>(decider.answer(request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HEAD).pipeline_flush(true);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection for the broker's questions ended");
    }
}
