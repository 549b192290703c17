//! The steps, one after the other. One that fails holds up none of the others: a person wants to know all that is wrong.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use super::chart;
use super::count::{Found, STOCK, named};
use super::figures::{Meter, Reading};
use super::load::{Load, Said, serial_no};
use super::report::{Report, Wrong};
use super::single::{self, MACHINE, SINGLE};
use super::stage::Stage;
use crate::wire::Wire;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(50);
/// From one reading to the next.
const SECOND: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many machines publish in the stress run.
    pub machines: u32,
    /// For how long.
    pub length: Duration,
    /// On MariaDB; else on SQLite.
    pub on_mariadb: bool,
    /// Where logs, the chart, and SQLite's file are written.
    pub folder: PathBuf,
    /// How long nothing may change before what is missing counts as lost.
    pub patience: Duration,
}

/// Goes through all steps; whether all were good.
///
/// # Errors
/// Where it cannot even begin.
///
/// # Panics
/// Where a server or the gateway does not start.
pub async fn run(options: &Options) -> Result<bool, String> {
    let database = if options.on_mariadb { "MariaDB" } else { "SQLite" };
    println!(
        "mosquitto (in EMQX's place, and called so in the gateway's settings), redis-server, {database}, gateway, back end\n"
    );
    let mut stage = Stage::start(&options.folder, options.on_mariadb).await?;
    let mut report = Report::default();
    report.step("connected", connected(&stage).await);
    report.step("heartbeat", heartbeat(&stage).await);
    report.step("command", command(&stage).await);
    stress(&mut stage, options, &mut report).await?;
    Ok(report.end())
}

/// Until something is there, or it took too long.
pub(super) async fn until<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if began.elapsed() > limit {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn connected(stage: &Stage) -> Result<String, Wrong> {
    const LINES: [&str; 2] = ["Connected to Redis", "Connected to EMQX"];
    let missing =
        |log: &str| LINES.iter().filter(|line| !log.contains(**line)).copied().collect::<Vec<_>>().join("`, `");
    match until(SINGLE, async || missing(&stage.gateway.log()).is_empty().then_some(())).await {
        Some(()) => Ok(format!("the gateway's log has `{}`", LINES.join("`, `"))),
        None => Err(Wrong {
            expected: format!("`{}` in the gateway's log", LINES.join("` and `")),
            seen: format!("no `{}` within {SINGLE:?}", missing(&stage.gateway.log())),
            look: stage.gateway_log(),
        }),
    }
}

async fn heartbeat(stage: &Stage) -> Result<String, Wrong> {
    let wrong = |seen: String| Wrong {
        expected: format!("machines.last_heard_at of {MACHINE} within {SINGLE:?}"),
        seen,
        look: stage.backend_log(),
    };
    let began = Instant::now();
    let published = async {
        let mut wire = Wire::connect(stage.broker.port, MACHINE).await?;
        single::beat(&mut wire).await
    };
    match tokio::time::timeout(SINGLE, published).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(wrong(format!("the broker did not take the heartbeat: {error}"))),
        Err(_) => return Err(wrong("the broker acknowledged no heartbeat".to_owned())),
    }
    let sql = format!(
        "SELECT CAST(last_heard_at AS CHAR) FROM machines WHERE serial_no = '{MACHINE}' AND last_heard_at IS NOT NULL"
    );
    let mut seen = "no such row".to_owned();
    let row = until(SINGLE, async || match stage.rows.text(&sql).await {
        Ok(row) => row,
        Err(error) => {
            seen = error;
            None
        }
    });
    match row.await {
        Some(at) => Ok(format!("last_heard_at is {at}, {} ms after it was published", began.elapsed().as_millis())),
        None => Err(wrong(seen)),
    }
}

async fn command(stage: &Stage) -> Result<String, Wrong> {
    let wrong = |seen: String| Wrong {
        expected: format!(
            "a reboot reaches the subscriber of machine/{MACHINE}/command, and its acknowledgement the command's row"
        ),
        seen,
        look: format!("{}, {}", stage.gateway_log(), stage.backend_log()),
    };
    let io = |error: std::io::Error| wrong(format!("the subscriber: {error}"));
    let subscribed = async {
        let mut wire = Wire::connect(stage.broker.port, MACHINE).await?;
        single::subscribe(&mut wire).await.map(|()| wire)
    };
    let subscribed = tokio::time::timeout(SINGLE, subscribed).await;
    let mut wire = subscribed.map_err(|_| wrong("nobody could subscribe".to_owned()))?.map_err(io)?;

    let began = Instant::now();
    // As a person would; and it ends by itself.
    let Output { status, stdout, stderr } = stage.backend.cli(&["command", "send", MACHINE, "reboot"]);
    if !status.success() {
        return Err(wrong(format!("it was not given: {}", String::from_utf8_lossy(&stderr).trim())));
    }
    let id = String::from_utf8_lossy(&stdout).trim().to_owned();
    let received = tokio::time::timeout(SINGLE, single::reboot(&mut wire, &id)).await;
    received.map_err(|_| wrong(format!("command {id} did not reach it within {SINGLE:?}")))?.map_err(io)?;
    let received = began.elapsed();
    single::acknowledge(&mut wire, &id).await.map_err(io)?;
    let sql = format!("SELECT state FROM machine_commands WHERE message_id = '{id}'");
    let mut state = "no row".to_owned();
    let done = until(SINGLE, async || {
        state = stage.rows.text(&sql).await.unwrap_or_else(Some).unwrap_or_else(|| "no row".to_owned());
        (state == "acknowledged").then_some(())
    });
    match done.await {
        Some(()) => {
            let (received, all) = (received.as_millis(), began.elapsed().as_millis());
            Ok(format!("reboot reached the subscriber after {received} ms, its row is `acknowledged` after {all} ms"))
        }
        None => Err(wrong(format!("it arrived; the state of {id} is `{state}`"))),
    }
}

/// The load, the figures, the chart, the count.
async fn stress(stage: &mut Stage, options: &Options, report: &mut Report) -> Result<(), String> {
    let (machines, seconds) = (options.machines, options.length.as_secs());
    println!(
        "\n{machines} machines for {seconds} s: a heartbeat a second each, a transaction every 5th, an error every 10th; queue = in the list + under way"
    );
    fill(stage, machines).await?;
    let mut meter = Meter::new(stage).await;
    let mut load = Load::start(stage.broker.port, machines, options.length);
    let mut readings = vec![meter.read(stage, &load).await];
    let mut said = Vec::new();
    let mut next = tokio::time::Instant::now();
    let mut read = async |stage: &Stage, load: &Load| {
        // Never two at once: one that takes long only comes later.
        next = (next + SECOND).max(tokio::time::Instant::now());
        tokio::time::sleep_until(next).await;
        let reading = meter.read(stage, load).await;
        println!("{}", reading.line());
        readings.push(reading.clone());
        reading
    };
    while !load.is_over(&mut said) {
        read(stage, &load).await;
    }
    let published = load.acknowledged();
    let mut last: Reading = read(stage, &load).await;
    let load_ended = last.at - SECOND.as_secs_f64();
    let mut changed = Instant::now();
    // What is under way arrives; what does not, while nothing moves any more, is lost.
    let found = loop {
        let found = Found::read(&stage.rows).await;
        let complete = found.as_ref().is_ok_and(|found| found.compare(&said).lost.is_empty());
        if (complete && last.is_empty()) || changed.elapsed() > options.patience {
            break found;
        }
        let reading = read(stage, &load).await;
        if reading.has_moved(&last) {
            changed = Instant::now();
        }
        last = reading;
    };

    println!();
    let look = format!("{}, {}", stage.gateway_log(), stage.backend_log());
    report.step("machines", were_served(&said, machines, published, &options.folder.display().to_string()));
    report.step(
        "queue",
        if last.is_empty() {
            Ok(format!("empty {:.0} s after the last message", (last.at - load_ended).max(0.0)))
        } else {
            let ended = if stage.backend.has_ended() { "; the back end has ended by itself" } else { "" };
            let left = last.queue.map_or_else(
                || "Redis does not answer".to_owned(),
                |(waiting, under_way)| format!("{waiting} jobs wait, {under_way} are under way"),
            );
            let expected = format!(
                "an empty list once the machines stopped, or one that gets shorter within {:?}",
                options.patience
            );
            Err(Wrong { expected, seen: left + ended, look: stage.backend_log() })
        },
    );
    count(report, found, &said, published, &look);
    let chart = options.folder.join("verify.svg");
    let title = format!("{machines} machines, {seconds} s: queue length and worker rate");
    fs::write(&chart, chart::draw(&title, &readings, load_ended))
        .map_err(|error| format!("{}: {error}", chart.display()))?;
    println!("chart   {}", chart.display());
    Ok(())
}

/// Gives each machine its row and its slot, as an application would.
async fn fill(stage: &Stage, machines: u32) -> Result<(), String> {
    let wrong =
        |error: String| format!("the machines' rows could not be made: {error}; look at {}", stage.backend_log());
    let values: Vec<String> = (1..=machines).map(|number| format!("('{}')", serial_no(number))).collect();
    stage
        .rows
        .execute(&format!("INSERT INTO machines (serial_no) VALUES {}", values.join(",")))
        .await
        .map_err(wrong)?;
    let slots = format!(
        "INSERT INTO machine_slots (machine_id, slot_no, stock) SELECT id, 1, {STOCK} FROM machines WHERE serial_no <> '{MACHINE}'"
    );
    stage.rows.execute(&slots).await.map_err(wrong)
}

fn were_served(said: &[Said], machines: u32, published: u64, look: &str) -> Result<String, Wrong> {
    let (unsure, lost): (u64, u64) =
        said.iter().fold((0, 0), |(unsure, lost), machine| (unsure + machine.unsure, lost + machine.lost_connections));
    let dumb =
        said.iter().filter(|machine| machine.heartbeat.0 == 0).count() + (machines as usize).saturating_sub(said.len());
    if unsure == 0 && lost == 0 && dumb == 0 {
        return Ok(format!("{machines} machines published {published} messages, each acknowledged by the broker"));
    }
    Err(Wrong {
        expected: "every machine keeps its connection, and every message is acknowledged".to_owned(),
        seen: format!(
            "{unsure} messages without an acknowledgement, {lost} connections lost or refused, {dumb} machines that published nothing"
        ),
        look: format!("the broker; logs are in {look}"),
    })
}

fn count(report: &mut Report, found: Result<Found, String>, said: &[Said], published: u64, look: &str) {
    let expected = format!("each of {published} acknowledged messages in the database, once");
    let found = match found {
        Ok(found) => found,
        Err(seen) => return report.step("count", Err(Wrong { expected, seen, look: look.to_owned() })),
    };
    let wrong = found.compare(said);
    let outcome = |names: &[String], what: &str, good: String| match names {
        [] => Ok(good),
        names => {
            Err(Wrong { expected: expected.clone(), seen: format!("{what} {}", named(names)), look: look.to_owned() })
        }
    };
    let sold: usize = said.iter().map(|machine| machine.transactions.len()).sum();
    let errors: usize = said.iter().map(|machine| machine.errors.len()).sum();
    let good = format!("0 ({sold} transactions, {errors} errors, and the last heartbeat of each machine are rows)");
    report.step("lost", outcome(&wrong.lost, "lost", good));
    report.step("doubled", outcome(&wrong.doubled, "doubled", "0".to_owned()));
    report.step("stock", outcome(&wrong.stock, "wrong in", "each slot has less by exactly what was sold".to_owned()));
}
