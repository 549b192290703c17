//! Machines of which nothing was heard, and those that are heard again. While jobs wait in the list for longer than that, nobody is called
//! offline: it is the back end then that has not heard them yet.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Patience};
use crate::clock;
use crate::database::Database;
use crate::database::apply::note_alerts;
use crate::database::fault::Fault;
use crate::database::statements::machines;
use crate::domain::alert::{Alert, Key, Kind};
use crate::domain::job::Source;
use crate::redis::connect::{Connector, RedisFault};
use crate::redis::lists::{Keeper, ListKeys};
use crate::settings;

/// Machines in one transaction.
const PAGE: i64 = 200;

/// Where jobs wait.
pub struct Waiting {
    /// Redis.
    pub redis: Connector,
    /// The list.
    pub keys: ListKeys,
    /// What its entries are.
    pub source: Source,
}

/// Why nobody looked.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] RedisFault),
    #[error(transparent)]
    Database(#[from] Fault),
}

/// Looks every so often, until `stop`.
pub async fn run(
    database: Database,
    board: Arc<Board>,
    waiting: Waiting,
    settings: settings::Alerts,
    stop: CancellationToken,
) {
    if settings.offline_after.is_zero() {
        return;
    }
    let mut keeper = Keeper::new(waiting.redis.clone(), waiting.keys.clone());
    let mut patience = Patience::new(&board, "looking for machines that are offline");
    loop {
        let delay = match look(&database, &mut keeper, &waiting.source, &settings).await {
            Ok(()) => {
                patience.good();
                settings.offline_every
            }
            Err(trouble) => patience.bad(&trouble),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

async fn look(
    database: &Database,
    keeper: &mut Keeper,
    source: &Source,
    settings: &settings::Alerts,
) -> Result<(), Trouble> {
    let now = clock::now();
    let (_, oldest) = keeper.waiting().await?;
    let waits = oldest.and_then(|entry| source.read(&entry).ok()).map(|job| now.duration_since(job.received_at));
    if waits.is_some_and(|waits| waits.is_positive() && waits.unsigned_abs() > settings.offline_after / 2) {
        tracing::debug!("jobs wait for longer than a machine may be silent; nobody is called offline");
        return Ok(());
    }
    for kind in [Kind::Recovered, Kind::Offline] {
        let mut behind = Some(0);
        while let Some(id) = behind {
            behind = database.within(page(database, kind, settings, now, id)).await?;
        }
    }
    Ok(())
}

/// One transaction, from behind an id on; the last id that it saw, where there may be more.
async fn page(
    database: &Database,
    kind: Kind,
    settings: &settings::Alerts,
    now: Timestamp,
    behind: i64,
) -> Result<Option<i64>, Fault> {
    let (tongue, zone) = (database.tongue(), database.zone());
    let limit = now.checked_sub(settings.offline_after).unwrap_or(now);
    let statement = match kind {
        Kind::Offline => machines::gone(tongue, zone, limit, behind, PAGE),
        _ => machines::back(tongue, zone, limit, behind, PAGE),
    };
    let mut session = database.begin().await?;
    let (mut ids, mut alerts) = (Vec::new(), Vec::new());
    for row in session.rows(&statement).await? {
        let heard = row.text(2)?.and_then(|text| zone.read(&text)).unwrap_or(now);
        let alert = alert(kind, row.must_text(1)?, heard, now);
        ids.push((row.must_int(0)?, alert.key.clone()));
        alerts.push(alert);
    }
    let Some((last, _)) = ids.last() else { return Ok(None) };
    let more = i64::try_from(ids.len()).is_ok_and(|count| count == PAGE).then_some(*last);
    let raised = note_alerts(database, &mut session, alerts, settings.window, now).await?;
    // What may not be told before its window is over is not marked: the next look finds it again, or finds that it is so no more. Marked, nobody would
    // ever be told, and the last that people heard would be wrong.
    let told: Vec<i64> = ids.iter().filter(|(_, key)| raised.contains(key)).map(|(id, _)| *id).collect();
    if told.is_empty() {
        return Ok(more);
    }
    let mark = zone.write(now);
    session.execute(&machines::mark(tongue, &told, (kind == Kind::Offline).then_some(&*mark))).await?;
    session.commit().await?;
    Ok(more)
}

fn alert(kind: Kind, serial_no: String, heard: Timestamp, now: Timestamp) -> Alert {
    let silent = Duration::from_secs(now.duration_since(heard).unsigned_abs().as_secs());
    let (level, message) = match kind {
        Kind::Offline => ("error", format!("nothing was heard of it for {silent:?}")),
        _ => ("info", "it is heard again".to_owned()),
    };
    Alert {
        key: Key { serial_no, kind: kind.word(), code: kind.word().to_owned() },
        level: level.to_owned(),
        message,
        details: json!({ "last_heard_at": heard.to_string() }).to_string(),
    }
}
