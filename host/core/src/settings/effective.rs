//! The effective settings: every key with its value and where that came from, secrets masked.

use serde::Serialize;

use super::error::Place;
use super::table::Type;
use super::urls;

/// One key as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// Such as `mqtt.receive_maximum` or `routes[0].topic`.
    pub key: String,
    /// As TOML would write it.
    pub value: String,
    /// `default`, `FILE:LINE`, and the variables and files that gave a part of it.
    pub source: String,
}

impl Effective {
    pub(super) fn new(
        key: &str,
        texts: &[String],
        list: bool,
        kind: Type,
        secret: bool,
        place: Option<&Place>,
        from: &[String],
    ) -> Self {
        let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
        // `${file:…}` is for secrets: what came from there is one, wherever it stands.
        let from_file = from.iter().any(|part| part.starts_with("file "));
        let value = if secret || (from_file && kind != Type::RedisUrl) {
            "\"***\"".to_owned()
        } else if list {
            format!("[{}]", texts.iter().map(quoted).collect::<Vec<_>>().join(", "))
        } else {
            let text = texts.first().cloned().unwrap_or_default();
            match kind {
                Type::Integer(..) | Type::Bool => text,
                Type::RedisUrl => quoted(&urls::masked(&text)),
                _ => quoted(&text),
            }
        };
        let mut source = place.map_or_else(|| "default".to_owned(), |place| format!("{}:{}", place.file, place.line));
        for part in from {
            source = if source == "default" { part.clone() } else { format!("{source}, {part}") };
        }
        Self { key: key.to_owned(), value, source }
    }
}

/// The effective settings as a TOML text, each key with its source behind it.
#[must_use]
pub fn to_toml(all: &[Effective]) -> String {
    let mut sections: Vec<(&str, Vec<&Effective>)> = Vec::new();
    for one in all {
        let section = one.key.rsplit_once('.').map_or("", |(section, _)| section);
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
            let name = one.key.rsplit_once('.').map_or(one.key.as_str(), |(_, name)| name);
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
            let name = if plain { name.to_owned() } else { toml::Value::String(name.to_owned()).to_string() };
            out.push_str(&format!("{name} = {}  # {}\n", one.value, one.source));
        }
    }
    out
}
