//! One client's connection: reads, carries out all commands that came, writes all replies at once. Owns the buffers and
//! the wait of a blocking command; what a command does is in `command`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::command::{Effect, Info, Session, Wait, execute};
use super::frame::{Decoder, Reply};
use super::waiting::{Served, Taken};
use super::{MAX_UNREAD, Shared};

/// What is read at once, at least.
const READ: usize = 16 << 10;
/// Replies are written when so much of them waits, even if more commands have come.
const WRITE: usize = 1 << 20;
/// What a client may send while it waits for an element; its end is seen only within this.
const READ_AHEAD: usize = 1 << 20;
/// A wait without a limit: no client lives as long.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why a connection ends.
enum End {
    /// By the client, or by a lost connection.
    Gone,
    /// By us, after the replies are written.
    Close,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

enum Event {
    Served(Option<Served>),
    TimedOut,
    Read(io::Result<usize>),
}

/// One client's connection.
pub(super) struct Connection {
    socket: TcpStream,
    shared: Arc<Shared>,
    decoder: Decoder,
    session: Session,
    input: BytesMut,
    output: BytesMut,
    /// What of `input` counts in `Shared::unread`.
    counted: usize,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, shared: Arc<Shared>) -> Self {
        let session = Session::new(shared.next_client());
        let decoder = Decoder::default();
        Self { socket, shared, decoder, session, input: BytesMut::new(), output: BytesMut::new(), counted: 0 }
    }

    /// Serves the client until it goes.
    ///
    /// # Cancel safety
    /// Dropped, the client is gone; elements taken for it may be lost, so only the server's end does that.
    pub(super) async fn run(mut self) {
        loop {
            let carried_out = self.carry_out().await;
            match carried_out {
                Ok(()) => {}
                Err(End::Gone) => return,
                Err(End::Close) => {
                    // The connection ends anyhow.
                    let _ = self.flush().await;
                    return;
                }
            }
            if self.flush().await.is_err() || self.read().await.is_err() {
                return;
            }
        }
    }

    /// All commands that came whole.
    async fn carry_out(&mut self) -> Result<(), End> {
        loop {
            let command = match self.decoder.next(&mut self.input) {
                Ok(Some(command)) => command,
                Ok(None) => return Ok(()),
                Err(error) => {
                    Reply::error(&error.to_string()).encode(&mut self.output);
                    return Err(End::Close);
                }
            };
            let effect = {
                let info = Info { port: self.shared.port, clients: self.shared.clients.load(Ordering::Relaxed) };
                let mut store = self.shared.store();
                let now = self.shared.now();
                let effect = execute(&mut self.session, &mut store, now, &info, command);
                store.serve(now);
                effect
            };
            match effect {
                Effect::Reply(reply) => reply.encode(&mut self.output),
                Effect::Close(reply) => {
                    reply.encode(&mut self.output);
                    return Err(End::Close);
                }
                Effect::Wait(wait) => self.wait(wait).await?,
            }
            if self.output.len() >= WRITE {
                self.flush().await?;
            }
        }
    }

    /// Waits for an element, as long as the client is there and its time is not over.
    async fn wait(&mut self, Wait { number, served, timeout }: Wait) -> Result<(), End> {
        let waited = self.wait_for(served, timeout).await;
        let served = match waited {
            Ok(served) => served,
            Err((mut served, gone)) => {
                let mut store = self.shared.store();
                let unserved = store.waiting.forget(number);
                // It was served in the very moment in which its time ended or it went.
                let last = if unserved { None } else { served.try_recv().ok() };
                match (last, gone) {
                    (last, false) => last.unwrap_or(Served { reply: Reply::NullArray, taken: None }),
                    (last, true) => {
                        if let Some(taken) = last.and_then(|served| served.taken) {
                            store.put_back(taken, self.shared.now());
                        }
                        return Err(End::Gone);
                    }
                }
            }
        };
        let Some(taken) = served.taken else {
            served.reply.encode(&mut self.output);
            return Ok(());
        };
        self.hand_over(&served.reply, taken).await
    }

    /// Gives an element to the client, or back to its list, where the client turns out to be gone.
    async fn hand_over(&mut self, reply: &Reply, taken: Taken) -> Result<(), End> {
        let gone = matches!(self.socket.try_read_buf(&mut self.input), Ok(0)) || {
            reply.encode(&mut self.output);
            self.flush().await.is_err()
        };
        if gone {
            self.shared.store().put_back(taken, self.shared.now());
            return Err(End::Gone);
        }
        Ok(())
    }

    /// On failure: the receiver back, and whether the client is gone.
    async fn wait_for(
        &mut self,
        mut served: oneshot::Receiver<Served>,
        timeout: Option<Duration>,
    ) -> Result<Served, (oneshot::Receiver<Served>, bool)> {
        if self.flush().await.is_err() {
            return Err((served, true));
        }
        let now = Instant::now();
        let deadline = now.checked_add(timeout.unwrap_or(FOREVER)).unwrap_or(now + FOREVER);
        loop {
            let room = self.input.len() < READ_AHEAD;
            self.input.reserve(READ);
            let event = tokio::select! {
                biased;
                served = &mut served => Event::Served(served.ok()),
                read = self.socket.read_buf(&mut self.input), if room => Event::Read(read),
                () = tokio::time::sleep_until(deadline) => Event::TimedOut,
            };
            match event {
                Event::Served(Some(served)) => return Ok(served),
                Event::Served(None) | Event::Read(Ok(0) | Err(_)) => return Err((served, true)),
                Event::TimedOut => return Err((served, false)),
                Event::Read(Ok(_)) => {
                    if self.count().is_err() {
                        return Err((served, true));
                    }
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), End> {
        self.input.reserve(READ);
        let read = self.socket.read_buf(&mut self.input).await?;
        if read == 0 {
            return Err(End::Gone);
        }
        self.count()
    }

    /// Keeps what all connections have read and not carried out within its bound.
    fn count(&mut self) -> Result<(), End> {
        let now = self.input.len();
        let unread = &self.shared.unread;
        let before = unread.fetch_add(now, Ordering::Relaxed);
        unread.fetch_sub(self.counted, Ordering::Relaxed);
        let total = before + now - self.counted;
        self.counted = now;
        if total > MAX_UNREAD {
            tracing::warn!(bytes = total, "the embedded Redis closes a connection: too many unfinished commands");
            return Err(End::Gone);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        if !self.output.is_empty() {
            self.socket.write_all(&self.output).await?;
            self.output.clear();
            if self.output.capacity() > WRITE {
                self.output = BytesMut::new();
            }
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.unread.fetch_sub(self.counted, Ordering::Relaxed);
    }
}
