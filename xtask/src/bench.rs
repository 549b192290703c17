//! `cargo xtask bench`: what is measured from outside, on release builds.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::Subcommand;

use crate::{shell, test};

#[derive(Subcommand)]
pub(crate) enum What {
    /// A plugin swapped under full load, every fourth build broken: what is lost, how long a swap takes, what it costs the others.
    Swap {
        /// How many builds.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..=9_998))]
        swaps: u32,
        /// Tries each build on the last real messages before, as is the default of a gateway.
        #[arg(long)]
        rehearse: bool,
    },
}

pub(crate) fn run(root: &Path, what: What) -> Result<()> {
    test::prepare(root, &["--release", "--bins"])?;
    let programs = shell::target()?.join("release");
    match what {
        What::Swap { swaps, rehearse } => {
            shell::run(Command::new(programs.join("swap")).args([swaps.to_string(), rehearse.to_string()]))
        }
    }
}
