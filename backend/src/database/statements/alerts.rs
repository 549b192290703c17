//! Alerts: of one machine, kind and code one row.

use jiff::Timestamp;

use super::machines::for_update;
use super::{Text, Tongue, insert, padded};
use crate::database::session::Statement;
use crate::domain::alert::{Alert, Key};
use crate::domain::time::Zone;

/// It waits to be told.
pub const PENDING: &str = "pending";
/// The webhook took it, or there is none and the log has it.
pub const TOLD: &str = "told";
/// No attempt was left.
pub const FAILED: &str = "failed";

/// The rows of alerts, at most [`MOST`](super::MOST): id, serial number, kind, code, state, when it was raised and told.
#[must_use]
pub fn find<'k>(tongue: Tongue<'_>, keys: impl IntoIterator<Item = &'k Key>) -> Statement {
    let mut text = Text::of(
        tongue,
        "SELECT {machine_alerts.id}, {machine_alerts.serial_no}, {machine_alerts.kind}, {machine_alerts.code}, \
         {machine_alerts.state}, CAST({machine_alerts.raised_at} AS CHAR), CAST({machine_alerts.told_at} AS CHAR) FROM {machine_alerts} WHERE ",
    );
    for (number, key) in padded(keys).into_iter().enumerate() {
        text.raw(if number == 0 { "" } else { " OR " });
        text.push(
            tongue,
            "({machine_alerts.serial_no} = ? AND {machine_alerts.kind} = ? AND {machine_alerts.code} = ?)",
        );
        text.bind(key.serial_no.as_str()).bind(key.kind).bind(key.code.as_str());
    }
    for_update(text, tongue)
}

/// Rows for alerts that are new, of a size that [`parts`](super::parts) gives, each with how often it came.
#[must_use]
pub fn raise(tongue: Tongue<'_>, alerts: &[(Alert, i64)], now: &str) -> Statement {
    let columns = [
        "serial_no",
        "kind",
        "code",
        "level",
        "message",
        "details",
        "occurrences",
        "state",
        "attempts",
        "raised_at",
        "next_attempt_at",
        "created_at",
        "updated_at",
    ];
    let rows = alerts.iter().map(|(alert, times)| {
        vec![
            alert.key.serial_no.as_str().into(),
            alert.key.kind.into(),
            alert.key.code.as_str().into(),
            alert.level.as_str().into(),
            alert.message.as_str().into(),
            alert.details.as_str().into(),
            (*times).into(),
            PENDING.into(),
            0.into(),
            now.into(),
            now.into(),
            now.into(),
            now.into(),
        ]
    });
    insert(tongue, "machine_alerts", &columns, rows)
}

/// Tells a row again: its window is over. What was counted in it and not told is told now.
#[must_use]
pub fn again(tongue: Tongue<'_>, id: i64, alert: &Alert, times: i64, now: &str) -> Statement {
    let mut text = Text::of(
        tongue,
        "UPDATE {machine_alerts} SET {machine_alerts.level} = ?, {machine_alerts.message} = ?, {machine_alerts.details} = ?, \
         {machine_alerts.occurrences} = {machine_alerts.occurrences} + ?, {machine_alerts.state} = ?, {machine_alerts.attempts} = 0, {machine_alerts.raised_at} = ?, \
         {machine_alerts.next_attempt_at} = ?",
    );
    text.bind(alert.level.as_str()).bind(alert.message.as_str()).bind(alert.details.as_str()).bind(times);
    text.bind(PENDING).bind(now).bind(now);
    touched(&mut text, tongue, now);
    text.push(tongue, " WHERE {machine_alerts.id} = ?").bind(id);
    text.done()
}

/// Counts what is not told.
#[must_use]
pub fn count(tongue: Tongue<'_>, id: i64, times: i64, now: &str) -> Statement {
    let mut text =
        Text::of(tongue, "UPDATE {machine_alerts} SET {machine_alerts.occurrences} = {machine_alerts.occurrences} + ?");
    text.bind(times);
    touched(&mut text, tongue, now);
    text.push(tongue, " WHERE {machine_alerts.id} = ?").bind(id);
    text.done()
}

/// Alerts that are to be told now: id, serial number, kind, code, level, message, details, occurrences, attempts, when it was raised.
#[must_use]
pub fn due(tongue: Tongue<'_>, now: &str, most: i64) -> Statement {
    let mut text = Text::of(
        tongue,
        "SELECT {machine_alerts.id}, {machine_alerts.serial_no}, {machine_alerts.kind}, {machine_alerts.code}, \
         {machine_alerts.level}, {machine_alerts.message}, {machine_alerts.details}, {machine_alerts.occurrences}, \
         {machine_alerts.attempts}, CAST({machine_alerts.raised_at} AS CHAR) FROM {machine_alerts} \
         WHERE {machine_alerts.state} = ? AND {machine_alerts.next_attempt_at} <= ? ORDER BY {machine_alerts.id} LIMIT ?",
    );
    text.bind(PENDING).bind(now).bind(most);
    for_update(text, tongue)
}

/// Takes alerts for one attempt: nobody else tells them until `until`.
#[must_use]
pub fn claim(tongue: Tongue<'_>, ids: &[i64], until: &str) -> Statement {
    let mut text = Text::of(
        tongue,
        "UPDATE {machine_alerts} SET {machine_alerts.attempts} = {machine_alerts.attempts} + 1, {machine_alerts.next_attempt_at} = ? \
         WHERE {machine_alerts.id} IN (",
    );
    text.bind(until).list(ids.iter().copied()).raw(")");
    text.done()
}

/// What became of an attempt.
#[must_use]
pub fn settle(tongue: Tongue<'_>, zone: Zone, id: i64, state: &str, next: Option<Timestamp>, now: &str) -> Statement {
    let mut text = Text::of(
        tongue,
        "UPDATE {machine_alerts} SET {machine_alerts.state} = ?, {machine_alerts.next_attempt_at} = ?",
    );
    text.bind(state).bind(next.map(|next| zone.write(next)));
    if state == TOLD {
        text.push(tongue, ", {machine_alerts.told_at} = ?").bind(now);
    }
    touched(&mut text, tongue, now);
    text.push(tongue, " WHERE {machine_alerts.id} = ? AND {machine_alerts.state} = ?").bind(id).bind(PENDING);
    text.done()
}

fn touched(text: &mut Text, tongue: Tongue<'_>, now: &str) {
    if let Some(column) = tongue.names.column("machine_alerts", "updated_at") {
        text.raw(&format!(", `{column}` = ?")).bind(now);
    }
}
