//! What an error of the database means. The line that matters: is it the database's, so that the same may be good a moment later, or the
//! job's, so that it is wrong for ever?

use sqlx::mysql::MySqlDatabaseError;

/// Why the database did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No answer, or one that has nothing to do with the values: away, busy, full, read only, a table or a column that is not there.
    #[error("{0}")]
    Away(String),
    /// The connection was closed in the middle of a transaction: the database is away, or will not have what it was sent (MySQL and MariaDB close it
    /// where a statement is larger than their `max_allowed_packet`, mostly without a word that arrives). [`Database::answer`](super::Database::answer)
    /// tells the two apart.
    #[error("{0}")]
    Cut(String),
    /// A row is there already that was not a moment ago.
    #[error("{0}")]
    Conflict(String),
    /// The values are refused.
    #[error("{0}")]
    Refused(String),
    /// Another process has taken over what this one was at.
    #[error("another process has taken over what this listener was at")]
    Fenced,
}

/// MySQL's errors of values that have a general SQLSTATE: incorrect values, truncated ones, a packet that is too large, a value that no partition takes, one
/// that a CHECK of MySQL 8 refuses (MariaDB's has class 23).
const OF_VALUES: [u16; 6] = [1366, 1265, 1292, 1153, 1526, 3819];
/// A unique key has it already.
const DUPLICATE: u16 = 1062;
/// A column without a default is not written: the table's fault, whatever the values.
const NO_DEFAULT: u16 = 1364;

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let text = with_causes(&error);
        let database = match &error {
            sqlx::Error::Database(database) => database,
            sqlx::Error::Io(_) => return Self::Cut(text),
            _ => return Self::Away(text),
        };
        if database.is_unique_violation() {
            return Self::Conflict(text);
        }
        let of_values = match database.try_downcast_ref::<MySqlDatabaseError>() {
            Some(mysql) => of_values_in_mysql(mysql.number(), mysql.code()),
            None => database.code().and_then(|code| code.parse().ok()).is_some_and(of_values_in_sqlite),
        };
        if of_values { Self::Refused(text) } else { Self::Away(text) }
    }
}

impl Fault {
    /// An error of whoever wants a connection and has sent nothing yet: nothing of it is a job's.
    pub(super) fn of_connecting(error: sqlx::Error) -> Self {
        match error.into() {
            Self::Cut(why) => Self::Away(why),
            fault => fault,
        }
    }
}

/// SQLSTATE class 22 is data, 23 a constraint, 44 a view's CHECK OPTION (ISO/IEC 9075-2, 24.1); 45 is what a trigger of the application says.
fn of_values_in_mysql(number: u16, state: Option<&str>) -> bool {
    let class = state.is_some_and(|state| ["22", "23", "44", "45"].iter().any(|class| state.starts_with(class)));
    (class || OF_VALUES.contains(&number)) && number != NO_DEFAULT && number != DUPLICATE
}

/// The primary result code is the lower byte: TOOBIG, CONSTRAINT, MISMATCH (sqlite.org/rescode.html).
fn of_values_in_sqlite(code: u32) -> bool {
    matches!(code & 0xff, 18..=20)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_for_ever_is_told_from_what_may_pass() {
        // Data too long, out of range, foreign key, incorrect string, check (MariaDB, MySQL 8), partition, view, a trigger's SIGNAL.
        for (number, state) in [
            (1406, "22001"),
            (1264, "22003"),
            (1452, "23000"),
            (1366, "HY000"),
            (4025, "23000"),
            (3819, "HY000"),
            (1526, "HY000"),
            (1369, "44000"),
            (1644, "45000"),
        ] {
            assert!(of_values_in_mysql(number, Some(state)), "{number}");
        }
        // Deadlock, lock wait, read only, full, no such column, no default, access denied, shutdown.
        for (number, state) in [
            (1213, "40001"),
            (1205, "HY000"),
            (1290, "HY000"),
            (1021, "HY000"),
            (1054, "42S22"),
            (1364, "HY000"),
            (1045, "28000"),
            (1053, "08S01"),
        ] {
            assert!(!of_values_in_mysql(number, Some(state)), "{number}");
        }
        // A foreign key; and busy, full, read only, no such column.
        assert!(of_values_in_sqlite(787));
        assert!([5, 13, 8, 1].into_iter().all(|code| !of_values_in_sqlite(code)));
    }

    #[test]
    fn no_connection_is_the_databases_fault() {
        assert!(matches!(Fault::from(sqlx::Error::PoolTimedOut), Fault::Away(_)));
        let closed = || sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into());
        assert!(matches!(Fault::of_connecting(closed()), Fault::Away(_)));
        assert!(matches!(Fault::from(closed()), Fault::Cut(_)), "it may be what was sent");
    }
}
