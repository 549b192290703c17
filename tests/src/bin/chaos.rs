//! `cargo xtask chaos` runs this: faults against the real gateway, over and over.
//!
//! Its arguments: minutes, the first seed or `-`, the folder for logs, then the scenarios' names, or none for all.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sluicegate_tests::chaos::run;
use sluicegate_tests::chaos::scenarios;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [minutes, seed, folder, names @ ..] = &arguments[..] else {
        eprintln!("error: run it by `cargo xtask chaos`");
        return ExitCode::FAILURE;
    };
    let Ok(minutes) = minutes.parse::<u64>() else {
        eprintln!("error: `{minutes}` is no number of minutes");
        return ExitCode::FAILURE;
    };
    let all = scenarios::all();
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|scenario| scenario.name == **name)) {
        let known: Vec<&str> = all.iter().map(|scenario| scenario.name).collect();
        eprintln!("error: there is no scenario `{unknown}`; there are:\n  {}", known.join("\n  "));
        return ExitCode::FAILURE;
    }
    let chosen: Vec<_> =
        all.into_iter().filter(|scenario| names.is_empty() || names.iter().any(|name| name == scenario.name)).collect();
    let failed = run::run(&chosen, Duration::from_secs(minutes * 60), seed.parse().ok(), Path::new(folder));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
