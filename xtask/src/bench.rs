//! `cargo xtask bench`: what is measured from outside, on release builds.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::Subcommand;

use crate::shell;
use crate::test::{self, For};

#[derive(Subcommand)]
pub(crate) enum What {
    /// The back end on a list that is full: jobs a second into MariaDB and SQLite by batch size, and what 500 machines' heartbeats cost.
    Backend {
        /// How many transactions for each line of the table.
        #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
        transactions: u32,
    },
    /// A plugin swapped under full load, every fourth build broken: what is lost, how long a swap takes, what it costs the others.
    Swap {
        /// How many builds.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..=9_998))]
        swaps: u32,
        /// Milliseconds from one to the next at the least: compiling takes a part of a core, which is not the messages'.
        #[arg(long, default_value_t = 3_000)]
        every: u32,
        /// Tries each build on the last real messages before, as is the default of a gateway.
        #[arg(long)]
        rehearse: bool,
    },
}

pub(crate) fn run(root: &Path, what: What) -> Result<()> {
    test::prepare(root, For::Release)?;
    let programs = shell::target()?.join("release");
    match what {
        What::Backend { transactions } => {
            shell::run(Command::new(programs.join("backlog")).arg(transactions.to_string()))
        }
        What::Swap { swaps, every, rehearse } => {
            let arguments = [swaps.to_string(), every.to_string(), rehearse.to_string()];
            shell::run(Command::new(programs.join("swap")).args(arguments))
        }
    }
}
