//! One transaction. Dropped without a commit, nothing of it was done.

use sqlx::mysql::MySqlRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, MySql, Row as _, Sqlite, Transaction};

use super::fault::Fault;

/// A value of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// A text; also times and decimal numbers.
    Text(String),
    /// Nothing.
    Null,
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A statement, with a `?` for each of its values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    /// Its text. It holds no value: those are bound.
    pub sql: String,
    /// Its values.
    pub values: Vec<Value>,
}

/// A transaction of one of the two.
pub enum Session {
    /// MySQL's or MariaDB's.
    MySql(Transaction<'static, MySql>),
    /// SQLite's.
    Sqlite(Transaction<'static, Sqlite>),
}

/// A row of an answer.
pub enum Row {
    /// MySQL's or MariaDB's.
    MySql(MySqlRow),
    /// SQLite's.
    Sqlite(SqliteRow),
}

/// The query with its values.
macro_rules! query {
    ($database:ty, $statement:expr) => {{
        let mut query = sqlx::query::<$database>(AssertSqlSafe($statement.sql.as_str()));
        for value in &$statement.values {
            query = match value {
                Value::Int(number) => query.bind(*number),
                Value::Text(text) => query.bind(text.as_str()),
                Value::Null => query.bind(None::<String>),
            };
        }
        query
    }};
}

impl Session {
    /// Runs a statement; how many rows it was about.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn execute(&mut self, statement: &Statement) -> Result<u64, Fault> {
        Ok(match self {
            Self::MySql(transaction) => query!(MySql, statement).execute(&mut **transaction).await?.rows_affected(),
            Self::Sqlite(transaction) => query!(Sqlite, statement).execute(&mut **transaction).await?.rows_affected(),
        })
    }

    /// Runs a query; all its rows.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn rows(&mut self, statement: &Statement) -> Result<Vec<Row>, Fault> {
        Ok(match self {
            Self::MySql(transaction) => {
                let rows = query!(MySql, statement).fetch_all(&mut **transaction).await?;
                rows.into_iter().map(Row::MySql).collect()
            }
            Self::Sqlite(transaction) => {
                let rows = query!(Sqlite, statement).fetch_all(&mut **transaction).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
        })
    }

    /// Makes all of it so.
    ///
    /// # Errors
    /// [`Fault`]: whether it is so is unknown.
    pub async fn commit(self) -> Result<(), Fault> {
        match self {
            Self::MySql(transaction) => transaction.commit().await?,
            Self::Sqlite(transaction) => transaction.commit().await?,
        }
        Ok(())
    }
}

impl Row {
    /// A whole number of a column, from 0; none: it is null.
    ///
    /// # Errors
    /// [`Fault::Away`], where the column has something else.
    pub fn int(&self, column: usize) -> Result<Option<i64>, Fault> {
        Ok(match self {
            Self::MySql(row) => row.try_get_unchecked(column)?,
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
        })
    }

    /// A text of a column, from 0; none: it is null.
    ///
    /// # Errors
    /// [`Fault::Away`], where the column has something else.
    pub fn text(&self, column: usize) -> Result<Option<String>, Fault> {
        Ok(match self {
            Self::MySql(row) => row.try_get_unchecked(column)?,
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
        })
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// [`Fault::Away`], where it is not.
    pub fn must_int(&self, column: usize) -> Result<i64, Fault> {
        self.int(column)?.ok_or_else(|| Fault::Away(format!("column {column} of an answer is null")))
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// [`Fault::Away`], where it is not.
    pub fn must_text(&self, column: usize) -> Result<String, Fault> {
        self.text(column)?.ok_or_else(|| Fault::Away(format!("column {column} of an answer is null")))
    }
}
