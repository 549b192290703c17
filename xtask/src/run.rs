//! `cargo xtask run`: builds the plugins and the gateway, then `xtask/demo` shows what flows.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{plugins, shell, test};

pub(crate) fn run(root: &Path, machines: u32) -> Result<()> {
    println!("Building the plugins and the gateway (the first time takes a few minutes)");
    plugins::build(root, &[])?;
    let packages = ["--package", "sluicegate", "--package", "sluicegate-demo"];
    shell::run(test::cargo(root).args(["build", "--release"]).args(packages))?;
    let target = shell::target()?;
    let mut demo = Command::new(target.join("release").join("sluicegate-demo"));
    demo.arg(root).arg(&target).arg(machines.to_string());
    // In the place of this program, so that signals reach it.
    Err(demo.exec()).context("starting what shows the gateway")
}
