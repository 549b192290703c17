//! A TCP proxy whose connections can be cut: what the network does.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Passes connections on to a port of this machine.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    cut: Arc<Notify>,
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
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let cut = cutting.clone();
                connections.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self { port, cut, _accepting: accepting }
    }

    /// Cuts every connection that stands now; new ones pass.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }
}
