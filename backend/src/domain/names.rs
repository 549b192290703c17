//! Tables and columns, as this database has them: an application that exists already has names of its own.
//!
//! Statements are written with the names of this crate in braces, `{machines}` and `{machines.serial_no}`; [`Names::fill`] puts in what the
//! settings call them, quoted. A name is letters, digits and `_` only, so that nothing needs escaping; both databases read backticks.

use std::collections::BTreeMap;

/// A column.
struct Column {
    name: &'static str,
    /// It may be mapped to nothing: then it is not kept.
    optional: bool,
}

const fn must(name: &'static str) -> Column {
    Column { name, optional: false }
}

const fn may(name: &'static str) -> Column {
    Column { name, optional: true }
}

/// Every table and its columns, by the names that they have unless told otherwise.
const CATALOGUE: &[(&str, &[Column])] = &[
    (
        "machines",
        &[
            must("id"),
            must("serial_no"),
            must("last_heard_at"),
            may("temperature"),
            may("current_page"),
            must("offline_at"),
            may("api_token_hash"),
            may("api_token_issued_at"),
            may("created_at"),
            may("updated_at"),
        ],
    ),
    (
        "machine_logs",
        &[
            must("id"),
            must("machine_id"),
            must("level"),
            must("code"),
            must("message"),
            may("slot_no"),
            may("payload"),
            must("logged_at"),
            may("created_at"),
            may("updated_at"),
        ],
    ),
    (
        "machine_slots",
        &[
            must("id"),
            must("machine_id"),
            must("slot_no"),
            may("product_id"),
            must("stock"),
            may("created_at"),
            may("updated_at"),
        ],
    ),
    (
        "transactions",
        &[
            must("id"),
            must("machine_id"),
            must("transaction_id"),
            must("slot_no"),
            must("amount"),
            may("quantity"),
            may("product_id"),
            may("payment_type"),
            may("status"),
            may("payload"),
            must("sold_at"),
            may("created_at"),
            may("updated_at"),
        ],
    ),
    (
        "machine_commands",
        &[
            must("id"),
            must("message_id"),
            must("serial_no"),
            must("command"),
            must("payload"),
            must("state"),
            must("reason"),
            must("expires_at"),
            must("pushed_at"),
            must("sent_at"),
            must("settled_at"),
            must("created_at"),
            may("updated_at"),
        ],
    ),
    (
        "machine_alerts",
        &[
            must("id"),
            must("serial_no"),
            must("kind"),
            must("code"),
            must("level"),
            must("message"),
            must("details"),
            must("occurrences"),
            must("state"),
            must("attempts"),
            must("raised_at"),
            must("next_attempt_at"),
            must("told_at"),
            may("created_at"),
            may("updated_at"),
        ],
    ),
    (
        "listener_progress",
        &[
            must("listener"),
            must("lane"),
            must("epoch"),
            must("batch"),
            must("size"),
            must("lanes"),
            must("done"),
            may("updated_at"),
        ],
    ),
];

/// The longest name that both databases take.
const MAX_NAME: usize = 64;

/// What the settings call tables and columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    tables: BTreeMap<&'static str, String>,
    /// By table and column; an optional one may be missing.
    columns: BTreeMap<(&'static str, &'static str), Option<String>>,
}

impl Default for Names {
    fn default() -> Self {
        let columns = CATALOGUE.iter().flat_map(|(table, columns)| {
            columns.iter().map(|column| ((*table, column.name), Some(column.name.to_owned())))
        });
        Self {
            tables: CATALOGUE.iter().map(|(table, _)| (*table, (*table).to_owned())).collect(),
            columns: columns.collect(),
        }
    }
}

impl Names {
    /// From the settings: other names for tables, and for columns of tables; an empty name says that there is no such column.
    ///
    /// # Errors
    /// Every mistake, with the key that it is under.
    pub fn mapped(
        tables: &BTreeMap<String, String>,
        columns: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> Result<Self, Vec<String>> {
        let (mut names, mut wrong) = (Self::default(), Vec::new());
        for (table, name) in tables {
            let key = format!("database.tables.{table}");
            match names.tables.get_mut(table.as_str()) {
                None => wrong.push(format!("{key}: unknown table; there are {}", Self::tables_known())),
                Some(_) if !is_name(name) => wrong.push(format!("{key}: `{name}` {NOT_A_NAME}")),
                Some(place) => name.clone_into(place),
            }
        }
        for (table, mapped) in columns {
            let Some((table, known)) = CATALOGUE.iter().find(|(known, _)| known == table) else {
                wrong.push(format!("database.columns.{table}: unknown table; there are {}", Self::tables_known()));
                continue;
            };
            for (column, name) in mapped {
                let key = format!("database.columns.{table}.{column}");
                let Some(known_column) = known.iter().find(|known| known.name == column) else {
                    let all: Vec<&str> = known.iter().map(|column| column.name).collect();
                    wrong.push(format!("{key}: unknown column; there are {}", all.join(", ")));
                    continue;
                };
                let mapped = match name.as_str() {
                    "" if known_column.optional => None,
                    "" => {
                        wrong.push(format!("{key}: this column cannot be left out"));
                        continue;
                    }
                    name if is_name(name) => Some(name.to_owned()),
                    name => {
                        wrong.push(format!("{key}: `{name}` {NOT_A_NAME}"));
                        continue;
                    }
                };
                names.columns.insert((*table, known_column.name), mapped);
            }
        }
        for (table, known) in CATALOGUE {
            let mut seen = BTreeMap::new();
            for column in *known {
                let Some(name) = names.column(table, column.name) else { continue };
                if let Some(other) = seen.insert(name.to_lowercase(), column.name) {
                    wrong.push(format!("database.columns.{table}: {other} and {} are both `{name}`", column.name));
                }
            }
        }
        if wrong.is_empty() { Ok(names) } else { Err(wrong) }
    }

    fn tables_known() -> String {
        CATALOGUE.iter().map(|(table, _)| *table).collect::<Vec<_>>().join(", ")
    }

    /// What a table is called, without quotes.
    #[must_use]
    pub fn table(&self, table: &'static str) -> &str {
        self.tables.get(table).map_or(table, String::as_str)
    }

    /// What a column is called, without quotes; none: it is not kept.
    #[must_use]
    pub fn column(&self, table: &'static str, column: &'static str) -> Option<&str> {
        self.columns.get(&(table, column)).and_then(|name| name.as_deref())
    }

    /// Whether a column is kept.
    #[must_use]
    pub fn keeps(&self, table: &'static str, column: &'static str) -> bool {
        self.column(table, column).is_some()
    }

    /// Every table with its columns, as they are called.
    pub fn all(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        CATALOGUE.iter().map(|(table, columns)| {
            (self.table(table), columns.iter().filter_map(|column| self.column(table, column.name)).collect())
        })
    }

    /// A statement with the names put in, quoted. A line that names a column which is not kept is left out.
    #[must_use]
    pub fn fill(&self, template: &str) -> String {
        let mut filled = String::with_capacity(template.len() + 64);
        for line in template.split_inclusive('\n') {
            filled.push_str(&self.fill_line(line).unwrap_or_default());
        }
        filled
    }

    fn fill_line(&self, line: &str) -> Option<String> {
        let mut filled = String::with_capacity(line.len() + 32);
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('{') {
            // Invariant: statements are this crate's own, so each brace is closed and each name is in the catalogue.
            let (inner, after) = after.split_once('}').expect("invariant: a brace of a statement is closed");
            let name = match inner.split_once('.') {
                None => Some(self.tables.get(inner).expect("invariant: a table of the catalogue")),
                Some((table, column)) => {
                    let found = self.columns.iter().find(|((of, name), _)| *of == table && *name == column);
                    found.expect("invariant: a column of the catalogue").1.as_ref()
                }
            };
            filled.push_str(before);
            filled.push('`');
            filled.push_str(name?);
            filled.push('`');
            rest = after;
        }
        filled.push_str(rest);
        Some(filled)
    }
}

const NOT_A_NAME: &str = "is no name; it must be 1 to 64 letters, digits and `_`";

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn columns(table: &str, entries: &[(&str, &str)]) -> BTreeMap<String, BTreeMap<String, String>> {
        BTreeMap::from([(table.to_owned(), map(entries))])
    }

    #[test]
    fn an_application_has_names_of_its_own() {
        let names = Names::mapped(
            &map(&[("machines", "devices")]),
            &columns("machines", &[("serial_no", "sn"), ("current_page", "")]),
        );
        let names = names.expect("good");
        let filled =
            names.fill("SELECT {machines.id}, {machines.serial_no}\n, {machines.current_page}\nFROM {machines}");
        assert_eq!(filled, "SELECT `id`, `sn`\nFROM `devices`");
        assert!(!names.keeps("machines", "current_page") && names.keeps("machines", "temperature"));
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_key() {
        let wrong = Names::mapped(
            &map(&[("machines", "a`; DROP TABLE x"), ("orders", "o")]),
            &columns("machines", &[("serial_no", ""), ("sn", "x"), ("id", "serial_no")]),
        );
        let wrong = wrong.expect_err("refused").join("\n");
        for part in [
            "database.tables.machines: `a`; DROP TABLE x` is no name",
            "database.tables.orders: unknown table; there are machines,",
            "database.columns.machines.serial_no: this column cannot be left out",
            "database.columns.machines.sn: unknown column; there are id, serial_no",
            "id and serial_no are both `serial_no`",
        ] {
            assert!(wrong.contains(part), "{part} is not in {wrong}");
        }
    }
}
