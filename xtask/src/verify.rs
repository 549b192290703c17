//! `cargo xtask verify`: release builds and real servers, then `tests/src/bin/verify.rs` goes through the plan.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::shell;
use crate::test::{self, For};

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
    /// Verifies a deployment that runs already: its broker, mqtt://HOST:PORT. Needs --redis and --api; the API's token stands in
    /// SLUICEGATE_API_TOKEN. It makes a machine VERIFY-ONE, and gives it a command.
    #[arg(long, requires_all = ["redis", "api"], conflicts_with_all = ["machines", "seconds", "database"])]
    url: Option<String>,
    /// Its Redis, redis://[USER:PASSWORD@]HOST:PORT.
    #[arg(long, requires = "url")]
    redis: Option<String>,
    /// The back end's API, http://HOST:PORT.
    #[arg(long, requires = "url")]
    api: Option<String>,
    /// The list of jobs, with the key prefix.
    #[arg(long, requires = "url", default_value = "mqtt_incoming_jobs")]
    list: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Database {
    Sqlite,
    Mariadb,
}

pub(crate) fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    if let (Some(url), Some(redis), Some(api)) = (&arguments.url, &arguments.redis, &arguments.api) {
        return deployed(root, [url, redis, api, &arguments.list]);
    }
    println!("Building the plugins, the gateway and the back end (the first time takes a few minutes)");
    test::prepare(root, For::Release)?;
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

/// What runs already: nothing of it is built or started here.
fn deployed(root: &Path, [url, redis, api, list]: [&str; 4]) -> Result<()> {
    let bare = |text: &str, scheme: &str| {
        let rest = text.strip_prefix(scheme).with_context(|| format!("`{text}` must begin with `{scheme}`"))?;
        anyhow::Ok(rest.trim_end_matches('/').to_owned())
    };
    let (broker, api) = (bare(url, "mqtt://")?, bare(api, "http://")?);
    shell::run(test::cargo(root).args(["build", "--quiet", "--package", "sluicegate-tests", "--bin", "verify"]))?;
    let mut verify = Command::new(shell::target()?.join("debug").join("verify"));
    Err(verify.args(["deployed", &broker, redis, &api, list]).exec()).context("starting what verifies")
}
