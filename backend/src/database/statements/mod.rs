//! The statements, by subject: text and values, made without a server. Both databases read `?` and backticks; where they differ, the
//! [`Dialect`] says how.

pub mod alerts;
pub mod commands;
pub mod machines;
pub mod progress;
pub mod sales;

use super::session::{Statement, Value};
use crate::domain::names::Names;

/// How a database wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MySQL 8 and MariaDB 10.3 or newer.
    MySql,
    /// SQLite 3.35 or newer.
    Sqlite,
}

/// The names of a database and how it is spoken to.
#[derive(Clone, Copy)]
pub struct Tongue<'a> {
    /// Tables and columns.
    pub names: &'a Names,
    /// How it is spoken to.
    pub dialect: Dialect,
}

/// The most rows of one statement.
pub const MOST: usize = 256;

/// Rows in parts of 256, 128, … 1, the larger ones first: a statement for rows of any number would be another one for each number, and none would be
/// found prepared.
pub fn parts<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut left = rows;
    std::iter::from_fn(move || {
        let size = MOST.min(1 << left.len().checked_ilog2()?);
        let (part, rest) = left.split_at(size);
        left = rest;
        Some(part)
    })
}

/// As many rows as the next larger statement has, the last one again and again: for statements to which a row that comes twice is as if it came once.
fn padded<T: Clone>(rows: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut rows: Vec<T> = rows.into_iter().collect();
    if let Some(last) = rows.last().cloned() {
        rows.resize(rows.len().next_power_of_two(), last);
    }
    rows
}

/// A statement that grows.
#[derive(Default)]
struct Text {
    sql: String,
    values: Vec<Value>,
}

impl Text {
    fn of(tongue: Tongue<'_>, template: &str) -> Self {
        Self { sql: tongue.names.fill(template), values: Vec::new() }
    }

    fn push(&mut self, tongue: Tongue<'_>, template: &str) -> &mut Self {
        self.sql.push_str(&tongue.names.fill(template));
        self
    }

    fn raw(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self
    }

    /// `?, ?, ?`
    fn list<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> &mut Self {
        for (place, value) in values.into_iter().enumerate() {
            self.raw(if place == 0 { "?" } else { ", ?" }).bind(value);
        }
        self
    }

    fn done(self) -> Statement {
        Statement { sql: self.sql, values: self.values }
    }
}

/// Rows as a table to join with: its columns are called `a`, `b`, `c`, …; `casts` say in MySQL what each is.
fn joined(text: &mut Text, dialect: Dialect, casts: &[&str], rows: Vec<Vec<Value>>) {
    let column = |place: usize| char::from(b'a' + u8::try_from(place).unwrap_or_default());
    match dialect {
        Dialect::MySql => {
            for (number, row) in rows.into_iter().enumerate() {
                text.raw(if number == 0 { "SELECT " } else { " UNION ALL SELECT " });
                for (place, value) in row.into_iter().enumerate() {
                    text.raw(if place == 0 { "" } else { ", " });
                    // The first row says what the columns are.
                    match casts.get(place).filter(|cast| number == 0 && !cast.is_empty()) {
                        Some(cast) => text.raw(&format!("CAST(? AS {cast}) AS {}", column(place))),
                        None if number == 0 => text.raw(&format!("? AS {}", column(place))),
                        None => text.raw("?"),
                    };
                    text.bind(value);
                }
            }
        }
        Dialect::Sqlite => {
            text.raw("SELECT ");
            for place in 0..casts.len() {
                let comma = if place == 0 { "" } else { ", " };
                text.raw(&format!("{comma}column{} AS {}", place + 1, column(place)));
            }
            text.raw(" FROM (VALUES ");
            for (number, row) in rows.into_iter().enumerate() {
                text.raw(if number == 0 { "(" } else { ", (" }).list(row).raw(")");
            }
            text.raw(")");
        }
    }
}

/// `INSERT INTO table (columns) VALUES (…), (…)`, without the columns that are not kept.
fn insert(
    tongue: Tongue<'_>,
    table: &'static str,
    columns: &[&'static str],
    rows: impl IntoIterator<Item = Vec<Value>>,
) -> Statement {
    let kept: Vec<bool> = columns.iter().map(|column| tongue.names.keeps(table, column)).collect();
    let named: Vec<String> = columns
        .iter()
        .filter_map(|column| tongue.names.column(table, column))
        .map(|column| format!("`{column}`"))
        .collect();
    let mut text = Text::default();
    text.raw(&format!("INSERT INTO `{}` ({}) VALUES ", tongue.names.table(table), named.join(", ")));
    for (number, row) in rows.into_iter().enumerate() {
        let values = row.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(value, _)| value);
        text.raw(if number == 0 { "(" } else { ", (" }).list(values).raw(")");
    }
    text.done()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_column_that_is_not_kept_is_not_written() {
        let columns =
            BTreeMap::from([("machine_logs".to_owned(), BTreeMap::from([("slot_no".to_owned(), String::new())]))]);
        let names = Names::mapped(&BTreeMap::new(), &columns).expect("good");
        let tongue = Tongue { names: &names, dialect: Dialect::MySql };
        let row = || vec![Value::from("E1"), Value::from(5), Value::from("x")];
        let statement = insert(tongue, "machine_logs", &["code", "slot_no", "message"], [row(), row()]);
        assert_eq!(statement.sql, "INSERT INTO `machine_logs` (`code`, `message`) VALUES (?, ?), (?, ?)");
        assert_eq!(statement.values.len(), 4);
    }

    #[test]
    fn rows_of_any_number_are_statements_of_few_sizes() {
        for count in [0, 1, 2, 3, 255, 256, 257, 1_000] {
            let rows: Vec<usize> = (0..count).collect();
            let parts: Vec<&[usize]> = parts(&rows).collect();
            assert_eq!(parts.concat(), rows);
            assert!(parts.iter().all(|part| part.len().is_power_of_two() && part.len() <= MOST), "{count}");
        }
        assert_eq!(padded([1, 2, 3]), [1, 2, 3, 3]);
        assert_eq!(padded([1, 2]), [1, 2]);
        assert!(padded(Vec::<u8>::new()).is_empty());
    }

    #[test]
    fn rows_are_a_table_in_both() {
        let of = |dialect| {
            let mut text = Text::default();
            let rows = vec![vec![Value::from(1), Value::from("x")], vec![Value::from(2), Value::Null]];
            joined(&mut text, dialect, &["", "DATETIME(3)"], rows);
            text.done().sql
        };
        assert_eq!(of(Dialect::MySql), "SELECT ? AS a, CAST(? AS DATETIME(3)) AS b UNION ALL SELECT ?, ?");
        assert_eq!(of(Dialect::Sqlite), "SELECT column1 AS a, column2 AS b FROM (VALUES (?, ?), (?, ?))");
    }
}
