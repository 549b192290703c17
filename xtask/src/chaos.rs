//! `cargo xtask chaos`: faults against the real gateway, over and over, until the time is over.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell;
use crate::test::{self, For};

pub(crate) fn run(root: &Path, minutes: u64, seed: Option<u64>, scenarios: &[String]) -> Result<()> {
    test::prepare(root, For::Tests)?;
    let target = shell::target()?;
    let mut chaos = Command::new(target.join("debug").join("chaos"));
    chaos.arg(minutes.to_string()).arg(seed.map_or("-".to_owned(), |seed| seed.to_string()));
    shell::run(chaos.arg(target.join("chaos")).args(scenarios))
}
