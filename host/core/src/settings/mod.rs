//! The settings: as written (a TOML file and the environment) and as resolved (what the rest of the program reads).
//!
//! - [`table`]: every key, once: type, default, meaning.
//! - `written`: a file's entries and where they stand.
//! - [`interpolate`]: `${…}` in values.
//! - `resolve`: defaults, types, checks across keys.
//! - [`difference`]: what another file would change, and how.
//! - [`schema`]: the JSON schema for editors.
//! - [`document`]: the page of all keys.

mod cross;
pub mod difference;
pub mod document;
mod effective;
mod error;
pub mod interpolate;
mod resolve;
mod resolved;
pub mod schema;
pub mod table;
mod units;
mod urls;
mod written;

use std::collections::HashMap;

pub use effective::{Effective, to_toml};
pub use error::{Place, SettingsError, SettingsErrors};
pub use resolve::Outside;
pub use resolved::{
    Access, Admin, Canary, Commands, CompileLimits, Gateway, Grants, HttpLimits, Limits, Mqtt, MqttUrl, OnFailure,
    Plugin, Priority, Probation, Queues, Redis, RedisUrl, Rehearse, Route, Secret, Settings, Spool, Tls, WhenBehind,
};
pub use units::{ByteSize, UtcOffset, parse_duration, parse_offset, show_duration};
pub use urls::redis as parse_redis_url;

/// The built-in settings: what applies where no file is given.
pub const BUILT_IN: &str = include_str!("../../../../config/sluicegate.toml");

/// What the built-in settings are called where a file's name would stand.
const BUILT_IN_NAME: &str = "built-in settings";

/// Settings, and what is worth saying of them.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// They.
    pub settings: Settings,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
    /// Every key with its value and where that came from.
    pub effective: Vec<Effective>,
}

/// Reads a settings file (its name for messages, and its text), or the built-in settings.
///
/// # Errors
/// [`SettingsErrors`] holds every mistake that was found.
pub fn read(file: Option<(&str, &str)>, outside: &Outside<'_>) -> Result<Resolved, SettingsErrors> {
    let built_in = written::Reader::new(BUILT_IN_NAME, BUILT_IN).read();
    let mut reader = file.map(|(name, text)| written::Reader::new(name, text));
    let written = reader.as_mut().map(written::Reader::read).unwrap_or_default();
    let mut resolver = resolve::Resolver {
        outside,
        errors: reader.map(|reader| reader.errors).unwrap_or_default(),
        warnings: Vec::new(),
        effective: Vec::new(),
        origins: HashMap::new(),
    };
    let settings = resolver.resolve(&written, &built_in);
    match settings {
        Some(settings) => Ok(Resolved { settings, warnings: resolver.warnings, effective: resolver.effective }),
        None => Err(SettingsErrors(resolver.errors)),
    }
}

#[cfg(test)]
mod tests;
