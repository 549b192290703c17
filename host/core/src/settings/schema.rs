//! The settings' JSON schema, draft-07, which editors' TOML support reads.

use serde_json::{Map, Value, json};

use super::table::{self, Applies, Key, Type};

/// The schema, as text.
#[must_use]
pub fn schema() -> String {
    let mut properties = Map::new();
    for section in ["gateway", "mqtt", "redis", "queues", "spool", "trust", "commands", "admin", "access"] {
        properties.insert(section.to_owned(), object(section, &[], Map::new()));
    }
    let mut plugin = Map::new();
    plugin.insert(
        "settings".to_owned(),
        json!({
            "description": "What the plugin reads with `setting`.",
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        }),
    );
    for name in ["limits", "rehearse", "canary", "probation", "grants"] {
        plugin.insert(name.to_owned(), object(&format!("plugins.*.{name}"), &[], Map::new()));
    }
    properties.insert(
        "plugins".to_owned(),
        json!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z][a-z0-9-]{0,63}$" },
            "additionalProperties": object("plugins.*", &["path"], plugin),
        }),
    );
    properties.insert(
        "routes".to_owned(),
        json!({
            "type": "array",
            "items": object("routes", &["name", "topic", "handlers"], Map::new()),
        }),
    );
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Sluicegate's settings",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    format!("{schema:#}\n")
}

fn object(section: &str, required: &[&str], mut properties: Map<String, Value>) -> Value {
    for key in table::of(section) {
        properties.insert(key.name.to_owned(), property(key));
    }
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn property(key: &Key) -> Value {
    // A text with `${…}` is read as the key's type after it was filled in.
    let filled = json!({ "type": "string", "pattern": "\\$\\{" });
    let mut property = match key.kind {
        Type::Bool => json!({ "anyOf": [{ "type": "boolean" }, filled] }),
        Type::Integer(least, most) => {
            json!({ "anyOf": [{ "type": "integer", "minimum": least, "maximum": most }, filled] })
        }
        Type::Number(least, most) => {
            json!({ "anyOf": [{ "type": "number", "minimum": least, "maximum": most }, filled] })
        }
        Type::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Type::Word(words) => json!({ "anyOf": [{ "enum": words }, filled] }),
        _ => json!({ "type": "string" }),
    };
    let applies = match key.applies {
        Applies::Live => "Applies live.",
        Applies::Reconnect => "Applies by another connection to the broker.",
        Applies::Restart => "A change needs a restart.",
    };
    property["description"] = format!("{} {applies}", key.meaning).into();
    if let Some(default) = key.default {
        property["default"] = match key.kind {
            Type::Texts => json!([]),
            Type::Bool => (default == "true").into(),
            Type::Integer(..) => default.parse::<u64>().map_or(Value::Null, Value::from),
            Type::Number(..) => default.parse::<f64>().map_or(Value::Null, Value::from),
            _ => default.into(),
        };
    }
    property
}
