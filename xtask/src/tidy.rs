//! The house rules that no compiler knows: layers, lengths, waits in tests, loose ends.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The most lines of a source file: a file has one subject.
const MAX_LINES: usize = 600;

/// What each module of the host may import of the others: core ← edges ← live ← stages ← gateway ← cli.
const LAYERS: [(&str, &[&str]); 23] = [
    ("lock", &[]),
    ("telemetry", &[]),
    ("thread", &[]),
    ("tls", &[]),
    ("watch", &[]),
    ("whole", &[]),
    ("mqtt", &["telemetry"]),
    ("redis", &["telemetry"]),
    ("sandbox", &["telemetry"]),
    ("spool", &["lock", "telemetry", "thread"]),
    ("embedded", &["telemetry"]),
    ("settings", &["telemetry", "watch"]),
    ("live", &["sandbox", "telemetry"]),
    ("recent", &[]),
    ("uplink", &["live", "mqtt", "recent", "redis", "sandbox", "spool", "telemetry", "thread"]),
    ("rehearsal", &["live", "recent", "sandbox", "uplink"]),
    ("downlink", &["live", "mqtt", "recent", "redis", "sandbox", "telemetry", "thread"]),
    ("registry", &["lock", "sandbox", "telemetry", "watch", "whole"]),
    ("dead_letters", &["live", "redis", "telemetry", "uplink"]),
    ("access", &["redis", "telemetry", "thread"]),
    ("admin", &["dead_letters", "registry", "settings", "telemetry"]),
    (
        "gateway",
        &[
            "access",
            "admin",
            "dead_letters",
            "downlink",
            "embedded",
            "live",
            "mqtt",
            "recent",
            "redis",
            "registry",
            "rehearsal",
            "sandbox",
            "settings",
            "spool",
            "telemetry",
            "uplink",
        ],
    ),
    (
        "cli",
        &["gateway", "registry", "rehearsal", "sandbox", "settings", "spool", "telemetry", "tls", "uplink", "whole"],
    ),
];

pub(crate) fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for folder in ["backend", "host", "plugins", "sdk", "tests", "xtask"] {
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
    if let (Some(module), Some(allowed)) = (module, allowed) {
        for (line, imported) in imports(text) {
            if imported != module
                && !allowed.contains(&&*imported)
                && LAYERS.iter().any(|(layer, _)| *layer == imported)
            {
                let may = allowed.join(", ");
                wrong.push(format!("{name}:{line}: `{module}` must not import `{imported}`; it may import {may}"));
            }
        }
    }
    for (number, line) in text.lines().enumerate() {
        let mut say = |what: String| wrong.push(format!("{name}:{}: {what}", number + 1));
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
        if (name.starts_with("tests/tests/") || name.starts_with("backend/tests/"))
            && line.contains(concat!("sle", "ep("))
        {
            say("a test waits by the clock; await the condition instead".to_owned());
        }
    }
    wrong
}

/// The modules that a text names behind `crate::`, each with its line; `crate::{a, b::{c, d}}` names `a` and `b`.
fn imports(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
    let code = lines.join("\n");
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let start = at + path.len();
        // Where a name of the first level begins, and how deep the braces are.
        let (mut begins, mut depth) = (true, 0);
        for (offset, character) in code[start..].char_indices() {
            let name = character.is_alphanumeric() || character == '_';
            if begins && name {
                let rest = &code[start + offset..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                let line = code[..start + offset].matches('\n').count() + 1;
                found.push((line, rest[..end].to_owned()));
                begins = false;
            }
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => begins = depth == 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
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
        assert_eq!(look("host/src/mqtt/x.rs", "// crate::redis\nlet x = crate::redis::push();").len(), 1);
    }

    #[test]
    fn finds_it_in_a_group_of_imports() {
        let group =
            "use crate::{\n    telemetry::{clock, redis},\n    redis, // comment\n    spool::{Spool, Watch},\n};\n";
        assert_eq!(
            look("host/src/mqtt/x.rs", group),
            [
                "host/src/mqtt/x.rs:3: `mqtt` must not import `redis`; it may import telemetry",
                "host/src/mqtt/x.rs:4: `mqtt` must not import `spool`; it may import telemetry",
            ]
        );
        assert_eq!(look("host/src/mqtt/x.rs", "use crate::{redis, spool};").len(), 2);
        assert_eq!(look("host/src/mqtt/x.rs", "use crate::{telemetry, mqtt};\nlet (x, redis) = 1;").len(), 0);
    }

    #[test]
    fn finds_loose_ends_and_long_files() {
        assert_eq!(look("host/src/x.rs", concat!("    todo", "!()\n")).len(), 1);
        assert_eq!(look("tests/tests/x.rs", concat!("tokio::time::", "sleep(x)\n")).len(), 1);
        assert_eq!(look("host/src/mqtt/x.rs", concat!("tokio::time::", "sleep(x)\n")).len(), 0);
        assert_eq!(look("host/src/x.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
    }
}
