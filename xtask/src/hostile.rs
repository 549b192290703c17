//! `cargo xtask hostile`: the hostile corpus, with its tables.

use std::path::Path;

use anyhow::Result;

use crate::shell;
use crate::test::{self, For};

pub(crate) fn run(root: &Path) -> Result<()> {
    test::prepare(root, For::Tests)?;
    let mut tests = test::linted(root);
    tests.env("HOSTILE_ALL", "1").args(["test", "--workspace", "--test", "hostile", "--", "--nocapture"]);
    shell::run(&mut tests)
}
