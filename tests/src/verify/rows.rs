//! The database's rows, by a connection that is not the back end's.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};

/// How long a statement may take, waiting for another writer included.
const LIMIT: Duration = Duration::from_secs(20);

/// A database.
#[derive(Clone)]
pub(crate) enum Rows {
    Sqlite(SqlitePool),
    MySql(MySqlPool),
}

impl Rows {
    pub(crate) fn sqlite(file: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(file).busy_timeout(LIMIT);
        Self::Sqlite(SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options))
    }

    pub(crate) fn mysql(url: &str) -> Result<Self, String> {
        let options = MySqlConnectOptions::from_str(url).map_err(|error| error.to_string())?;
        Ok(Self::MySql(MySqlPoolOptions::new().max_connections(2).connect_lazy_with(options)))
    }

    /// What a query answers, whose columns are texts. It is made here, and holds nothing that came from elsewhere.
    pub(crate) async fn texts(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let text =
            |found: Result<Option<String>, sqlx::Error>| found.map(|text| text.unwrap_or_else(|| "null".to_owned()));
        let sql = AssertSqlSafe(sql.to_owned());
        let rows = async {
            match self {
                Self::Sqlite(pool) => {
                    let rows = sqlx::query(sql).fetch_all(pool).await?;
                    rows.iter().map(|row| (0..row.len()).map(|at| text(row.try_get_unchecked(at))).collect()).collect()
                }
                Self::MySql(pool) => {
                    let rows = sqlx::query(sql).fetch_all(pool).await?;
                    rows.iter().map(|row| (0..row.len()).map(|at| text(row.try_get_unchecked(at))).collect()).collect()
                }
            }
        };
        within(rows).await
    }

    /// The only value of the only row, where it is there.
    pub(crate) async fn text(&self, sql: &str) -> Result<Option<String>, String> {
        Ok(self.texts(sql).await?.into_iter().flatten().next())
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> Result<u64, String> {
        let count = self.text(&format!("SELECT CAST(COUNT(*) AS CHAR) FROM {table}")).await?;
        count.and_then(|count| count.parse().ok()).ok_or_else(|| format!("{table} has no number of rows"))
    }

    /// Changes something.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), String> {
        let sql = AssertSqlSafe(sql.to_owned());
        let done = async {
            match self {
                Self::Sqlite(pool) => sqlx::query(sql).execute(pool).await.map(drop),
                Self::MySql(pool) => sqlx::query(sql).execute(pool).await.map(drop),
            }
        };
        within(done).await
    }
}

async fn within<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {LIMIT:?}")),
    }
}
