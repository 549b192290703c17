//! `cargo xtask hostile`: the hostile corpus, with its tables.

use std::path::Path;

use anyhow::Result;

use crate::{shell, test};

pub(crate) fn run(root: &Path) -> Result<()> {
    test::prepare(root, &test::AS_TESTS)?;
    let mut tests = test::cargo(root);
    tests.env("HOSTILE_ALL", "1").args(["test", "--workspace", "--test", "hostile", "--", "--nocapture"]);
    shell::run(&mut tests)
}
