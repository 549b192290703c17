//! What people are told. An alert is a row, written in the transaction of the job that raised it; from there it is sent until the webhook took
//! it, or no attempt is left. So none is lost with the process, and several processes tell it once.
//!
//! - [`webhook`]: one request, signed.
//! - [`offline`]: machines of which nothing was heard.

pub mod offline;
pub mod webhook;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sluicegate_core::text::terminal;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Patience};
use crate::database::Database;
use crate::database::fault::Fault;
use crate::database::statements::alerts;
use crate::domain::alert::retry_after;
use crate::settings;
use crate::{clock, metrics};
use webhook::Webhook;

/// How often rows that are due are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// The most that are sent at once.
const AT_ONCE: i64 = 8;
/// How much longer than an answer may take nobody else tells an alert.
const CLAIM: Duration = Duration::from_secs(5);
/// The most bytes of a machine's words in the log.
const MAX_TEXT: usize = 300;

/// An alert that is due.
struct Due {
    id: i64,
    attempts: u32,
    body: Value,
}

/// Tells what is due, until `stop`.
pub async fn run(database: Database, board: Arc<Board>, settings: settings::Alerts, stop: CancellationToken) {
    let webhook = settings.webhook.as_ref().map(Webhook::new);
    let mut patience = Patience::new(&board, "telling alerts");
    loop {
        let delay = match round(&database, &settings, webhook.as_ref()).await {
            // More may be due.
            Ok(told) if told == usize::try_from(AT_ONCE).unwrap_or_default() => Duration::ZERO,
            Ok(_) => {
                patience.good();
                LOOK
            }
            Err(fault) => patience.bad(&fault),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// One round; how many were due.
async fn round(database: &Database, settings: &settings::Alerts, webhook: Option<&Webhook>) -> Result<usize, Fault> {
    let due = database.within(claim(database, settings)).await?;
    let told = join_all(due.iter().map(|due| tell(due, webhook))).await;
    for (due, told) in due.iter().zip(told) {
        let now = clock::now();
        let (state, next) = match told {
            Ok(()) => {
                metrics::alert("told");
                (alerts::TOLD, None)
            }
            Err(reason) if due.attempts >= settings.attempts => {
                tracing::error!(alert = due.id, attempts = due.attempts, reason, "an alert is given up");
                metrics::alert("given-up");
                (alerts::FAILED, None)
            }
            Err(reason) => {
                tracing::warn!(
                    alert = due.id,
                    attempts = due.attempts,
                    reason,
                    "the webhook did not take an alert; trying again"
                );
                metrics::alert("retried");
                (alerts::PENDING, now.checked_add(retry_after(due.attempts)).ok())
            }
        };
        let settle =
            alerts::settle(database.tongue(), database.zone(), due.id, state, next, &database.zone().write(now));
        let settling = async {
            let mut session = database.begin().await?;
            session.execute(&settle).await?;
            session.commit().await
        };
        database.within(settling).await?;
    }
    Ok(due.len())
}

async fn claim(database: &Database, settings: &settings::Alerts) -> Result<Vec<Due>, Fault> {
    let (tongue, zone, now) = (database.tongue(), database.zone(), clock::now());
    let mut session = database.begin().await?;
    let mut due = Vec::new();
    for row in session.rows(&alerts::due(tongue, &zone.write(now), AT_ONCE)).await? {
        let raised = row.text(9)?.and_then(|text| zone.read(&text)).unwrap_or(now);
        let details = row.must_text(6)?;
        due.push(Due {
            id: row.must_int(0)?,
            attempts: u32::try_from(row.must_int(8)?).unwrap_or(u32::MAX).saturating_add(1),
            body: json!({
                "id": row.must_int(0)?,
                "serial_no": row.must_text(1)?,
                "kind": row.must_text(2)?,
                "code": row.must_text(3)?,
                "level": row.must_text(4)?,
                "message": row.must_text(5)?,
                "details": serde_json::from_str::<Value>(&details).unwrap_or(Value::String(details)),
                "occurrences": row.must_int(7)?,
                "raised_at": raised.to_string(),
            }),
        });
    }
    if due.is_empty() {
        return Ok(due);
    }
    let timeout = settings.webhook.as_ref().map_or(Duration::ZERO, |webhook| webhook.timeout);
    let until = now.checked_add(timeout + CLAIM).unwrap_or(now);
    let ids: Vec<i64> = due.iter().map(|due| due.id).collect();
    session.execute(&alerts::claim(tongue, &ids, &zone.write(until))).await?;
    session.commit().await?;
    Ok(due)
}

/// The beginning of what a machine wrote, on one line.
fn for_the_log(text: &str) -> String {
    terminal(&text[..text.floor_char_boundary(MAX_TEXT)])
}

async fn tell(due: &Due, webhook: Option<&Webhook>) -> Result<(), String> {
    if due.attempts == 1 {
        let text = |name: &str| due.body[name].as_str().unwrap_or_default();
        let (machine, kind, code, level) = (text("serial_no"), text("kind"), text("code"), text("level"));
        // `message` is the event's own field: its text would be printed as it is, and what a machine wrote could forge a line.
        let said = for_the_log(text("message"));
        let (machine, code, level) = (for_the_log(machine), for_the_log(code), for_the_log(level));
        tracing::warn!(machine, kind, code, level, text = said, "alert");
    }
    match webhook {
        Some(webhook) => webhook.send(&due.body.to_string()).await,
        None => Ok(()),
    }
}
