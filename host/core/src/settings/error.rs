//! A mistake in the settings: where it is, what it was, and what is allowed.

use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// The file, and the line and column in it, counted from 1; none where no file says it.
    pub place: Option<Place>,
    /// Variables of the environment and files that gave a part of the value: `environment MQTT_BROKER_PORT`.
    pub from: Vec<String>,
    /// The key, such as `mqtt.receive_maximum` or `routes[2].topic`; empty where it is the whole file.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its path.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { file, line, column }) = &self.place {
            write!(f, "{file}:{line}:{column}: ")?;
        }
        match (self.key.as_str(), self.from.as_slice()) {
            ("", _) => {}
            (key, []) => write!(f, "{key}: ")?,
            (key, from) => write!(f, "{key} ({}): ", from.join(", "))?,
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for SettingsError {}

/// All mistakes that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsErrors(pub Vec<SettingsError>);

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for SettingsErrors {}
