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
    shell::run(&mut command(root, &root.join("compose.yaml")))
}

/// Checks a compose file that names files of the root.
fn command(root: &Path, file: &Path) -> Command {
    let folder = root.join("xtask").join("compose");
    // Without the caller's own Python, which may lack them.
    let mut python = Command::new(PYTHON);
    python.args(["-I", "-B"]).arg(folder.join("check.py")).arg(folder.join("compose_spec.json")).arg(file).arg(root);
    python
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check that cannot fail is none.
    #[test]
    fn what_does_not_agree_is_said() {
        let root = crate::root();
        let text = std::fs::read_to_string(root.join("compose.yaml")).expect("the compose file");
        let changed = |old: &str, new: &str| {
            assert!(text.contains(old), "{old}");
            text.replacen(old, new, 1)
        };
        for (compose, said) in [
            (text.clone(), ""),
            (changed("    cpus: 2\n", "    cpuz: 2\n"), "'cpuz'"),
            (changed("    mem_limit: 1g\n", ""), "services.mariadb: has no mem_limit"),
            (changed("  mariadb-data:\n", ""), "volume mariadb-data is not declared"),
            (
                changed("      - gateway_password\n", ""),
                "services.gateway: reads /run/secrets/gateway_password, which it is not given",
            ),
            (
                changed("file: ./secrets/emqx_cookie", "file: ./secrets/other"),
                "make-secrets.sh does not make ./secrets/other",
            ),
            (changed("config/emqx/acl.conf:", "config/emqx/acl.cnf:"), "./config/emqx/acl.cnf is no file"),
            (changed("\"1883:1883\"", "\"1884:1884\""), "the gateway's listener is published"),
            (changed("hostname: emqx.local", "hostname: emqx"), "EMQX_NODE_NAME is emqx@emqx.local"),
            (changed("mariadb:11.4", "mariadb:latest"), "names no version"),
        ] {
            let file = std::env::temp_dir().join(format!("compose-{}.yaml", std::process::id()));
            std::fs::write(&file, compose).expect("written");
            let checked = command(&root, &file).output().expect("python3");
            drop(std::fs::remove_file(&file));
            let output = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
            assert_eq!(checked.status.success(), said.is_empty(), "{said}: {output}");
            assert!(output.contains(said), "{said} is missing in: {output}");
        }
    }
}
