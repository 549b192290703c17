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

The file is read again when it changes (an atomic rename, a switched symlink and a slow copy are one change each), at SIGHUP, at
`sluicegate config reload`, and every 30 seconds, since a file that `${file:…}` names may hold something else by then; of the environment a
process sees what it was started with. A change applies as a whole or not at all. The column *applies* says how:

- *live*: at once; messages that had arrived by then keep the settings of their arrival.
- *reconnect*: the gateway makes another connection to the broker, once what came on the old one is acknowledged.
- *restart*: refused while the gateway runs, and so is all else that the edit changes.

What is refused leaves the old settings in force; the log, `/api/status` and a notice in `/readyz` say so until it is mended.
`sluicegate check --against ADDRESS:PORT` says what a file would change on a running gateway, and how.

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
        let _ = write!(
            page,
            "\n## `{header}`\n\n| key | type | default | applies | meaning |\n| --- | --- | --- | --- | --- |\n"
        );
        for key in table::of(section) {
            row(&mut page, key);
        }
        if section == "plugins.*" {
            page.push_str("\n`[plugins.NAME.settings]` holds what the plugin reads with `setting`: texts, numbers and booleans; they apply live. Whatever changes in a\nplugin's section, but for `canary`, makes a new build of it go through all steps: where one refuses it the whole edit is refused. The same file with other\nsettings is not tried on the last real messages: what it does otherwise then is what somebody wants. `sluicegate config show` hides those that\n`${…}` gave a part of.\n");
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
    let kind = key.kind.to_string().replace('|', "\\|");
    let _ = writeln!(page, "| `{}` | {kind} | {default} | {} | {} |", key.name, key.applies, key.meaning);
}
