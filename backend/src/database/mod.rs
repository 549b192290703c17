//! The database's edge: MySQL or MariaDB, or a file of SQLite.
//!
//! - [`fault`]: what an error means: is it the database's, or the job's?
//! - [`session`]: one transaction; a statement and its values.
//! - [`statements`]: the statements, by subject; they are made without a server.
//! - [`prepare`]: tables made, columns looked at.
//! - [`apply`]: a batch of jobs, in one transaction.

pub mod apply;
pub mod fault;
pub mod prepare;
pub mod session;
pub mod statements;

use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::domain::names::Names;
use crate::domain::time::Zone;
use crate::settings;
use fault::Fault;
use session::{Session, Statement};
use statements::Dialect;

/// How long it may take to get a connection: one that is free, or a new one.
const ACQUIRE: Duration = Duration::from_secs(5);
/// What does not fit is an error, whatever the server is set to.
const STRICT: &str = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')";
/// How long a transaction of MariaDB's may do nothing, in seconds: longer than Redis takes to answer or to be given up.
const IDLE: &str = "SET SESSION idle_transaction_timeout = 15";
/// What a connection keeps prepared: every statement in every size that it has (`statements::parts`). Closing one and preparing another costs a round
/// trip, and with sqlx 0.9.0, which leaves Nagle's algorithm on (transact-rs/sqlx#4335), 40 ms more: nothing answers a closing, so what follows it
/// waits for the server's delayed acknowledgement.
const STATEMENTS: usize = 256;
/// How long a writer of SQLite waits for another.
const BUSY: Duration = Duration::from_secs(10);

/// A database. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    names: Arc<Names>,
    zone: Zone,
    timeout: Duration,
    /// Digits of an amount, all and behind the point, once that was looked up; none: any.
    amount: Arc<OnceLock<Option<(usize, usize)>>>,
}

#[derive(Clone)]
enum Pool {
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

impl Database {
    /// From the settings. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Fault::Away`], where the settings name no database.
    pub fn new(settings: &settings::Database) -> Result<Self, Fault> {
        let pool = match &settings.url {
            settings::DatabaseUrl::MySql(url) => Pool::MySql(mysql(&url.0, settings)?),
            settings::DatabaseUrl::Sqlite(file) => {
                let options = SqliteConnectOptions::new()
                    .filename(file)
                    .create_if_missing(true)
                    .foreign_keys(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    // What is committed outlives a power cut, too: it leaves Redis then.
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(BUSY)
                    .statement_cache_capacity(STATEMENTS);
                let pool = SqlitePoolOptions::new().max_connections(settings.max_connections).acquire_timeout(ACQUIRE);
                Pool::Sqlite(pool.connect_lazy_with(options))
            }
        };
        Ok(Self {
            pool,
            names: Arc::new(settings.names.clone()),
            zone: settings.zone,
            timeout: settings.timeout,
            amount: Arc::default(),
        })
    }

    /// A transaction that writes.
    ///
    /// # Errors
    /// [`Fault::Away`].
    pub async fn begin(&self) -> Result<Session, Fault> {
        Ok(match &self.pool {
            Pool::MySql(pool) => Session::MySql(pool.begin().await.map_err(Fault::of_connecting)?),
            // A reader that begins to write would have to give up where another wrote since.
            Pool::Sqlite(pool) => Session::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
        })
    }

    /// A transaction that reads.
    ///
    /// # Errors
    /// [`Fault::Away`].
    pub async fn read(&self) -> Result<Session, Fault> {
        Ok(match &self.pool {
            Pool::MySql(pool) => Session::MySql(pool.begin().await.map_err(Fault::of_connecting)?),
            Pool::Sqlite(pool) => Session::Sqlite(pool.begin().await?),
        })
    }

    /// Asks it something that needs no table.
    ///
    /// # Errors
    /// [`Fault`]: it does not answer.
    pub async fn answer(&self) -> Result<(), Fault> {
        let mut session = self.read().await?;
        session.rows(&Statement { sql: "SELECT 1".to_owned(), values: Vec::new() }).await?;
        session.commit().await
    }

    /// The most bytes of a statement (`max_allowed_packet`); none: it closes no connection over one.
    ///
    /// # Errors
    /// [`Fault`]: it does not answer.
    pub async fn largest_statement(&self) -> Result<Option<u64>, Fault> {
        if self.dialect() == Dialect::Sqlite {
            return Ok(None);
        }
        let mut session = self.read().await?;
        let sql = "SELECT CAST(@@max_allowed_packet AS SIGNED)".to_owned();
        let rows = session.rows(&Statement { sql, values: Vec::new() }).await?;
        session.commit().await?;
        Ok(rows.first().map(|row| row.must_int(0)).transpose()?.and_then(|most| u64::try_from(most).ok()))
    }

    /// What is done within the time that a transaction may take.
    ///
    /// # Errors
    /// What it answers, or [`Fault::Away`] after that time: whether it was done is unknown.
    pub async fn within<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(Fault::Away(format!("no answer within {:?} (database.timeout)", self.timeout))))
    }

    /// Its tables and columns.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The offset that its times are written in.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// How it wants to be spoken to.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.pool {
            Pool::MySql(_) => Dialect::MySql,
            Pool::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Digits of an amount, all and behind the point; none: any, or nobody looked yet.
    #[must_use]
    pub fn amount(&self) -> Option<(usize, usize)> {
        self.amount.get().copied().flatten()
    }

    /// Closes its connections, once what is under way on them is done.
    pub async fn close(&self) {
        match &self.pool {
            Pool::MySql(pool) => pool.close().await,
            Pool::Sqlite(pool) => pool.close().await,
        }
    }
}

fn mysql(url: &str, settings: &settings::Database) -> Result<MySqlPool, Fault> {
    // Its own words may hold the password.
    let options = MySqlConnectOptions::from_str(url)
        .map_err(|_| Fault::Away("database.url cannot be read".to_owned()))?
        .timezone(settings.zone.session())
        .statement_cache_capacity(STATEMENTS);
    let pool = MySqlPoolOptions::new().max_connections(settings.max_connections).acquire_timeout(ACQUIRE);
    // A value that does not fit is an error here, not another value. And what others commit is seen at once.
    let pool = pool.after_connect(|connection, _| {
        Box::pin(async move {
            use sqlx::Executor as _;
            connection.execute(STRICT).await?;
            connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
            // A process that was paused in a transaction must not hold its rows for ever: MariaDB can end it, MySQL cannot.
            let _ = connection.execute(IDLE).await;
            Ok(())
        })
    });
    Ok(pool.connect_lazy_with(options))
}
