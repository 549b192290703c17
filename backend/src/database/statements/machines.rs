//! Machines, their heartbeats and their logs.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::{Dialect, MOST, Text, Tongue, insert, joined, padded, parts};
use crate::database::session::{Statement, Value};
use crate::domain::plan::{Beat, Log};
use crate::domain::time::Zone;

/// The rows of machines, at most [`MOST`](super::MOST): id, serial number.
#[must_use]
pub fn find<'s>(tongue: Tongue<'_>, serial_nos: impl IntoIterator<Item = &'s str>) -> Statement {
    let mut text =
        Text::of(tongue, "SELECT {machines.id}, {machines.serial_no} FROM {machines} WHERE {machines.serial_no} IN (");
    text.list(padded(serial_nos)).raw(")");
    text.done()
}

/// Machines get a row, where none has it already.
#[must_use]
pub fn create<'s>(tongue: Tongue<'_>, serial_nos: impl IntoIterator<Item = &'s str>, now: &str) -> Statement {
    let rows = serial_nos.into_iter().map(|serial_no| vec![serial_no.into(), now.into(), now.into()]);
    let mut statement = insert(tongue, "machines", &["serial_no", "created_at", "updated_at"], rows);
    statement.sql.push_str(&match tongue.dialect {
        Dialect::MySql => tongue.names.fill(" ON DUPLICATE KEY UPDATE {machines.id} = {machines.id}"),
        Dialect::Sqlite => " ON CONFLICT DO NOTHING".to_owned(),
    });
    statement
}

/// Heartbeats of many machines; one that is older than what a row has changes nothing. `machines` are their rows.
#[must_use]
pub fn beats(
    tongue: Tongue<'_>,
    zone: Zone,
    beats: &BTreeMap<String, Beat>,
    machines: &HashMap<String, i64>,
    now: &str,
) -> Vec<Statement> {
    rows_of(zone, beats, machines).chunks(MOST).map(|rows| beat(tongue, padded(rows.iter().cloned()), now)).collect()
}

fn beat(tongue: Tongue<'_>, rows: Vec<Vec<Value>>, now: &str) -> Statement {
    let casts = ["SIGNED", "DATETIME(3)", "DECIMAL(30,10)", "SIGNED"];
    // SQLite names no table on the left of an assignment.
    let table = tongue.names.fill("{machines}.");
    let mine = if tongue.dialect == Dialect::MySql { table.as_str() } else { "" };
    let mut set = vec![tongue.names.fill(&format!("{mine}{{machines.last_heard_at}} = h.b"))];
    for (column, from) in [("temperature", "h.c"), ("current_page", "h.d")] {
        if let Some(name) = tongue.names.column("machines", column) {
            set.push(format!("{mine}`{name}` = COALESCE({from}, {table}`{name}`)"));
        }
    }
    let newer = "({machines}.{machines.last_heard_at} IS NULL OR {machines}.{machines.last_heard_at} <= h.b)";
    let touched = |text: &mut Text| {
        if let Some(column) = tongue.names.column("machines", "updated_at") {
            text.raw(&format!(", {}`{column}` = ?", mine)).bind(now);
        }
    };
    let mut text = Text::of(tongue, "UPDATE {machines} ");
    if tongue.dialect == Dialect::MySql {
        text.raw("JOIN (");
        joined(&mut text, tongue.dialect, &casts, rows);
        text.push(tongue, ") AS h ON {machines}.{machines.id} = h.a SET ").raw(&set.join(", "));
        touched(&mut text);
        text.push(tongue, &format!(" WHERE {newer}"));
    } else {
        text.raw("SET ").raw(&set.join(", "));
        touched(&mut text);
        text.raw(" FROM (");
        joined(&mut text, tongue.dialect, &casts, rows);
        text.push(tongue, &format!(") AS h WHERE {{machines}}.{{machines.id}} = h.a AND {newer}"));
    }
    text.done()
}

/// Machine, time, temperature, page: in the order of the machines' rows, so that two batches never wait for each other's.
fn rows_of(zone: Zone, beats: &BTreeMap<String, Beat>, machines: &HashMap<String, i64>) -> Vec<Vec<Value>> {
    let rows: BTreeMap<i64, &Beat> =
        beats.iter().filter_map(|(serial_no, beat)| Some((*machines.get(serial_no)?, beat))).collect();
    let row = |(id, beat): (i64, &Beat)| {
        vec![id.into(), zone.write(beat.at).into(), beat.temperature.as_deref().into(), beat.current_page.into()]
    };
    rows.into_iter().map(row).collect()
}

/// Rows of logs.
#[must_use]
pub fn logs(
    tongue: Tongue<'_>,
    zone: Zone,
    logs: &[Log],
    machines: &HashMap<String, i64>,
    now: &str,
) -> Vec<Statement> {
    let rows: Vec<Vec<Value>> = logs
        .iter()
        .filter_map(|log| {
            Some(vec![
                (*machines.get(&log.serial_no)?).into(),
                log.level.as_str().into(),
                log.code.as_str().into(),
                log.message.as_str().into(),
                log.slot_no.into(),
                log.payload.as_str().into(),
                zone.write(log.at).into(),
                now.into(),
                now.into(),
            ])
        })
        .collect();
    let columns =
        ["machine_id", "level", "code", "message", "slot_no", "payload", "logged_at", "created_at", "updated_at"];
    parts(&rows).map(|rows| insert(tongue, "machine_logs", &columns, rows.to_vec())).collect()
}

/// Machines whose last heartbeat is older than a moment, and that nobody was told of: id, serial number, the heartbeat's time. From
/// behind an id on, so many.
#[must_use]
pub fn gone(tongue: Tongue<'_>, zone: Zone, before: Timestamp, behind: i64, most: i64) -> Statement {
    let mut text = Text::of(
        tongue,
        "SELECT {machines.id}, {machines.serial_no}, CAST({machines.last_heard_at} AS CHAR) FROM {machines} \
         WHERE {machines.offline_at} IS NULL AND {machines.last_heard_at} < ? AND {machines.id} > ? ORDER BY {machines.id} LIMIT ?",
    );
    text.bind(zone.write(before)).bind(behind).bind(most);
    for_update(text, tongue)
}

/// Machines of which people were told that they are gone, and that were heard since a moment: id, serial number, the heartbeat's time.
/// From behind an id on, so many.
#[must_use]
pub fn back(tongue: Tongue<'_>, zone: Zone, since: Timestamp, behind: i64, most: i64) -> Statement {
    let mut text = Text::of(
        tongue,
        "SELECT {machines.id}, {machines.serial_no}, CAST({machines.last_heard_at} AS CHAR) FROM {machines} \
         WHERE {machines.offline_at} IS NOT NULL AND {machines.last_heard_at} >= ? AND {machines.id} > ? ORDER BY {machines.id} LIMIT ?",
    );
    text.bind(zone.write(since)).bind(behind).bind(most);
    for_update(text, tongue)
}

/// A file of SQLite has one writer: what it reads is its own.
pub(super) fn for_update(mut text: Text, tongue: Tongue<'_>) -> Statement {
    if tongue.dialect == Dialect::MySql {
        text.raw(" FOR UPDATE");
    }
    text.done()
}

/// Notes that machines are gone since `at`, or that they are back.
#[must_use]
pub fn mark(tongue: Tongue<'_>, ids: &[i64], at: Option<&str>) -> Statement {
    let mut text = Text::of(tongue, "UPDATE {machines} SET {machines.offline_at} = ");
    text.raw("?").bind(at).push(tongue, " WHERE {machines.id} IN (");
    text.list(padded(ids.iter().copied())).raw(")");
    text.done()
}

/// Keeps the hash of a machine's token, or takes it away.
#[must_use]
pub fn token(tongue: Tongue<'_>, serial_no: &str, hash: Option<&str>, now: &str) -> Statement {
    let mut text = Text::of(tongue, "UPDATE {machines} SET {machines.api_token_hash} = ?");
    text.bind(hash);
    for (column, value) in [("api_token_issued_at", hash.map(|_| now)), ("updated_at", Some(now))] {
        if let Some(name) = tongue.names.column("machines", column) {
            text.raw(&format!(", `{name}` = ?")).bind(value);
        }
    }
    text.push(tongue, " WHERE {machines.serial_no} = ?").bind(serial_no);
    text.done()
}

/// The hash of a machine's token, and the serial number as the row has it. The row is this transaction's until it ends.
#[must_use]
pub fn token_of(tongue: Tongue<'_>, serial_no: &str) -> Statement {
    let mut text = Text::of(
        tongue,
        "SELECT {machines.api_token_hash}, {machines.serial_no} FROM {machines} WHERE {machines.serial_no} = ?",
    );
    text.bind(serial_no);
    for_update(text, tongue)
}

/// Machines that have a token: serial number, hash. From behind a serial number on, so many.
#[must_use]
pub fn tokens(tongue: Tongue<'_>, behind: &str, most: i64) -> Statement {
    let mut text = Text::of(
        tongue,
        "SELECT {machines.serial_no}, {machines.api_token_hash} FROM {machines} \
         WHERE {machines.api_token_hash} IS NOT NULL AND {machines.serial_no} > ? ORDER BY {machines.serial_no} LIMIT ?",
    );
    text.bind(behind).bind(most);
    text.done()
}
