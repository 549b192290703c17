//! `cargo xtask verify`: release builds and real servers, then `tests/src/bin/verify.rs` goes through the plan.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{shell, test};

/// For how long nothing may change before what is missing counts as lost, in seconds: a lease that ran out is taken over in less.
const PATIENCE: &str = "20";

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many machines publish at once; each has a connection of its own.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=900))]
    machines: u32,
    /// For how many seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Which database the back end works into.
    #[arg(long, value_enum, default_value_t = Database::Sqlite)]
    database: Database,
}

#[derive(Clone, Copy, ValueEnum)]
enum Database {
    Sqlite,
    Mariadb,
}

pub(crate) fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    println!("Building the plugins, the gateway and the back end (the first time takes a few minutes)");
    test::prepare(root, &["--release", "--bins"])?;
    let target = shell::target()?;
    let mut verify = Command::new(target.join("release").join("verify"));
    verify.args([arguments.machines.to_string(), arguments.seconds.to_string()]);
    verify.arg(match arguments.database {
        Database::Sqlite => "sqlite",
        Database::Mariadb => "mariadb",
    });
    verify.arg(target.join("verify")).arg(PATIENCE);
    // In the place of this program, so that signals reach it.
    Err(verify.exec()).context("starting what verifies")
}
