//! A TCP proxy whose connections can be cut, or stand while nothing passes: what the network does.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Passes connections on to a port of this machine.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    cut: Arc<Notify>,
    requests: watch::Sender<bool>,
    answers: watch::Sender<bool>,
    /// Ends when this is dropped.
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// To this port.
    ///
    /// # Panics
    /// Where it cannot listen.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let cut = Arc::new(Notify::new());
        let cutting = cut.clone();
        let (requests, forth) = watch::channel(false);
        let (answers, back) = watch::channel(false);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (cut, forth, back) = (cutting.clone(), forth.clone(), back.clone());
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                    let both = async { tokio::join!(pass(from_near, to_far, forth), pass(from_far, to_near, back)) };
                    tokio::select! {
                        // What was held when it is cut does not pass.
                        biased;
                        () = cut.notified() => {}
                        ((), ()) = both => {}
                    }
                });
            }
        });
        Self { port, cut, requests, answers, _accepting: accepting }
    }

    /// Cuts every connection that stands now; new ones pass.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// Holds back what is sent from now on, or lets it pass.
    pub fn hold_requests(&self, hold: bool) {
        self.requests.send_replace(hold);
    }

    /// Holds back what the server sends from now on, or lets it pass.
    pub fn hold_answers(&self, hold: bool) {
        self.answers.send_replace(hold);
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut held: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if held.wait_for(|held| !held).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
