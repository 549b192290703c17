//! `cargo xtask hostile`: the hostile corpus, with its tables.

use std::path::Path;

use anyhow::Result;

use crate::{plugins, shell, test};

pub(crate) fn run(root: &Path) -> Result<()> {
    shell::install(&test::SERVERS)?;
    plugins::build(root, &[])?;
    // As the tests do, so that what they built is used.
    shell::run(test::cargo(root).args(["build", "--workspace", "--all-targets", "--quiet"]))?;
    let mut tests = test::cargo(root);
    tests.env("HOSTILE_ALL", "1").args(["test", "--workspace", "--test", "hostile", "--", "--nocapture"]);
    shell::run(&mut tests)
}
