//! The effective settings: every key with its value and where that came from, secrets masked.

use serde::{Deserialize, Serialize};

use super::Secret;
use super::error::Place;
use super::table::Type;
use super::urls;

/// One key as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// Such as `mqtt.receive_maximum` or `routes[0].topic`.
    pub key: String,
    /// As TOML would write it.
    pub value: String,
    /// `default`, `FILE:LINE`, and the variables and files that gave a part of it.
    pub source: String,
    /// What `value` does not show. It never leaves the process.
    #[serde(skip)]
    pub(super) hidden: Option<Secret>,
}

impl Effective {
    /// `hidden`: stars in place of the value; of `redis.url` in place of its password alone.
    pub(super) fn new(
        key: &str,
        texts: &[String],
        list: bool,
        kind: Type,
        hidden: bool,
        place: Option<&Place>,
        from: &[String],
    ) -> Self {
        let value = if hidden && kind != Type::RedisUrl {
            "\"***\"".to_owned()
        } else if list {
            format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
        } else {
            let text = texts.first().cloned().unwrap_or_default();
            match kind {
                Type::Integer(..) | Type::Bool | Type::Number(..) => text,
                Type::RedisUrl => quoted(&urls::masked(&text)),
                _ => quoted(&text),
            }
        };
        let mut source = place.map_or_else(|| "default".to_owned(), |place| format!("{}:{}", place.file, place.line));
        for part in from {
            source = if source == "default" { part.clone() } else { format!("{source}, {part}") };
        }
        let masked = hidden || kind == Type::RedisUrl;
        let hidden = masked.then(|| Secret(texts.join("\n")));
        Self { key: key.to_owned(), value, source, hidden }
    }

    /// A key that is left out, and whose value another key gives.
    pub(super) fn derived(key: &str, text: &str, why: &str) -> Self {
        Self { key: key.to_owned(), value: quoted(text), source: format!("default: {why}"), hidden: None }
    }

    /// Its section and its name there.
    fn split(&self) -> (&str, &str) {
        let dot = if self.key.ends_with('"') { self.key.find(".\"") } else { self.key.rfind('.') };
        dot.map_or(("", &self.key), |dot| (&self.key[..dot], &self.key[dot + 1..]))
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A key as TOML writes it: in quotes where it holds more than letters, digits, `_` and `-`.
pub(super) fn bare_or_quoted(name: &str) -> String {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
        return name.to_owned();
    }
    // JSON's escapes are TOML's, but for one character that JSON leaves alone.
    serde_json::Value::from(name).to_string().replace('\u{7f}', "\\u007f")
}

/// The effective settings as a TOML text, each key with its source behind it.
#[must_use]
pub fn to_toml(all: &[Effective]) -> String {
    let mut sections: Vec<(&str, Vec<&Effective>)> = Vec::new();
    for one in all {
        let (section, _) = one.split();
        match sections.iter_mut().find(|(name, _)| *name == section) {
            Some((_, keys)) => keys.push(one),
            None => sections.push((section, vec![one])),
        }
    }
    let mut out = String::new();
    for (section, keys) in sections {
        let header = match section.strip_prefix("routes[") {
            Some(_) => "[[routes]]".to_owned(),
            None => format!("[{section}]"),
        };
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&header);
        out.push('\n');
        for one in keys {
            out.push_str(&format!("{} = {}  # {}\n", one.split().1, one.value, one.source));
        }
    }
    out
}
