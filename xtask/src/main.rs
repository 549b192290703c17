//! The project's tasks: `cargo xtask TASK`.

mod bench;
mod chaos;
mod compose;
mod hostile;
mod laravel;
mod plugins;
mod run;
mod shell;
mod side_by_side;
mod test;
mod tidy;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sluicegate's tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs the gateway with everything it needs embedded, and a few machines; rebuilds a plugin when its source is saved.
    Run {
        /// How many machines publish.
        #[arg(long, default_value_t = 3)]
        machines: u32,
    },
    /// Everything that CI runs: formatting, lints, house rules, advisories, plugins, all tests.
    Test,
    /// The quick part of it: formatting, lints, house rules.
    Check,
    /// Faults against the real gateway, over and over: what was acknowledged must arrive.
    Chaos {
        /// Goes on until so many minutes are over; each scenario is played once at least.
        #[arg(long, default_value_t = 0)]
        minutes: u64,
        /// Repeats the choices of an earlier run.
        #[arg(long)]
        seed: Option<u64>,
        /// Those to be played; all, where none is named.
        scenarios: Vec<String>,
    },
    /// What means harm, each by itself and all in one gateway beside traffic that behaves; prints what must be and what is.
    Hostile,
    /// The verification plan of a deployment, step by step, on real servers: connections, a heartbeat, a command, and many machines, of which
    /// nothing may be lost.
    Verify(verify::Arguments),
    /// Measures.
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
    /// Builds plugins and places the components in config/plugins/.
    Plugins {
        /// Those to build; all, where none is named.
        names: Vec<String>,
    },
}

fn root() -> PathBuf {
    // Invariant: this crate lies in a folder of the workspace's root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

fn main() -> ExitCode {
    let root = root();
    let result = match Arguments::parse().task {
        Task::Run { machines } => run::run(&root, machines),
        Task::Test => test::test(&root),
        Task::Check => test::check(&root),
        Task::Chaos { minutes, seed, scenarios } => chaos::run(&root, minutes, seed, &scenarios),
        Task::Bench { what } => bench::run(&root, what),
        Task::Verify(arguments) => verify::run(&root, &arguments),
        Task::Hostile => hostile::run(&root),
        Task::Plugins { names } => plugins::build(&root, &names).map(|all| {
            for built in all {
                let changed = if built.changed { "" } else { ", unchanged" };
                println!("{} ({} KiB, {} samples{changed})", built.path.display(), built.bytes / 1024, built.samples);
            }
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
