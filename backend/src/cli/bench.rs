//! Jobs a second into the database of the settings, by batch size: from a full Redis list to rows, the way that `listen` goes. The list is one
//! of its own; the rows are those of machines `BENCH-…`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::{Code, Failure, Output};
use crate::board::Board;
use crate::clock;
use crate::database::Database;
use crate::database::fault::Fault;
use crate::database::statements::{machines, sales};
use crate::domain::job::Source;
use crate::listener;
use crate::redis::push::Pusher;
use crate::service::{Clients, prepare};
use crate::settings::Settings;

/// How often it is looked at whether all is there.
const LOOK: Duration = Duration::from_millis(2);
/// Entries in one push.
const PAGE: usize = 1_000;
/// Of each machine.
const SLOTS: i64 = 40;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(super) struct Bench {
    /// Jobs of each run.
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Machines that they come from.
    #[arg(long, default_value_t = 500)]
    machines: usize,
    /// Batch sizes.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,500,1000")]
    batches: Vec<usize>,
    /// What the jobs are.
    #[arg(long, value_enum, default_value_t = Kind::Transaction)]
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Heartbeat,
    Transaction,
}

pub(super) async fn run(settings: &Settings, bench: &Bench, output: &Output) -> Result<Code, Failure> {
    if bench.jobs == 0 || bench.machines == 0 || bench.batches.iter().any(|batch| !(1..=1_000).contains(batch)) {
        let message = "--jobs and --machines must be 1 or more, --batches from 1 to 1000";
        return Err(Failure::new(Code::Usage, message, "sluicegate-backend bench --help"));
    }
    let clients = Clients::new(settings)?;
    let board = Arc::new(Board::default());
    prepare(&clients.database, settings.database.migrate, &board).await;
    fill(&clients.database, bench.machines).await?;
    let mut rows = Vec::new();
    output.people("batch   jobs/s   µs of this process's processor time a job\n");
    for batch in &bench.batches {
        let run = format!("bench-{:08x}", clock::chance());
        let list = format!("{}sluicegate:{run}", settings.redis.key_prefix);
        let mut pusher = Pusher::new(clients.redis.clone(), list, None);
        let jobs: Vec<String> = (0..bench.jobs).map(|number| job(bench, &run, number)).collect();
        for page in jobs.chunks(PAGE) {
            pusher.push(page).await?;
        }
        let board = Arc::new(Board::default());
        let source = Source::Jobs(settings.types.clone());
        let mut parts = clients.parts(settings, &board, &format!("sluicegate:{run}"), source);
        parts.batch = *batch;
        parts.instance = run;
        let stop = CancellationToken::new();
        let (began, used) = (Instant::now(), processor_time());
        let watching = async {
            while (board.said().committed + board.said().dead) < bench.jobs as u64 {
                tokio::time::sleep(LOOK).await;
            }
            let taken = (began.elapsed(), processor_time().saturating_sub(used));
            stop.cancel();
            taken
        };
        let ((elapsed, used), ()) = tokio::join!(watching, listener::run::run(parts, stop.clone()));
        let rate = bench.jobs as f64 / elapsed.as_secs_f64();
        let each = used.as_secs_f64() * 1e6 / bench.jobs as f64;
        output.people(&format!("{batch:5} {rate:8.0} {each:8.1}\n"));
        rows.push(
            json!({ "batch": batch, "jobs_per_second": rate, "processor_us_per_job": each, "dead": board.said().dead }),
        );
    }
    Ok(output.good("", &json!({ "runs": rows })))
}

/// The machines have rows and full slots: what is measured is what a day is made of.
async fn fill(database: &Database, count: usize) -> Result<(), Fault> {
    let (tongue, now) = (database.tongue(), database.zone().write(clock::now()));
    let names: Vec<String> = (0..count).map(|machine| format!("BENCH-{machine:04}")).collect();
    for part in names.chunks(100) {
        let mut session = database.begin().await?;
        let names = || part.iter().map(String::as_str);
        session.execute(&machines::create(tongue, names(), &now)).await?;
        let mut ids = Vec::new();
        for row in session.rows(&machines::find(tongue, names())).await? {
            ids.push(row.must_int(0)?);
        }
        let slots = ids.iter().flat_map(|id| (0..SLOTS).map(|slot| (*id, slot)));
        session.execute(&sales::fill(tongue, slots, i64::from(i32::MAX), &now)).await?;
        session.commit().await?;
    }
    Ok(())
}

fn job(bench: &Bench, run: &str, number: usize) -> String {
    let machine = number % bench.machines;
    let at = clock::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    match bench.kind {
        Kind::Heartbeat => format!(
            r#"{{"type":"heartbeat","serial_no":"BENCH-{machine:04}","payload":{{"current_page":{},"temperature":25.5}},"received_at":"{at}"}}"#,
            number % 10,
        ),
        Kind::Transaction => format!(
            r#"{{"type":"transaction","serial_no":"BENCH-{machine:04}","payload":{{"transaction_id":"{run}-{number}","slot_no":{},"amount":12.30,"payment_type":"card"}},"received_at":"{at}"}}"#,
            number as i64 % SLOTS,
        ),
    }
}

/// What this process has used of the processors: fields 14 and 15 of proc(5), in hundredths of a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name, in parentheses.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}
