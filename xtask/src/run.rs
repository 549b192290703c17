//! `cargo xtask run`: builds the plugins, the gateway and the back end, then `xtask/demo` shows what flows.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{plugins, shell, test};

pub(crate) fn run(root: &Path, machines: u32) -> Result<()> {
    println!("Building the plugins, the gateway and the back end (the first time takes a few minutes)");
    plugins::build(root, &[])?;
    let mut build = test::cargo(root);
    build.args(["build", "--release"]);
    for package in ["sluicegate", "sluicegate-backend", "sluicegate-demo"] {
        build.args(["--package", package]);
    }
    shell::run(&mut build)?;
    let target = shell::target()?;
    let programs = target.join("release");
    let mut demo = Command::new(programs.join("sluicegate-demo"));
    demo.arg(root).arg(&programs).arg(target.join("run")).arg(machines.to_string());
    // In the place of this program, so that signals reach it.
    Err(demo.exec()).context("starting what shows the gateway")
}
