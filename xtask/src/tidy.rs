//! The house rules that no compiler knows: layers, lengths, waits in tests, loose ends.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The most lines of a source file: a file has one subject.
const MAX_LINES: usize = 600;

/// What each module of the host may import of the others: core ← edges ← live ← stages ← gateway ← cli.
const LAYERS: [(&str, &[&str]); 17] = [
    ("telemetry", &[]),
    ("thread", &[]),
    ("tls", &[]),
    ("mqtt", &["telemetry"]),
    ("redis", &["telemetry"]),
    ("sandbox", &["telemetry"]),
    ("spool", &["telemetry", "thread"]),
    ("embedded", &["telemetry"]),
    ("settings", &[]),
    ("live", &["sandbox", "telemetry"]),
    ("uplink", &["live", "mqtt", "redis", "sandbox", "spool", "telemetry", "thread"]),
    ("downlink", &["live", "mqtt", "redis", "sandbox", "telemetry", "thread"]),
    ("registry", &["sandbox", "telemetry"]),
    ("dead_letters", &["live", "redis", "telemetry", "uplink"]),
    ("admin", &["dead_letters", "telemetry"]),
    (
        "gateway",
        &[
            "admin",
            "dead_letters",
            "downlink",
            "embedded",
            "live",
            "mqtt",
            "redis",
            "registry",
            "sandbox",
            "spool",
            "telemetry",
            "uplink",
        ],
    ),
    ("cli", &["gateway", "registry", "sandbox", "settings", "spool", "telemetry", "tls", "uplink"]),
];

pub(crate) fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for folder in ["host", "plugins", "sdk", "tests", "xtask"] {
        for file in sources(&root.join(folder))? {
            let text = fs::read_to_string(&file)?;
            let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            wrong.extend(look(&name, &text));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// What is wrong with one file.
fn look(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        wrong.push(format!("{name}: {lines} lines; split it by subject, {MAX_LINES} are the most"));
    }
    let module = name.strip_prefix("host/src/").map(|rest| rest.split(['/', '.']).next().unwrap_or(rest));
    let allowed =
        module.and_then(|module| LAYERS.iter().find(|(layer, _)| *layer == module)).map(|(_, allowed)| *allowed);
    for (number, line) in text.lines().enumerate() {
        let mut say = |what: String| wrong.push(format!("{name}:{}: {what}", number + 1));
        if let (Some(module), Some(allowed)) = (module, allowed) {
            for imported in imports(line) {
                if imported != module
                    && !allowed.contains(&imported)
                    && LAYERS.iter().any(|(layer, _)| *layer == imported)
                {
                    say(format!("`{module}` must not import `{imported}`; it may import {}", allowed.join(", ")));
                }
            }
        }
        // Each needle is split, or this file would find itself.
        for (needle, why) in [
            (concat!("todo", "!("), "a stub is not done"),
            (concat!("unimplemented", "!("), "a stub is not done"),
            (concat!("FIX", "ME"), "mend it, or write an issue"),
            (concat!("#[", "ignore"), "a test that does not run is none"),
        ] {
            if line.contains(needle) {
                say(format!("`{needle}`: {why}"));
            }
        }
        if name.starts_with("tests/tests/") && line.contains(concat!("sle", "ep(")) {
            say("a test waits by the clock; await the condition instead".to_owned());
        }
    }
    wrong
}

fn imports(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or("");
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_layer_that_reaches_up() {
        assert_eq!(look("host/src/mqtt/x.rs", "use crate::telemetry::log;\n"), Vec::<String>::new());
        let found = look("host/src/mqtt/x.rs", "\nuse crate::redis::push;\n");
        assert_eq!(found, ["host/src/mqtt/x.rs:2: `mqtt` must not import `redis`; it may import telemetry"]);
        assert_eq!(look("host/src/uplink/x.rs", "use crate::gateway;\n").len(), 1);
        assert_eq!(look("host/core/src/x.rs", "use crate::gateway;\n").len(), 0);
    }

    #[test]
    fn finds_loose_ends_and_long_files() {
        assert_eq!(look("host/src/x.rs", concat!("    todo", "!()\n")).len(), 1);
        assert_eq!(look("tests/tests/x.rs", concat!("tokio::time::", "sleep(x)\n")).len(), 1);
        assert_eq!(look("host/src/mqtt/x.rs", concat!("tokio::time::", "sleep(x)\n")).len(), 0);
        assert_eq!(look("host/src/x.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
    }
}
