//! How fast the back end works off a list: transactions into MariaDB and SQLite by batch size, and what heartbeats cost.
//!
//! The jobs are put into the real Redis at once, as a gateway would after an outage; the time ends when list and processing list are empty.
//! Every row is counted.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::verify::rows::Rows;
use crate::{Backend, MariaDb, RedisServer, eventually};

const MACHINES: u32 = 500;
/// From one look at the lists to the next.
const LOOK: Duration = Duration::from_millis(5);
/// How long a list may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long heartbeats are measured, and in how many parts a second of them comes.
const BEATS: Duration = Duration::from_secs(20);
const PARTS: u32 = 10;
const LISTS: [&str; 2] = ["mqtt_incoming_jobs", "{mqtt_incoming_jobs}:processing:backend-1"];

/// Measures all, and prints the table.
///
/// # Errors
/// Where a row is missing or there twice, or a list is not worked off.
///
/// # Panics
/// Where a server does not start.
pub async fn run(transactions: u32) -> Result<(), String> {
    println!(
        "| database | batch | workers | transactions/s | CPU per transaction |\n| --- | ---: | ---: | ---: | ---: |"
    );
    for (database, batch, workers) in [
        ("mariadb", 1, 4),
        ("mariadb", 10, 4),
        ("mariadb", 100, 4),
        ("mariadb", 500, 1),
        ("mariadb", 500, 4),
        ("mariadb", 1_000, 4),
        ("sqlite", 1, 1),
        ("sqlite", 10, 1),
        ("sqlite", 100, 1),
        ("sqlite", 500, 1),
        ("sqlite", 1_000, 1),
    ] {
        // One at a time is two orders slower.
        let transactions = if batch == 1 { transactions.div_ceil(20) } else { transactions };
        let mut stage = Stage::start(database, &format!("[listener]\nbatch = {batch}\nworkers = {workers}\n")).await?;
        let (took, cpu) = stage.work(&jobs(transactions)).await?;
        let rows = stage.rows.count("transactions").await?;
        if rows != u64::from(transactions) {
            return Err(format!("{database}, batch {batch}: {rows} rows of {transactions} transactions"));
        }
        println!(
            "| {database} | {batch} | {workers} | {:.0} | {:.0} µs |",
            f64::from(transactions) / took.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / f64::from(transactions),
        );
    }
    println!("\n| database | heartbeats/s | CPU of the back end, in hundredths of a core |\n| --- | ---: | ---: |");
    for database in ["mariadb", "sqlite"] {
        let mut stage = Stage::start(database, "").await?;
        let cpu = stage.beat().await?;
        println!("| {database} | {MACHINES} | {:.1} |", cpu * 100.0);
    }
    Ok(())
}

fn serial_no(machine: u32) -> String {
    format!("M-{:04}", machine % MACHINES)
}

fn jobs(transactions: u32) -> Vec<String> {
    let job = |number: u32| {
        format!(
            r#"{{"type":"transaction","serial_no":"{}","payload":{{"transaction_id":"T-{number}","slot_no":{},"amount":12.30,"payment_type":"card"}},"received_at":"2026-04-14T09:00:00+08:00"}}"#,
            serial_no(number),
            number / MACHINES % 10 + 1,
        )
    };
    (0..transactions).map(job).collect()
}

fn heartbeat(machine: u32, second: u32) -> String {
    format!(
        r#"{{"type":"heartbeat","serial_no":"{}","payload":{{"current_page":1,"temperature":25.5}},"received_at":"2026-04-14T09:{:02}:{:02}+08:00"}}"#,
        serial_no(machine),
        second / 60,
        second % 60,
    )
}

struct Stage {
    // Dropped in this order: whoever uses a server goes before it.
    backend: Backend,
    connection: MultiplexedConnection,
    rows: Rows,
    _redis: RedisServer,
    _mariadb: Option<MariaDb>,
    _folder: TempDir,
}

impl Stage {
    /// All of it, each machine known and with ten slots.
    async fn start(database: &str, settings: &str) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let redis = RedisServer::start().await;
        let mariadb = if database == "mariadb" { Some(MariaDb::start().await) } else { None };
        let (url, rows) = match &mariadb {
            Some(mariadb) => (mariadb.url(), Rows::mysql(&mariadb.url())?),
            None => ("sqlite:backend.db".to_owned(), Rows::sqlite(&folder.path().join("backend.db"))),
        };
        let backend = Backend::with(folder.path(), redis.port, &url, settings);
        eventually("the back end answers", async || backend.status().await).await;
        let connection = redis.connect().await;
        let mut stage = Self { backend, connection, rows, _redis: redis, _mariadb: mariadb, _folder: folder };
        stage.work(&(0..MACHINES).map(|machine| heartbeat(machine, 0)).collect::<Vec<_>>()).await?;
        let numbers = (1..=10).map(|slot| format!("SELECT {slot} AS slot_no")).collect::<Vec<_>>().join(" UNION ALL ");
        stage
            .rows
            .texts(&format!(
                "INSERT INTO machine_slots (machine_id, slot_no, stock) \
                 SELECT machines.id, slots.slot_no, 1000000 FROM machines CROSS JOIN ({numbers}) AS slots"
            ))
            .await?;
        Ok(stage)
    }

    /// Puts the jobs on the list, and waits until they are worked off: how long that took, and what the back end computed.
    async fn work(&mut self, jobs: &[String]) -> Result<(Duration, Duration), String> {
        let (began, computed) = (Instant::now(), self.backend.cpu_time());
        for jobs in jobs.chunks(1_000) {
            self.push(jobs).await?;
        }
        timeout(PATIENCE, self.empty()).await.map_err(|_| "the list is not worked off".to_owned())??;
        Ok((began.elapsed(), self.backend.cpu_time() - computed))
    }

    /// Machines' heartbeats, one a second each: the part of a core that they cost.
    async fn beat(&mut self) -> Result<f64, String> {
        let mut parts = interval(Duration::from_secs(1) / PARTS);
        parts.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (began, computed) = (Instant::now(), self.backend.cpu_time());
        let mut part = 0;
        while began.elapsed() < BEATS {
            parts.tick().await;
            let machines = (0..MACHINES).skip((part % PARTS) as usize).step_by(PARTS as usize);
            let jobs: Vec<String> = machines.map(|machine| heartbeat(machine, 1 + part / PARTS)).collect();
            self.push(&jobs).await?;
            part += 1;
        }
        timeout(PATIENCE, self.empty()).await.map_err(|_| "the heartbeats are not worked off".to_owned())??;
        Ok((self.backend.cpu_time() - computed).as_secs_f64() / began.elapsed().as_secs_f64())
    }

    async fn push(&mut self, jobs: &[String]) -> Result<(), String> {
        let mut push = redis::cmd("RPUSH");
        push.arg(LISTS[0]).arg(jobs);
        push.query_async(&mut self.connection).await.map_err(|error| error.to_string())
    }

    async fn empty(&mut self) -> Result<(), String> {
        loop {
            let mut lengths = redis::pipe();
            // One step for both, or a batch on its way from one to the other is in neither.
            lengths.atomic();
            for list in LISTS {
                lengths.cmd("LLEN").arg(list);
            }
            let lengths: Vec<u64> =
                lengths.query_async(&mut self.connection).await.map_err(|error| error.to_string())?;
            if lengths.iter().all(|length| *length == 0) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }
}
