//! Machines' tokens: issued, rotated, revoked. The database keeps the hash; Redis has it at the same moment, for the broker.
//!
//! - [`token`]: secrets and their hashes.
//! - [`doctor`]: whether Redis has what the database says.

pub mod doctor;
pub mod token;

use std::collections::BTreeSet;
use std::sync::Arc;

use sluicegate_core::topic::{TargetError, check_target};
use tokio::sync::Mutex;

use crate::clock;
use crate::database::Database;
use crate::database::fault::Fault;
use crate::database::session::Session;
use crate::database::statements::machines;
use crate::redis::auth::Auth;
use crate::redis::connect::RedisFault;
use token::Token;

/// Why a token is not issued, rotated or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A serial number that is no level of a topic: its machine could reach others'.
    #[error("{}", .0.to_string().replace("target", "serial_no"))]
    SerialNo(#[from] TargetError),
    /// The gateway's own name at the broker: its machine could take over the gateway's session.
    #[error("the serial number `{0}` is the gateway's own name at the broker (machines.reserved)")]
    Reserved(String),
    /// It has one.
    #[error("the machine `{0}` has a token; rotate it, or revoke it first")]
    HasOne(String),
    /// There is no such machine, or it has no token.
    #[error("the machine `{0}` has no token")]
    HasNone(String),
    /// The database takes two names for one; the broker does not.
    #[error(
        "the database takes `{asked}` for the machine `{found}`, and the broker does not: ask for `{found}`, or give the column \
         a binary collation that heeds blanks at the end (utf8mb4_nopad_bin on MariaDB, utf8mb4_0900_bin on MySQL 8)"
    )]
    Other {
        /// As it was asked for.
        asked: String,
        /// As the row has it.
        found: String,
    },
    /// The settings say that the database keeps no hash.
    #[error("the database keeps no tokens: database.columns.machines.api_token_hash is empty")]
    NotKept,
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(#[from] std::io::Error),
    /// Nothing is done.
    #[error(transparent)]
    Database(#[from] Fault),
    /// Redis has the change, and whether the database has is unknown.
    #[error(
        "{0}; Redis has the change already, and whether the database has is unknown: ask again (a token that was not shown is worth \
         nothing); `sluicegate-backend auth doctor` says whether the two agree"
    )]
    HalfDone(Fault),
    /// The database has what it had; Redis may have the new one. `auth doctor --repair` writes what the database has.
    #[error("{0}; the database is unchanged, and `sluicegate-backend auth doctor` says whether Redis is")]
    Redis(#[from] RedisFault),
}

/// Issues, rotates, revokes. One at a time in this process.
#[derive(Clone)]
pub struct Machines {
    database: Database,
    auth: Arc<Mutex<Auth>>,
    reserved: Arc<BTreeSet<String>>,
}

/// What is to be done with a machine's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Issue,
    Rotate,
    Revoke,
}

impl Machines {
    /// On a database and Redis. No machine gets a token by a name that is `reserved`.
    #[must_use]
    pub fn new(database: Database, auth: Auth, reserved: BTreeSet<String>) -> Self {
        Self { database, auth: Arc::new(Mutex::new(auth)), reserved: Arc::new(reserved) }
    }

    /// A machine gets its first token; where there is no such machine it gets a row.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn issue(&self, serial_no: &str) -> Result<Token, TokenError> {
        let token = Token::new()?;
        self.change(serial_no, Change::Issue, Some(&token.hash())).await?;
        Ok(token)
    }

    /// A machine gets another token; the one before is worth nothing from now on.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn rotate(&self, serial_no: &str) -> Result<Token, TokenError> {
        let token = Token::new()?;
        self.change(serial_no, Change::Rotate, Some(&token.hash())).await?;
        Ok(token)
    }

    /// A machine's token is worth nothing from now on.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn revoke(&self, serial_no: &str) -> Result<(), TokenError> {
        self.change(serial_no, Change::Revoke, None).await
    }

    async fn change(&self, serial_no: &str, change: Change, hash: Option<&str>) -> Result<(), TokenError> {
        check_target(serial_no)?;
        // One that has a token all the same can be freed of it.
        if change != Change::Revoke && self.reserved.contains(serial_no) {
            return Err(TokenError::Reserved(serial_no.to_owned()));
        }
        if !self.database.names().keeps("machines", "api_token_hash") {
            return Err(TokenError::NotKept);
        }
        let mut auth = self.auth.lock().await;
        let session = self.database.within(self.prepare(serial_no, change, hash)).await?;
        let session = match session {
            Prepared::Ready(session) => session,
            Prepared::HasOne => return Err(TokenError::HasOne(serial_no.to_owned())),
            Prepared::HasNone => return Err(TokenError::HasNone(serial_no.to_owned())),
            Prepared::Other(found) => return Err(TokenError::Other { asked: serial_no.to_owned(), found }),
        };
        auth.write(serial_no, hash).await?;
        self.database.within(session.commit()).await.map_err(TokenError::HalfDone)
    }

    /// The machine's row is this transaction's until it ends.
    async fn prepare(&self, serial_no: &str, change: Change, hash: Option<&str>) -> Result<Prepared, Fault> {
        let (tongue, now) = (self.database.tongue(), self.database.zone().write(clock::now()));
        let mut session = self.database.begin().await?;
        if change == Change::Issue {
            session.execute(&machines::create(tongue, [serial_no], &now)).await?;
        }
        let rows = session.rows(&machines::token_of(tongue, serial_no)).await?;
        // A collation that heeds no case (or no space at the end) finds another machine's row: the key in Redis would be this name's.
        let found = rows.first().map(|row| row.must_text(1)).transpose()?;
        if let Some(found) = found.filter(|found| found != serial_no) {
            return Ok(Prepared::Other(found));
        }
        let has = rows.first().map(|row| row.text(0)).transpose()?.flatten().is_some_and(|hash| !hash.is_empty());
        match change {
            Change::Issue if has => return Ok(Prepared::HasOne),
            Change::Rotate | Change::Revoke if !has => return Ok(Prepared::HasNone),
            _ => {}
        }
        // What the database refuses is refused before Redis has anything.
        session.execute(&machines::token(tongue, serial_no, hash, &now)).await?;
        Ok(Prepared::Ready(session))
    }
}

enum Prepared {
    Ready(Session),
    HasOne,
    HasNone,
    Other(String),
}
