//! Machines' tokens: read on one connection, and kept in memory as long as Redis tells of every change.
//!
//! A connection belongs to the runtime that made it: whoever asks must run on that of [`Keeper::run`], and that one must have one thread only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{RedisResult, Value};
use sluicegate_core::access::known::{Entry, Known};
use sluicegate_core::access::token::TokenHash;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::connect::{Connector, Link, RedisFault, Told};
use super::wire::Wire;
use crate::telemetry::board::Board;
use crate::telemetry::clock;

/// The field that EMQX's own Redis authenticator reads.
const FIELD: &str = "password_hash";
/// How often it is seen whether the connection still stands: a network that ends without a word would leave a revoked token known.
const LOOK: Duration = Duration::from_secs(1);
/// How long Redis may take to answer to that.
const ANSWER: Duration = Duration::from_secs(1);

/// What is kept in memory.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// So many machines.
    pub most: usize,
    /// So long.
    pub ttl: Duration,
}

/// The connection, as it is found.
#[derive(Clone)]
enum Standing {
    /// It is being made for the first time.
    Starting,
    Up(Wire),
    Down(String),
}

/// What is asked. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

struct Shared {
    /// All that stands before a serial number.
    prefix: String,
    /// The lock is held for a look only.
    known: Mutex<Known>,
    standing: watch::Receiver<Standing>,
    /// Somebody got no answer.
    trouble: Notify,
}

/// Makes the connection and looks after it.
pub struct Keeper {
    tokens: Tokens,
    connector: Connector,
    standing: watch::Sender<Standing>,
    link: Link,
    board: Arc<Board>,
}

/// Prepares both. `prefix` is all that stands before a serial number.
#[must_use]
pub fn prepare(connector: Connector, prefix: String, board: Arc<Board>) -> (Tokens, Keeper) {
    let (standing, receiver) = watch::channel(Standing::Starting);
    let shared = Shared { prefix, known: Mutex::default(), standing: receiver, trouble: Notify::new() };
    let tokens = Tokens(Arc::new(shared));
    let keeper = Keeper {
        tokens: tokens.clone(),
        connector,
        standing,
        link: Link::new(board.clone(), "machines' tokens"),
        board,
    };
    (tokens, keeper)
}

impl Keeper {
    /// Keeps the connection, for ever.
    pub async fn run(mut self) {
        loop {
            let gone = Arc::new(Notify::new());
            let fault = match self.connect(&gone).await {
                Err(fault) => fault,
                Ok((wire, told)) => {
                    if told {
                        self.tokens.0.known().begin();
                    }
                    self.board.set_access_told(told);
                    self.link.up();
                    self.standing.send_replace(Standing::Up(wire.clone()));
                    self.until_broken(wire, &gone).await
                }
            };
            self.tokens.0.known().end();
            self.board.set_access_told(false);
            let delay = self.link.down(&fault);
            self.standing.send_replace(Standing::Down(fault.to_string()));
            sleep(delay).await;
        }
    }

    /// A connection, and whether it is told of changes: where it is not, nothing is kept.
    async fn connect(&self, gone: &Arc<Notify>) -> Result<(Wire, bool), RedisFault> {
        let (shared, gone) = (self.tokens.0.clone(), gone.clone());
        let told = move |told| match told {
            // What is told of another's key changes nothing.
            Told::Changed(key) => {
                if let Some(serial_no) = key.strip_prefix(&shared.prefix) {
                    shared.known().changed(serial_no);
                }
            }
            Told::All => shared.known().all_changed(),
            Told::Gone => gone.notify_one(),
        };
        match self.connector.connect_told(&self.tokens.0.prefix, told).await? {
            Some(wire) => Ok((wire, true)),
            None => Ok((self.connector.connect().await?, false)),
        }
    }

    async fn until_broken(&self, mut wire: Wire, gone: &Notify) -> RedisFault {
        let shared = &self.tokens.0;
        loop {
            tokio::select! {
                () = gone.notified() => return RedisFault::Unavailable("the connection broke".to_owned()),
                () = shared.trouble.notified() => {}
                () = sleep(LOOK) => {}
            }
            let mut exists = redis::cmd("EXISTS");
            exists.arg(&shared.prefix);
            match timeout(ANSWER, exists.exec_async(&mut wire)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return RedisFault::answered(&shared.prefix, &error),
                Err(_) => return RedisFault::Unavailable("no answer in time".to_owned()),
            }
        }
    }
}

impl Tokens {
    /// What a machine has now, by Redis's own word: for a login. What is in memory may be older by the moment that Redis takes to tell of a
    /// change, and whoever logs in then stays.
    ///
    /// # Errors
    /// [`RedisFault`], also where there is no answer within this time.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn read(&self, serial_no: &str, keep: Keep, within: Duration) -> Result<Entry, RedisFault> {
        self.within(within, self.ask(serial_no, keep, false)).await
    }

    /// What a machine has, and whether that was known without asking: for one that was let in.
    ///
    /// # Errors
    /// [`RedisFault`], also where there is no answer within this time.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn find(&self, serial_no: &str, keep: Keep, within: Duration) -> Result<(Entry, bool), RedisFault> {
        // Whoever asks may have changed the token a moment ago: Redis's word of it stands in the socket then, before the question came.
        // This lets sockets be read, and the connection's task run, before anything is looked up.
        tokio::task::yield_now().await;
        if let Some(entry) = self.0.known().get(serial_no, clock::uptime()) {
            return Ok((entry, true));
        }
        Ok((self.within(within, self.ask(serial_no, keep, true)).await?, false))
    }

    async fn within(
        &self,
        within: Duration,
        asked: impl Future<Output = Result<Entry, RedisFault>>,
    ) -> Result<Entry, RedisFault> {
        timeout(within, asked).await.unwrap_or_else(|_| {
            self.0.trouble.notify_one();
            Err(RedisFault::Unavailable("Redis does not answer in time".to_owned()))
        })
    }

    /// `revoked`: one that has no token is kept, too. Of names that anybody may make up it would be a way to fill the memory.
    async fn ask(&self, serial_no: &str, keep: Keep, revoked: bool) -> Result<Entry, RedisFault> {
        let mut wire = self.wire().await?;
        let key = format!("{}{serial_no}", self.0.prefix);
        let at = self.0.known().moment();
        // Both formats in one round trip: the one that it is not is an error, and not of the connection.
        let (mut string, mut hash) = (redis::cmd("GET"), redis::cmd("HGET"));
        string.arg(&key);
        hash.arg(&key).arg(FIELD);
        let answers = wire.each([string, hash].into_iter()).await.map_err(|error| RedisFault::answered(&key, &error));
        let entry = answers.and_then(|answers| entry(&key, answers)).inspect_err(|_| self.0.trouble.notify_one())?;
        if revoked || matches!(entry, Entry::Token(_)) {
            self.0.known().put(serial_no, entry, at, clock::uptime() + keep.ttl, keep.most);
        }
        Ok(entry)
    }

    async fn wire(&self) -> Result<Wire, RedisFault> {
        let mut standing = self.0.standing.clone();
        loop {
            match &*standing.borrow_and_update() {
                Standing::Up(wire) => return Ok(wire.clone()),
                Standing::Down(reason) => return Err(RedisFault::Unavailable(reason.clone())),
                Standing::Starting => {}
            }
            if standing.changed().await.is_err() {
                return Err(RedisFault::Unavailable("the gateway shuts down".to_owned()));
            }
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token of a key, from its value as a string and as a hash; what is neither, or no SHA-256, is no token.
fn entry(key: &str, answers: Vec<RedisResult<Value>>) -> Result<Entry, RedisFault> {
    let mut found = Entry::Revoked;
    for answer in answers {
        match answer {
            Ok(Value::BulkString(text)) => {
                if let Some(hash) = str::from_utf8(&text).ok().and_then(TokenHash::read) {
                    found = Entry::Token(hash);
                }
            }
            Err(error) if error.code() != Some("WRONGTYPE") => return Err(RedisFault::answered(key, &error)),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(answers: &[&str]) -> Vec<RedisResult<Value>> {
        answers
            .iter()
            .map(|answer| redis::parse_redis_value(answer.as_bytes()).expect("RESP").extract_error())
            .collect()
    }

    #[test]
    fn either_format_is_a_token_and_nothing_else_is() {
        let hash = format!("$64\r\n{}\r\n", "a".repeat(64));
        let wrong = "-WRONGTYPE Operation against a key\r\n";
        let is_token = |answers: &[&str]| matches!(entry("k", parsed(answers)), Ok(Entry::Token(_)));
        assert!(is_token(&[&hash, wrong]) && is_token(&[wrong, &hash]));
        for answers in [[wrong, wrong], ["$-1\r\n", "$-1\r\n"], ["$5\r\nplain\r\n", wrong], [wrong, "$-1\r\n"]] {
            assert!(matches!(entry("k", parsed(&answers)), Ok(Entry::Revoked)), "{answers:?}");
        }
        for answer in ["-LOADING Redis is loading\r\n", "-NOPERM no\r\n", "-NOAUTH no\r\n"] {
            assert!(entry("k", parsed(&[answer, wrong])).is_err(), "{answer}");
        }
    }
}
