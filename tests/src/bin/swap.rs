//! `cargo xtask bench swap` runs this. Its arguments: how many swaps, how many milliseconds from one to the next at the least, and whether each build
//! is tried on real messages before (`true`, `false`).

use std::process::ExitCode;
use std::time::Duration;

use sluicegate_tests::swap::run;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match &arguments[..] {
        [swaps, pace, rehearses] => swaps.parse().ok().zip(pace.parse().ok()).zip(rehearses.parse().ok()),
        _ => None,
    };
    let Some(((swaps @ 1..=9_998, pace), rehearses)) = parsed else {
        eprintln!("error: run it by `cargo xtask bench swap`");
        return ExitCode::FAILURE;
    };
    let outcome = run::run(swaps, Duration::from_millis(pace), rehearses).await;
    print!("{}", outcome.table());
    if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
