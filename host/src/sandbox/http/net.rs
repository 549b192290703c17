//! The event loop that all plugins' connections are on, and the certificates that are trusted there.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Threads that look names up: the system's look-up cannot be cut off, so one that hangs holds a thread. Each build has few at once.
const MAX_LOOKUPS: usize = 64;

/// Starts when the first build may use it, and ends with the sandbox.
#[derive(Default)]
pub(in crate::sandbox) struct Net(Mutex<Option<Running>>);

struct Running {
    handle: Handle,
    tls: Arc<ClientConfig>,
    /// Dropped, the loop ends, and with it every connection.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Net {
    /// Where connections live, and what they trust: the system's certificates, as the gateway's own connections do.
    ///
    /// # Errors
    /// Where the system gives no event loop.
    pub(super) fn get(&self) -> io::Result<(Handle, Arc<ClientConfig>)> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            *running = Some(Running::start()?);
        }
        let running = running.as_ref().expect("invariant: it was started above");
        Ok((running.handle.clone(), running.tls.clone()))
    }
}

impl Running {
    #[expect(clippy::disallowed_methods, reason = "it is joined when the sandbox goes")]
    fn start() -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MAX_LOOKUPS).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            // Nothing is ever sent: it ends when the other side is dropped.
            let _ = runtime.block_on(stopped);
            // A look-up that hangs is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, tls: Arc::new(trusting()?), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}

fn trusting() -> io::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(why, "the system has no trusted certificates: plugins' calls to https:// servers will fail");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = versions.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
