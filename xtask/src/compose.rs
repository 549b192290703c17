//! compose.yaml against the public schema of the Compose specification. Python reads the YAML and knows the schema's language: what
//! Rust has for that is some sixty crates, and a minute of building, for one file.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell::{self, Package};

const PYTHON: &str = "/usr/bin/python3";
/// What the check is written on.
const PACKAGES: [Package; 2] = [
    Package { name: "python3-jsonschema", provides: "/usr/lib/python3/dist-packages/jsonschema" },
    Package { name: "python3-yaml", provides: "/usr/lib/python3/dist-packages/yaml" },
];

pub(crate) fn check(root: &Path) -> Result<()> {
    shell::install(&PACKAGES)?;
    let folder = root.join("xtask").join("compose");
    // Without the caller's own Python, which may lack them.
    let mut python = Command::new(PYTHON);
    python.args(["-I", "-B"]).arg(folder.join("check.py"));
    shell::run(python.arg(folder.join("compose_spec.json")).arg(root.join("compose.yaml")))
}
