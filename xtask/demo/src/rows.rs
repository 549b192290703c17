//! What becomes of it: the database's rows as they appear, commands as they go their way, dead letters.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tokio::time::{sleep, timeout};

use crate::machines::serial_no;

/// How often the database is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long the back end may take to make its tables.
const START: Duration = Duration::from_secs(30);
/// The most lines at one look: more than a person reads.
const SHOWN: usize = 20;
/// How much of a list's end is looked at.
const LETTERS: isize = 200;
/// What is in the slot that the machines sell from.
const STOCK: i64 = 1_000;

/// The back end's database, once it has its tables.
pub(crate) async fn open(file: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(10));
    let pool = SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options);
    let ready = async {
        while sqlx::query("SELECT 1 FROM machine_commands").fetch_optional(&pool).await.is_err() {
            sleep(LOOK).await;
        }
    };
    timeout(START, ready).await.context("the back end made no tables; its log above says why")?;
    Ok(pool)
}

/// Fills the slot that each machine sells from, as an application would.
pub(crate) async fn fill(pool: &SqlitePool, machines: u32) -> Result<()> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    for number in 1..=machines {
        let slot =
            "INSERT INTO machine_slots (machine_id, slot_no, stock) SELECT id, 5, ? FROM machines WHERE serial_no = ?";
        let machine = "INSERT INTO machines (serial_no) VALUES (?)";
        sqlx::query(machine).bind(serial_no(number)).execute(&mut *transaction).await?;
        sqlx::query(slot).bind(STOCK).bind(serial_no(number)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Shows what appears.
pub(crate) async fn show(pool: SqlitePool, redis: SocketAddr) -> Result<()> {
    let client = redis::Client::open(format!("redis://{redis}"))?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let (mut seen, mut letters) = (Seen::default(), [Vec::new(), Vec::new()]);
    loop {
        let mut lines = seen.look(&pool).await?;
        for (list, before) in ["mqtt_dead_letters", "mqtt_job_dead_letters"].into_iter().zip(&mut letters) {
            let mut end = redis::cmd("LRANGE");
            let end: Vec<String> = end.arg(list).arg(-LETTERS).arg(-1).query_async(&mut redis).await?;
            lines.extend(added(before, &end).iter().map(|letter| line("", "dead letter", letter)));
            *before = end;
        }
        for line in lines.iter().take(SHOWN) {
            println!("{line}");
        }
        if lines.len() > SHOWN {
            println!("{:>12}  and {} more", "", lines.len() - SHOWN);
        }
        sleep(LOOK).await;
    }
}

fn line(who: &str, what: &str, rest: &str) -> String {
    format!("{who:>12}  {what:<12}  {rest}")
}

/// What was shown already.
#[derive(Default)]
struct Seen {
    transaction: i64,
    log: i64,
    /// All commands up to this one have ended.
    command: i64,
    /// What each of the others has been, in order.
    states: BTreeMap<i64, Vec<String>>,
    heard: BTreeMap<String, String>,
}

impl Seen {
    /// The lines for what is new.
    async fn look(&mut self, pool: &SqlitePool) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let heard: Vec<(String, String, Option<f64>, Option<i64>)> = sqlx::query_as(
            "SELECT serial_no, last_heard_at, temperature, current_page FROM machines WHERE last_heard_at IS NOT NULL ORDER BY serial_no",
        )
        .fetch_all(pool)
        .await?;
        for (serial_no, at, temperature, page) in heard {
            if self.heard.get(&serial_no) != Some(&at) {
                let temperature = temperature.map_or_else(String::new, |degrees| format!(", temperature {degrees}"));
                let page = page.map_or_else(String::new, |page| format!(", current_page {page}"));
                lines.push(line(
                    &serial_no,
                    "heartbeat",
                    &format!("row in machines: last_heard_at {at}{temperature}{page}"),
                ));
                self.heard.insert(serial_no, at);
            }
        }
        let sold: Vec<(i64, String, String, i64, String, Option<i64>)> = sqlx::query_as(
            "SELECT t.id, m.serial_no, t.transaction_id, t.slot_no, CAST(t.amount AS TEXT), s.stock FROM transactions t \
             JOIN machines m ON m.id = t.machine_id \
             LEFT JOIN machine_slots s ON s.machine_id = t.machine_id AND s.slot_no = t.slot_no WHERE t.id > ? ORDER BY t.id",
        )
        .bind(self.transaction)
        .fetch_all(pool)
        .await?;
        for (id, serial_no, name, slot, amount, stock) in sold {
            self.transaction = id;
            let stock = stock.map_or_else(|| "unknown".to_owned(), |stock| stock.to_string());
            let rest = format!("row {id} in transactions: {name}, amount {amount}; stock of slot {slot} now {stock}");
            lines.push(line(&serial_no, "transaction", &rest));
        }
        let logged: Vec<(i64, String, String, String, String)> = sqlx::query_as(
            "SELECT l.id, m.serial_no, l.level, l.code, l.message FROM machine_logs l JOIN machines m ON m.id = l.machine_id \
             WHERE l.id > ? ORDER BY l.id",
        )
        .bind(self.log)
        .fetch_all(pool)
        .await?;
        for (id, serial_no, level, code, message) in logged {
            self.log = id;
            lines.push(line(&serial_no, "error", &format!("row {id} in machine_logs: {level} {code}, {message}")));
        }
        lines.extend(self.commands(pool).await?);
        Ok(lines)
    }

    async fn commands(&mut self, pool: &SqlitePool) -> Result<Vec<String>> {
        let commands: Vec<(i64, String, String, String)> = sqlx::query_as(
            "SELECT id, serial_no, command, state FROM machine_commands WHERE id > ? ORDER BY id LIMIT 100",
        )
        .bind(self.command)
        .fetch_all(pool)
        .await?;
        let mut lines = Vec::new();
        for (id, serial_no, command, state) in commands {
            let seen = self.states.entry(id).or_default();
            if seen.last() == Some(&state) {
                continue;
            }
            // It was that, whether or not it was seen.
            if seen.is_empty() && state != "queued" {
                seen.push("queued".to_owned());
            }
            seen.push(state.clone());
            if !["queued", "sent"].contains(&&*state) {
                lines.push(line(
                    &serial_no,
                    "command",
                    &format!("row {id} in machine_commands: {command} {}", seen.join(" → ")),
                ));
            }
        }
        // One whose machine never acknowledges stays `sent`, and must not hold up the memory of all others.
        while let Some((&id, seen)) = self.states.first_key_value() {
            let ended = seen.last().is_some_and(|state| !["queued", "sent"].contains(&&**state));
            if !ended && self.states.len() < 50 {
                break;
            }
            self.states.pop_first();
            self.command = id;
        }
        Ok(lines)
    }
}

/// What was appended to a list, of which the end was `before` and is `now`: others may take from its head meanwhile, so that no
/// place in it says so.
fn added<'a>(before: &[String], now: &'a [String]) -> &'a [String] {
    (0..=before.len()).find_map(|gone| now.strip_prefix(&before[gone..])).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, now: &str, expected: &str) {
        let list = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        assert_eq!(added(&list(before), &list(now)), list(expected));
    }

    #[test]
    fn what_is_new_is_shown_once_whoever_takes_from_the_list() {
        check("", "abc", "abc");
        check("abc", "abc", "");
        check("abc", "abcd", "d");
        // Two were taken, one came; all were taken; more came than is looked at.
        check("abc", "cd", "d");
        check("abc", "", "");
        check("abc", "de", "de");
        check("abc", "bcd", "d");
    }
}
