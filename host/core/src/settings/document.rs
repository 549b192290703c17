//! The settings' documentation, made from the table of keys.

use std::fmt::Write as _;

use super::table::{self, KEYS, Key};

const HEAD: &str = "\
# Settings

One TOML file: `sluicegate run --config FILE`, `./sluicegate.toml` where it exists, else the built-in settings
([config/sluicegate.toml](../config/sluicegate.toml) word for word). A key that a file leaves out has its default. A file that has neither
`[plugins.…]` nor `[[routes]]` gets the built-in ones, whose components are looked for in `./plugins`, then in
`/usr/share/sluicegate/plugins`. Paths in a file are relative to it. An unknown key is an error.

In string values `${NAME}` takes a variable of the environment, `${NAME:-default}` with a default where it is not set or
empty, `${file:PATH}` a file (secrets; a newline at its end is left out), and `$${` is a literal `${`. What comes in is read as the key's type and not
looked at again.

In this version a change of the file takes a restart; a plugin's component is reloaded when it changes. Keys marked *no effect* are read
and checked, and said at start to have none.

This page is made from the code: `BLESS=1 cargo test -p sluicegate-core settings` writes it.
";

/// The page.
#[must_use]
pub fn document() -> String {
    let mut page = HEAD.to_owned();
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    for section in sections {
        let header = match section {
            "routes" => "[[routes]]".to_owned(),
            _ => format!("[{}]", section.replace('*', "NAME")),
        };
        let _ = write!(page, "\n## `{header}`\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in table::of(section) {
            row(&mut page, key);
        }
        if section == "plugins.*" {
            page.push_str("\n`[plugins.NAME.settings]` holds what the plugin reads with `setting`: texts, numbers and booleans. `sluicegate config show` hides those that\n`${…}` gave a part of.\n");
        }
    }
    page
}

fn row(page: &mut String, key: &Key) {
    let default = match key.default {
        None => String::new(),
        Some("") => "empty".to_owned(),
        Some(default) => format!("`{default}`"),
    };
    let effect = if key.effect { "" } else { " *No effect* in this version." };
    let kind = key.kind.to_string().replace('|', "\\|");
    let _ = writeln!(page, "| `{}` | {kind} | {default} | {}{effect} |", key.name, key.meaning);
}
