//! Runs scenarios, each with a seed of its own, and says what they found.

use std::any::Any;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::outcome::Outcome;
use super::scenarios::{Running, Scenario};
use super::seed::{self, Chance};
use super::stage::Trial;

/// How long one run may take.
const LIMIT: Duration = Duration::from_secs(180);

/// Plays one scenario on a thread of its own; whatever it panics with is what is wrong.
#[must_use]
pub fn play(scenario: &Scenario, trial: Trial) -> Outcome {
    let play = scenario.play;
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(limited(play(trial)))
    });
    thread.join().unwrap_or_else(|panic| Outcome { wrong: vec![text(&*panic)], ..Outcome::default() })
}

async fn limited(running: Running) -> Outcome {
    tokio::time::timeout(LIMIT, running).await.unwrap_or_else(|_| Outcome {
        wrong: vec![format!("not over after {} seconds", LIMIT.as_secs())],
        ..Outcome::default()
    })
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// What was found of one scenario.
#[derive(Default)]
struct Row {
    runs: usize,
    sum: Outcome,
    failed: usize,
}

/// Plays them over and over until the time is over, each once at least. Logs of runs that fail are kept under `folder`. Gives
/// back how many failed.
///
/// # Panics
/// Where the logs cannot be kept.
pub fn run(scenarios: &[Scenario], time: Duration, seed: Option<u64>, folder: &Path) -> usize {
    let began = Instant::now();
    let first = seed.unwrap_or_else(seed::fresh);
    println!("first seed: {first}");
    let mut chance = Chance::of(first);
    let mut rows: Vec<Row> = scenarios.iter().map(|_| Row::default()).collect();
    for round in 0.. {
        for (scenario, row) in scenarios.iter().zip(&mut rows) {
            if round > 0 && began.elapsed() >= time {
                print_table(scenarios, &rows);
                return rows.iter().map(|row| row.failed).sum();
            }
            // The first round has the seed that was given, so that it repeats what failed.
            let seed = if round == 0 { first } else { chance.number(0..1_000_000) };
            let keep = folder.join(format!("{}-{seed}", scenario.name));
            drop(fs::remove_dir_all(&keep));
            fs::create_dir_all(&keep).expect("a folder for logs");
            let started = Instant::now();
            let outcome = play(scenario, Trial { seed, quick: false, keep: Some(keep.clone()) });
            row.runs += 1;
            row.sum.add(&outcome);
            let good = if outcome.wrong.is_empty() { "good" } else { "FAILED" };
            println!(
                "{:<34} seed {seed:>6}  {good}, {} acknowledged, {:.1?}",
                scenario.name,
                outcome.acknowledged,
                started.elapsed()
            );
            if outcome.wrong.is_empty() {
                drop(fs::remove_dir_all(&keep));
                continue;
            }
            row.failed += 1;
            for wrong in &outcome.wrong {
                println!("    {wrong}");
            }
            println!("    again: cargo xtask chaos --minutes 0 --seed {seed} {}", scenario.name);
            println!("    the gateway's logs: {}", keep.display());
        }
    }
    0
}

fn print_table(scenarios: &[Scenario], rows: &[Row]) {
    println!(
        "\n{:<34} {:>5} {:>12} {:>8} {:>8} {:>8} {:>6} {:>13} {:>14} {:>7}",
        "scenario",
        "times",
        "acknowledged",
        "arrived",
        "missing",
        "doubled",
        "again",
        "out of order",
        "longest stall",
        "failed"
    );
    for (scenario, Row { runs, sum, failed }) in scenarios.iter().zip(rows) {
        let Outcome { acknowledged, arrived, missing, doubled, again, out_of_order, stall, .. } = sum;
        println!(
            "{:<34} {runs:>5} {acknowledged:>12} {arrived:>8} {missing:>8} {doubled:>8} {again:>6} {out_of_order:>13} {:>12.1} s {failed:>7}",
            scenario.name,
            stall.as_secs_f64()
        );
    }
    println!("doubled: although `dedupe` or the fault forbids it; again: where at least once is what is promised");
}
