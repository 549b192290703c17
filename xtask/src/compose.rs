//! compose.yaml against the public schema of the Compose specification. The schema comes from the package index, pinned, as
//! does what reads YAML: a Rust reader of it that is maintained and used for this alone would be one more dependency.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell;

const CHECK: &str = include_str!("compose.py");

/// Checks it where Python and the package index are to be had; else says that it did not.
pub(crate) fn check(root: &Path) -> Result<()> {
    let folder = root.join("target").join("compose-check");
    let python = folder.join("bin").join("python");
    fs::create_dir_all(&folder)?;
    let pip = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]).args(arguments);
        shell::quiet(&mut command)
    };
    let there = python.exists() || shell::quiet(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let wheels = folder.to_string_lossy().into_owned();
    let ready = there
        && pip(&["install", "jsonschema==4.23.0", "pyyaml==6.0.2"])
        && pip(&["download", "--no-deps", "--only-binary", ":all:", "--dest", &wheels, "docker-compose==1.29.2"]);
    if !ready {
        println!("skipped: the schema cannot be had (it needs python3 with venv, and the Python package index)");
        return Ok(());
    }
    let script = folder.join("compose.py");
    fs::write(&script, CHECK)?;
    shell::run(Command::new(&python).arg(&script).arg(&folder).arg(root.join("compose.yaml")))
}
