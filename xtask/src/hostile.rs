//! `cargo xtask hostile`: the hostile corpus, with its tables. A release build, since the neighbours' latency is measured.

use std::path::Path;

use anyhow::Result;

use crate::shell;
use crate::test::{self, For};

pub(crate) fn run(root: &Path) -> Result<()> {
    test::prepare(root, For::Release)?;
    let mut tests = test::cargo(root);
    tests.env("HOSTILE_ALL", "1");
    // One after another: what is measured has the machine to itself.
    tests.args(["test", "--release", "--workspace", "--test", "hostile", "--", "--nocapture", "--test-threads=1"]);
    shell::run(&mut tests)
}
