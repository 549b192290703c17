//! A server of HTTP or HTTPS that does what the path asks for, and remembers what it was asked.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Between two bytes of a server that is slow on purpose.
const DRIP: Duration = Duration::from_millis(50);

/// A running server. It answers `/bytes/N` with so many bytes, `/status/N` with that status (and a `Location` in another server),
/// `/fields/N` with so many header fields, `/echo` with the request's body, `/endless` without an end, `/cut` with half of what it promised, `/drip` a byte at
/// a time without an end; at `/silent` it never answers.
pub struct Web {
    /// Where it listens.
    pub port: u16,
    seen: Arc<Seen>,
    /// Ends when this is dropped.
    _accepting: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    made: AtomicUsize,
    open: AtomicUsize,
}

impl Web {
    /// Without TLS.
    ///
    /// # Panics
    /// Where it cannot listen.
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// With TLS, by `server.pem` and `server.key` of this folder.
    ///
    /// # Panics
    /// Where they are none.
    pub async fn start_with_tls(folder: &Path) -> Self {
        let chain =
            CertificateDer::pem_file_iter(folder.join("server.pem")).expect("a file").map(|one| one.expect("PEM"));
        let key = PrivateKeyDer::from_pem_slice(&fs::read(folder.join("server.key")).expect("a file")).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let config = config.with_no_client_auth().with_single_cert(chain.collect(), key).expect("they fit");
        Self::with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls) = (shared.clone(), tls.clone());
                connections.spawn(async move {
                    seen.made.fetch_add(1, Ordering::Relaxed);
                    seen.open.fetch_add(1, Ordering::Relaxed);
                    // Whoever goes away is no fault of the server.
                    let _ = match tls {
                        None => serve(stream, &seen).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &seen).await,
                            Err(error) => Err(error),
                        },
                    };
                    seen.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { port, seen, _accepting: accepting }
    }

    /// The requests that came, each with its head as it was sent and, where it had a body, that body's length.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections that were made.
    #[must_use]
    pub fn made(&self) -> usize {
        self.seen.made.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::Relaxed)
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Seen) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        // What is never answered is seen all the same.
        seen.requests.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
        let body = body(&mut stream, &head).await?;
        if !body.is_empty() {
            let length = body.len();
            let mut requests = seen.requests.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(request) = requests.iter_mut().rev().find(|request| **request == head) {
                request.push_str(&format!("{length} bytes"));
            }
        }
        answer(&mut stream, &head, &body).await?;
        stream.flush().await?;
    }
}

async fn body(stream: &mut (impl AsyncBufRead + Unpin), head: &str) -> io::Result<Vec<u8>> {
    let field = |name: &str| head.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned));
    if let Some(length) = field("content-length: ") {
        let mut body = vec![0; length.trim().parse().unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        return Ok(body);
    }
    let mut body = Vec::new();
    if field("transfer-encoding: ").is_none() {
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk).await?;
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &str, body: &[u8]) -> io::Result<()> {
    let path = head.split(' ').nth(1).unwrap_or("/");
    let path = path.split('?').next().unwrap_or(path);
    let (what, number) = path.rsplit_once('/').unwrap_or((path, ""));
    let number: usize = number.parse().unwrap_or(0);
    match (what, path) {
        ("/status", _) => {
            let answer = format!(
                "HTTP/1.1 {number} Such\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await
        }
        ("/fields", _) => {
            let fields: String = (0..number).map(|number| format!("X-{number}: y\r\n")).collect();
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n").as_bytes()).await
        }
        (_, "/echo") => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await?;
            stream.write_all(body).await
        }
        (_, "/endless") => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
            loop {
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
        (_, "/cut") => {
            let half = "x".repeat(50);
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{half}").as_bytes()).await?;
            stream.shutdown().await?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        (_, "/drip") => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            loop {
                stream.write_all(b"1\r\nx\r\n").await?;
                tokio::time::sleep(DRIP).await;
            }
        }
        // Until the other side has enough of it.
        (_, "/silent") => stream.read_u8().await.map(drop),
        _ => {
            let body = "x".repeat(number);
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n{body}").as_bytes()).await
        }
    }
}
