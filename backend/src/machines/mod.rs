//! Machines' tokens: issued, rotated, revoked. The database keeps the hash; Redis has it at the same moment, for the broker.
//!
//! - [`token`]: secrets and their hashes.
//! - [`doctor`]: whether Redis has what the database says.

pub mod doctor;
pub mod token;

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
    /// It has one.
    #[error("the machine `{0}` has a token; rotate it, or revoke it first")]
    HasOne(String),
    /// There is no such machine, or it has no token.
    #[error("the machine `{0}` has no token")]
    HasNone(String),
    /// The settings say that the database keeps no hash.
    #[error("the database keeps no tokens: database.columns.machines.api_token_hash is empty")]
    NotKept,
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(#[from] std::io::Error),
    /// Nothing is done.
    #[error(transparent)]
    Database(#[from] Fault),
    /// The database has what it had; Redis may have the new one. `auth doctor --repair` writes what the database has.
    #[error("{0}; the database is unchanged, and `sluicegate-backend auth doctor` says whether Redis is")]
    Redis(#[from] RedisFault),
}

/// Issues, rotates, revokes. One at a time in this process.
#[derive(Clone)]
pub struct Machines {
    database: Database,
    auth: Arc<Mutex<Auth>>,
}

/// What is to be done with a machine's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Issue,
    Rotate,
    Revoke,
}

impl Machines {
    /// On a database and Redis.
    #[must_use]
    pub fn new(database: Database, auth: Auth) -> Self {
        Self { database, auth: Arc::new(Mutex::new(auth)) }
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
        if !self.database.names().keeps("machines", "api_token_hash") {
            return Err(TokenError::NotKept);
        }
        let mut auth = self.auth.lock().await;
        let session = self.database.within(self.prepare(serial_no, change, hash)).await?;
        let session = match session {
            Prepared::Ready(session) => session,
            Prepared::HasOne => return Err(TokenError::HasOne(serial_no.to_owned())),
            Prepared::HasNone => return Err(TokenError::HasNone(serial_no.to_owned())),
        };
        auth.write(serial_no, hash).await?;
        Ok(self.database.within(session.commit()).await?)
    }

    /// The machine's row is this transaction's until it ends.
    async fn prepare(&self, serial_no: &str, change: Change, hash: Option<&str>) -> Result<Prepared, Fault> {
        let (tongue, now) = (self.database.tongue(), self.database.zone().write(clock::now()));
        let mut session = self.database.begin().await?;
        if change == Change::Issue {
            session.execute(&machines::create(tongue, [serial_no], &now)).await?;
        }
        let rows = session.rows(&machines::token_of(tongue, serial_no)).await?;
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
}
