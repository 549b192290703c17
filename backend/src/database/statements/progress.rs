//! How far each lane of a listener came; and the fence: what another took over is not committed any more.

use super::{Dialect, Text, Tongue, insert};
use crate::database::session::Statement;
use crate::domain::lanes::Progress;

/// Rows for the lanes of a listener, where it has none yet.
#[must_use]
pub fn create(tongue: Tongue<'_>, listener: &str, lanes: u32, now: &str) -> Statement {
    let rows = (0..lanes).map(|lane| {
        let zero = || 0_i64.into();
        vec![listener.into(), i64::from(lane).into(), zero(), zero(), zero(), zero(), zero(), now.into()]
    });
    let columns = ["listener", "lane", "epoch", "batch", "size", "lanes", "done", "updated_at"];
    let mut statement = insert(tongue, "listener_progress", &columns, rows);
    statement.sql.push_str(&match tongue.dialect {
        Dialect::MySql => {
            tongue.names.fill(" ON DUPLICATE KEY UPDATE {listener_progress.lane} = {listener_progress.lane}")
        }
        Dialect::Sqlite => " ON CONFLICT DO NOTHING".to_owned(),
    });
    statement
}

/// From now on what was begun under an older epoch is not committed. It waits for what is being committed.
#[must_use]
pub fn fence(tongue: Tongue<'_>, listener: &str) -> Statement {
    let mut text = Text::of(
        tongue,
        "UPDATE {listener_progress} SET {listener_progress.epoch} = {listener_progress.epoch} + 1 \
         WHERE {listener_progress.listener} = ?",
    );
    text.bind(listener);
    text.done()
}

/// All its lanes have one epoch, those too that were just made.
#[must_use]
pub fn level(tongue: Tongue<'_>, listener: &str, epoch: i64) -> Statement {
    let mut text = Text::of(
        tongue,
        "UPDATE {listener_progress} SET {listener_progress.epoch} = ? WHERE {listener_progress.listener} = ?",
    );
    text.bind(epoch).bind(listener);
    text.done()
}

/// Its rows: lane, epoch, batch, size, lanes, done.
#[must_use]
pub fn read(tongue: Tongue<'_>, listener: &str) -> Statement {
    let mut text = Text::of(
        tongue,
        "SELECT {listener_progress.lane}, {listener_progress.epoch}, {listener_progress.batch}, {listener_progress.size}, \
         {listener_progress.lanes}, {listener_progress.done} FROM {listener_progress} WHERE {listener_progress.listener} = ?",
    );
    text.bind(listener);
    text.done()
}

/// Notes how far a lane came, where its epoch is still in force and it is not as far already: else it is about no row.
#[must_use]
pub fn note(tongue: Tongue<'_>, listener: &str, epoch: i64, progress: &Progress, now: &str) -> Statement {
    let mut text = Text::of(
        tongue,
        "UPDATE {listener_progress} SET {listener_progress.batch} = ?, {listener_progress.size} = ?, \
         {listener_progress.lanes} = ?, {listener_progress.done} = ?",
    );
    let batch = i64::try_from(progress.batch).unwrap_or(i64::MAX);
    text.bind(batch).bind(i64::from(progress.size)).bind(i64::from(progress.lanes)).bind(i64::from(progress.done));
    if let Some(name) = tongue.names.column("listener_progress", "updated_at") {
        text.raw(&format!(", `{name}` = ?")).bind(now);
    }
    text.push(
        tongue,
        " WHERE {listener_progress.listener} = ? AND {listener_progress.lane} = ? AND {listener_progress.epoch} = ? \
         AND ({listener_progress.batch} <> ? OR {listener_progress.done} < ?)",
    );
    text.bind(listener).bind(i64::from(progress.lane)).bind(epoch).bind(batch).bind(i64::from(progress.done));
    text.done()
}
