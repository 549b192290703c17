//! Before the first row is written: the tables are made, where that is this program's matter, and every column that statements will name is
//! looked at. So what is mapped wrong is told at the start, with its name, and never as the fault of a job.

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::fault::Fault;
use super::session::{Statement, Value};
use super::statements::Dialect;
use super::{Database, Pool};

/// The tables of one version of this program. What was released is never edited: a change is another one.
struct Version {
    number: i64,
    name: &'static str,
    mysql: &'static str,
    sqlite: &'static str,
}

const VERSIONS: [Version; 1] = [Version {
    number: 1,
    name: "tables",
    mysql: include_str!("../../migrations/mysql/0001_tables.sql"),
    sqlite: include_str!("../../migrations/sqlite/0001_tables.sql"),
}];
/// Where it stands which versions there were.
const TABLE: &str = "sluicegate_backend_migrations";

impl Database {
    /// The statements that make the tables, with the names of the settings.
    #[must_use]
    pub fn schema(&self) -> String {
        VERSIONS.iter().map(|version| self.text(version)).collect::<Vec<_>>().join("\n")
    }

    fn text(&self, version: &Version) -> String {
        let template = match self.dialect() {
            Dialect::MySql => version.mysql,
            Dialect::Sqlite => version.sqlite,
        };
        // A column that is not kept may have been the last one.
        self.names().fill(template).replace(",\n)", "\n)")
    }

    /// Makes the tables and changes them to this version's. What was done is not done twice; two processes wait for each other.
    ///
    /// # Errors
    /// [`Fault::Away`] says which step failed.
    pub async fn migrate(&self) -> Result<(), Fault> {
        let migrations = VERSIONS.iter().map(|version| {
            let sql = AssertSqlSafe(self.text(version)).into_sql_str();
            Migration::new(version.number, version.name.into(), MigrationType::Simple, sql, false)
        });
        let mut migrator = Migrator::with_migrations(migrations.collect());
        migrator.dangerous_set_table_name(TABLE);
        let mut done = self.run(&migrator).await;
        // One that was killed in the middle: MySQL commits each statement, and notes the version as begun. Nobody is at it: sqlx holds a lock
        // meanwhile. Each statement makes what is not there yet, so it is done again.
        if let Err(MigrateError::Dirty(version)) = done {
            tracing::warn!(version, "the tables were half made; they are made to the end");
            let sql = format!("DELETE FROM `{TABLE}` WHERE version = ? AND success = FALSE");
            let mut session = self.begin().await?;
            session.execute(&Statement { sql, values: vec![Value::from(version)] }).await?;
            session.commit().await?;
            done = self.run(&migrator).await;
        }
        done.map_err(|error| {
            let next = match &error {
                MigrateError::VersionMismatch(_) => format!(
                    "; `{TABLE}` says that they were made with other names ([database.tables], [database.columns]): change them by hand, and \
                     set database.migrate = false"
                ),
                _ => format!("; what was done stands in `{TABLE}`"),
            };
            Fault::Away(format!("the tables cannot be made (database.migrate): {error}{next}"))
        })
    }

    async fn run(&self, migrator: &Migrator) -> Result<(), MigrateError> {
        match &self.pool {
            Pool::MySql(pool) => migrator.run(pool).await,
            Pool::Sqlite(pool) => migrator.run(pool).await,
        }
    }

    /// Looks at every column that statements name.
    ///
    /// # Errors
    /// [`Fault::Away`] names the table that is not as the settings say.
    pub async fn look(&self) -> Result<(), Fault> {
        let mut session = self.read().await?;
        for (table, columns) in self.names().all() {
            let columns: Vec<String> = columns.iter().map(|column| format!("`{column}`")).collect();
            let sql = format!("SELECT {} FROM `{table}` WHERE 1 = 0", columns.join(", "));
            session.rows(&Statement { sql, values: Vec::new() }).await.map_err(|fault| {
                Fault::Away(format!(
                    "the table `{table}` is not as the settings say ([database.tables], [database.columns], \
                     database.migrate); `sluicegate-backend database migrate` makes what is missing: {fault}"
                ))
            })?;
        }
        let digits = match self.dialect() {
            // A text holds them all.
            Dialect::Sqlite => None,
            Dialect::MySql => {
                let column = self.names().column("transactions", "amount").unwrap_or("amount");
                let statement = Statement {
                    sql: "SELECT CAST(NUMERIC_PRECISION AS SIGNED), CAST(NUMERIC_SCALE AS SIGNED) FROM information_schema.COLUMNS \
                          WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND COLUMN_NAME = ?"
                        .to_owned(),
                    values: vec![Value::from(self.names().table("transactions")), Value::from(column)],
                };
                let rows = session.rows(&statement).await?;
                let digits = rows.first().map(|row| Ok::<_, Fault>((row.int(0)?, row.int(1)?))).transpose()?;
                let number = |digits: Option<i64>| digits.and_then(|digits| usize::try_from(digits).ok());
                digits.and_then(|(precision, scale)| number(precision).zip(number(scale)))
            }
        };
        let _ = self.amount.set(digits);
        session.commit().await
    }
}
