//! Commands and their states.

use jiff::Timestamp;

use super::machines::for_update;
use super::{Text, Tongue, insert};
use crate::database::session::Statement;
use crate::domain::command::{PRESUMED, State, Step};
use crate::domain::time::Zone;

/// What a command is, once it has its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New<'a> {
    /// Its id.
    pub message_id: &'a str,
    /// For whom.
    pub serial_no: &'a str,
    /// What to do.
    pub command: &'a str,
    /// JSON.
    pub payload: &'a str,
    /// Until when it may be sent.
    pub expires_at: Timestamp,
}

/// A command that is not pushed yet.
#[must_use]
pub fn create(tongue: Tongue<'_>, zone: Zone, new: &New<'_>, now: &str) -> Statement {
    let columns = ["message_id", "serial_no", "command", "payload", "state", "expires_at", "created_at", "updated_at"];
    let row = vec![
        new.message_id.into(),
        new.serial_no.into(),
        new.command.into(),
        new.payload.into(),
        State::Queued.word().into(),
        zone.write(new.expires_at).into(),
        now.into(),
        now.into(),
    ];
    insert(tongue, "machine_commands", &columns, [row])
}

/// One command: serial number, command, payload, state, reason, and when it was made, pushed, sent, settled, and until when it may be sent.
#[must_use]
pub fn find(tongue: Tongue<'_>, message_id: &str) -> Statement {
    let mut text = Text::of(
        tongue,
        "SELECT {machine_commands.serial_no}, {machine_commands.command}, {machine_commands.payload}, {machine_commands.state}, \
         {machine_commands.reason}, CAST({machine_commands.created_at} AS CHAR), CAST({machine_commands.pushed_at} AS CHAR), \
         CAST({machine_commands.sent_at} AS CHAR), CAST({machine_commands.settled_at} AS CHAR), \
         CAST({machine_commands.expires_at} AS CHAR) FROM {machine_commands} WHERE {machine_commands.message_id} = ?",
    );
    text.bind(message_id);
    text.done()
}

/// How many commands are in which state.
#[must_use]
pub fn by_state(tongue: Tongue<'_>) -> Statement {
    Text::of(
        tongue,
        "SELECT {machine_commands.state}, COUNT(*) FROM {machine_commands} GROUP BY {machine_commands.state}",
    )
    .done()
}

/// Commands that are not pushed yet, in their order: id, message id, serial number, command, payload, until when. The rows are this
/// transaction's until it ends, so that two that push wait for each other.
#[must_use]
pub fn to_push(tongue: Tongue<'_>, most: i64) -> Statement {
    let mut text = Text::of(
        tongue,
        "SELECT {machine_commands.id}, {machine_commands.message_id}, {machine_commands.serial_no}, {machine_commands.command}, \
         {machine_commands.payload}, CAST({machine_commands.expires_at} AS CHAR) FROM {machine_commands} \
         WHERE {machine_commands.state} = ? AND {machine_commands.pushed_at} IS NULL ORDER BY {machine_commands.id} LIMIT ?",
    );
    text.bind(State::Queued.word()).bind(most);
    for_update(text, tongue)
}

/// Notes that commands are pushed.
#[must_use]
pub fn pushed(tongue: Tongue<'_>, ids: &[i64], now: &str) -> Statement {
    let mut text = Text::of(tongue, "UPDATE {machine_commands} SET {machine_commands.pushed_at} = ?");
    text.bind(now);
    touched(&mut text, tongue, now);
    text.push(tongue, " WHERE {machine_commands.id} IN (").list(ids.iter().copied()).raw(")");
    text.done()
}

/// Commands whose time is over and of which nobody told anything expire.
#[must_use]
pub fn expire(tongue: Tongue<'_>, before: &str, now: &str) -> Statement {
    let mut text = Text::of(
        tongue,
        "UPDATE {machine_commands} SET {machine_commands.state} = ?, {machine_commands.reason} = ?, {machine_commands.settled_at} = ?",
    );
    text.bind(State::Expired.word()).bind(PRESUMED).bind(now);
    touched(&mut text, tongue, now);
    text.push(tongue, " WHERE {machine_commands.state} = ? AND {machine_commands.expires_at} < ?");
    text.bind(State::Queued.word()).bind(before);
    text.done()
}

/// Moves a machine's command, where it is not as far already. That it was sent is told of one, too, that was only presumed to have expired.
#[must_use]
pub fn step(tongue: Tongue<'_>, zone: Zone, step: &Step, now: &str) -> Statement {
    // What people need to know stands at its beginning; the reason of the state before holds no longer.
    let reason = step.reason.as_ref().map(|reason| reason.chars().take(2_000).collect::<String>());
    let mut text =
        Text::of(tongue, "UPDATE {machine_commands} SET {machine_commands.state} = ?, {machine_commands.reason} = ?");
    text.bind(step.state.word()).bind(reason);
    let at = zone.write(step.at);
    if step.state == State::Sent {
        text.push(tongue, ", {machine_commands.sent_at} = ?, {machine_commands.settled_at} = NULL").bind(at);
    } else {
        text.push(tongue, ", {machine_commands.settled_at} = ?").bind(at);
    }
    touched(&mut text, tongue, now);
    text.push(
        tongue,
        " WHERE {machine_commands.message_id} = ? AND {machine_commands.serial_no} = ? AND ({machine_commands.state} IN (",
    );
    text.bind(step.message_id.as_str()).bind(step.serial_no.as_str());
    text.list(step.state.before().map(State::word)).raw(")");
    if step.state == State::Sent {
        text.push(tongue, " OR ({machine_commands.state} = ? AND {machine_commands.reason} = ?)");
        text.bind(State::Expired.word()).bind(PRESUMED);
    }
    text.raw(")");
    text.done()
}

fn touched(text: &mut Text, tongue: Tongue<'_>, now: &str) {
    if let Some(column) = tongue.names.column("machine_commands", "updated_at") {
        text.raw(&format!(", `{column}` = ?")).bind(now);
    }
}
