//! Commands: noted in the database, pushed to the gateway's list, followed to their end.
//!
//! A command is a row first. What is not pushed yet is pushed by whoever looks next, in the order in which commands were given, so that one
//! that was accepted is pushed or expires, whatever dies in between. It may be pushed twice then: the gateway sends a `message_id` once.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use sluicegate_core::json;
use sluicegate_core::topic::check_target;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Patience};
use crate::clock;
use crate::database::Database;
use crate::database::fault::Fault;
use crate::database::statements::commands::{self, New};
use crate::database::statements::machines;
use crate::domain::id::message_id;
use crate::redis::connect::{Connector, RedisFault};
use crate::redis::lists::Keeper;
use crate::redis::push::Pusher;

/// The longest name of a command, in characters.
const MAX_NAME: usize = 128;
/// The largest payload, in bytes.
const MAX_PAYLOAD: usize = 256 << 10;
/// The longest life that a command may be given.
const MAX_EXPIRY: Duration = Duration::from_hours(365 * 24);
/// Commands in one push.
const PAGE: i64 = 100;
/// How long whoever gives a command waits for it to be pushed.
const PUSH: Duration = Duration::from_secs(2);
/// How often those are looked for that nobody pushed.
const LOOK: Duration = Duration::from_secs(1);
/// How long after its time a command expires by itself, where nobody told what became of it: the gateway's word may be on its way.
const GRACE: Duration = Duration::from_mins(1);

/// Why a command is not given.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// What was asked for is wrong in itself.
    #[error("{0}")]
    Wrong(String),
    /// There is no such machine.
    #[error("no machine has the serial number `{0}`")]
    NoMachine(String),
    /// The system gives no randomness for an id.
    #[error("the system gives no randomness: {0}")]
    Random(#[from] std::io::Error),
    /// It may be noted.
    #[error(transparent)]
    Database(#[from] Fault),
}

/// A command, as it stands.
#[derive(Debug, Serialize)]
pub struct Command {
    /// Its id.
    pub message_id: String,
    /// For whom.
    pub serial_no: String,
    /// What to do.
    pub command: String,
    /// With what.
    pub payload: Box<RawValue>,
    /// How it stands: `queued`, `sent`, `acknowledged`, `rejected`, `expired`.
    pub state: String,
    /// Why, where somebody said.
    pub reason: Option<String>,
    /// When it was given.
    pub created_at: Option<Timestamp>,
    /// When it was put into the gateway's list.
    pub pushed_at: Option<Timestamp>,
    /// When the broker had it.
    pub sent_at: Option<Timestamp>,
    /// When it ended.
    pub settled_at: Option<Timestamp>,
    /// Until when it may be sent.
    pub expires_at: Option<Timestamp>,
}

/// Gives commands.
#[derive(Clone)]
pub struct Commander {
    database: Database,
    /// One push at a time, so that they go out in their order.
    pusher: Arc<Mutex<Pusher>>,
    expiry: Duration,
    given: Arc<Notify>,
}

/// Why commands are not pushed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] RedisFault),
    #[error(transparent)]
    Database(#[from] Fault),
}

impl Commander {
    /// To the gateway's list, by its whole key. `expiry` is the life of a command that names none.
    #[must_use]
    pub fn new(database: Database, redis: Connector, list: String, expiry: Duration) -> Self {
        let pusher = Arc::new(Mutex::new(Pusher::new(redis, list, None)));
        Self { database, pusher, expiry, given: Arc::default() }
    }

    /// Gives a machine a command; gives back its id once it is noted. It is pushed at once where Redis is there, else as soon as it is.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_command(
        &self,
        serial_no: &str,
        command: &str,
        payload: &str,
        expires_in: Option<Duration>,
    ) -> Result<String, SendError> {
        check_target(serial_no).map_err(|error| SendError::Wrong(error.to_string().replace("target", "serial_no")))?;
        let name = command.chars().count();
        if !(1..=MAX_NAME).contains(&name) || command.chars().any(char::is_control) {
            return Err(SendError::Wrong(format!(
                "`command` must be 1 to {MAX_NAME} characters, none of them a control"
            )));
        }
        if payload.len() > MAX_PAYLOAD {
            return Err(SendError::Wrong(format!("`payload` has {} bytes; {MAX_PAYLOAD} are the most", payload.len())));
        }
        json::check(payload.as_bytes()).map_err(|error| SendError::Wrong(format!("`payload` is {error}")))?;
        let expiry = expires_in.unwrap_or(self.expiry);
        if expiry.is_zero() || expiry > MAX_EXPIRY {
            return Err(SendError::Wrong("`expires_in` must be more than nothing and no more than a year".to_owned()));
        }
        let now = clock::now();
        let id = message_id(now, clock::secret()?);
        // Invariant: a year from now is a time.
        let expires_at = now.checked_add(expiry).unwrap_or(now);
        let new = New { message_id: &id, serial_no, command, payload, expires_at };
        self.database.within(self.note(&new, now)).await?;
        // Whoever gave it need not wait for a Redis that hangs: the next look pushes it.
        match tokio::time::timeout(PUSH, self.push()).await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => tracing::warn!(%trouble, message_id = id, "a command is noted and not pushed yet"),
            Err(_) => {
                tracing::warn!(message_id = id, "a command is noted and not pushed yet: no answer within {PUSH:?}")
            }
        }
        self.given.notify_one();
        Ok(id)
    }

    async fn note(&self, new: &New<'_>, now: Timestamp) -> Result<(), Fault> {
        let (tongue, zone) = (self.database.tongue(), self.database.zone());
        let mut session = self.database.begin().await?;
        session.execute(&commands::create(tongue, zone, new, &zone.write(now))).await?;
        session.commit().await
    }

    /// Whether there is such a machine.
    ///
    /// # Errors
    /// [`SendError::NoMachine`], or what the database says.
    pub async fn expect_machine(&self, serial_no: &str) -> Result<(), SendError> {
        let looking = async {
            let mut session = self.database.read().await?;
            let rows = session.rows(&machines::find(self.database.tongue(), [serial_no])).await?;
            session.commit().await?;
            Ok(!rows.is_empty())
        };
        match self.database.within(looking).await? {
            true => Ok(()),
            false => Err(SendError::NoMachine(serial_no.to_owned())),
        }
    }

    /// How a command stands; none: there is none of that id.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn find(&self, message_id: &str) -> Result<Option<Command>, Fault> {
        let (tongue, zone) = (self.database.tongue(), self.database.zone());
        let looking = async {
            let mut session = self.database.read().await?;
            let rows = session.rows(&commands::find(tongue, message_id)).await?;
            session.commit().await?;
            let Some(row) = rows.first() else { return Ok(None) };
            let time = |column| Ok::<_, Fault>(row.text(column)?.and_then(|text| zone.read(&text)));
            let payload = row.must_text(2)?;
            Ok(Some(Command {
                message_id: message_id.to_owned(),
                serial_no: row.must_text(0)?,
                command: row.must_text(1)?,
                payload: RawValue::from_string(payload)
                    .map_err(|error| Fault::Away(format!("the payload of a command is no JSON: {error}")))?,
                state: row.must_text(3)?,
                reason: row.text(4)?,
                created_at: time(5)?,
                pushed_at: time(6)?,
                sent_at: time(7)?,
                settled_at: time(8)?,
                expires_at: time(9)?,
            }))
        };
        self.database.within(looking).await
    }

    /// Pushes what is not pushed yet.
    async fn push(&self) -> Result<(), Trouble> {
        let mut pusher = self.pusher.lock().await;
        while self.push_page(&mut pusher).await? {}
        Ok(())
    }

    /// One transaction; true: there may be more. The rows are this one's until the list has the commands, so that two processes push in turn.
    async fn push_page(&self, pusher: &mut Pusher) -> Result<bool, Trouble> {
        let (tongue, zone, now) = (self.database.tongue(), self.database.zone(), clock::now());
        let reading = async {
            let mut session = self.database.begin().await?;
            let rows = session.rows(&commands::to_push(tongue, PAGE)).await?;
            Ok((session, rows))
        };
        let (mut session, rows) = self.database.within(reading).await?;
        let (mut ids, mut entries) = (Vec::new(), Vec::new());
        for row in &rows {
            ids.push(row.must_int(0)?);
            let expires_at = row.text(5)?.and_then(|text| zone.read(&text));
            // One whose time is over expires as any other: it is not sent late.
            if expires_at.is_none_or(|at| at > now) {
                let payload = row.must_text(4)?;
                entries.push(entry(&row.must_text(2)?, &row.must_text(3)?, &payload, &row.must_text(1)?, expires_at));
            }
        }
        if ids.is_empty() {
            return Ok(false);
        }
        pusher.push(&entries).await?;
        let noting = async {
            session.execute(&commands::pushed(tongue, &ids, &zone.write(clock::now()))).await?;
            session.commit().await
        };
        self.database.within(noting).await?;
        Ok(i64::try_from(ids.len()).is_ok_and(|count| count == PAGE))
    }

    async fn expire(&self) -> Result<u64, Fault> {
        let (tongue, zone, now) = (self.database.tongue(), self.database.zone(), clock::now());
        let before = zone.write(now.checked_sub(GRACE).unwrap_or(now));
        let expiring = async {
            let mut session = self.database.begin().await?;
            let expired = session.execute(&commands::expire(tongue, &before, &zone.write(now))).await?;
            session.commit().await?;
            Ok(expired)
        };
        self.database.within(expiring).await
    }
}

/// Pushes what others could not, and lets expire what nobody tells of, until `stop`. While `results` hold something nobody has read what was told; none: nobody
/// reads it here.
pub async fn run(commander: Commander, mut results: Option<Keeper>, board: Arc<Board>, stop: CancellationToken) {
    let mut patience = Patience::new(&board, "pushing commands");
    loop {
        let done = async {
            commander.push().await?;
            let all_read = match &mut results {
                Some(results) => results.is_empty().await?,
                None => true,
            };
            if all_read {
                commander.expire().await?;
            }
            Ok::<_, Trouble>(())
        };
        let delay = match done.await {
            Ok(()) => {
                patience.good();
                LOOK
            }
            Err(trouble) => patience.bad(&trouble),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
            () = commander.given.notified() => {}
        }
    }
}

/// An entry of the gateway's list. The payload's bytes are the sender's.
fn entry(target: &str, command: &str, payload: &str, message_id: &str, expires_at: Option<Timestamp>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let expires = expires_at.map_or_else(String::new, |at| format!(r#","expires_at":"{at}""#));
    format!(
        r#"{{"target":{},"command":{},"payload":{payload},"message_id":{}{expires}}}"#,
        quoted(target),
        quoted(command),
        quoted(message_id),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_the_gateway_reads() {
        let at: Timestamp = "2026-04-14T01:00:00Z".parse().expect("a time");
        let entry = entry("M-\"1", "dispense", r#"{"amount":12.30}"#, "ID", Some(at));
        let command = sluicegate_core::command::Command::parse(entry.clone().into()).expect("a command");
        assert_eq!(
            (command.target.as_str(), command.name.as_str(), command.message_id.as_str()),
            ("M-\"1", "dispense", "ID")
        );
        assert_eq!(command.payload(), r#"{"amount":12.30}"#);
        assert_eq!(command.expires, Some(sluicegate_core::command::Expires::At(at)));
    }
}
