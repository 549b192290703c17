//! `cargo xtask run`: builds the plugins, the gateway and the back end, then `xtask/demo` shows what flows.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::test::{self, For};
use crate::{plugins, shell};

pub(crate) fn run(root: &Path, machines: u32) -> Result<()> {
    println!("Building the plugins, the gateway and the back end (the first time takes a few minutes)");
    plugins::build(root, &[])?;
    // What `verify` builds: whoever tries both waits once.
    test::build(root, For::Release)?;
    let target = shell::target()?;
    let programs = target.join("release");
    let mut demo = Command::new(programs.join("sluicegate-demo"));
    demo.arg(root).arg(&programs).arg(target.join("run")).arg(machines.to_string());
    // In the place of this program, so that signals reach it.
    Err(demo.exec()).context("starting what shows the gateway")
}
