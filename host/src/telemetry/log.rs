//! The log: text for people, JSON for machines, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log level `{level}`: {reason}; use error, warn, info, debug, trace or `module=level,…`")]
pub struct LogError {
    level: String,
    reason: String,
}

/// Sets the log up, once. `level` wins over `RUST_LOG`; the default is `info`.
///
/// # Errors
/// [`LogError`], for a level that is none.
pub fn init(level: Option<&str>, format: Format) -> Result<(), LogError> {
    let wanted = level
        .map(str::to_owned)
        .or_else(|| std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "info,mqtt5=warn,rumqttc=warn".to_owned());
    // The library takes a word that is no level for a module's name, and then shows nothing of all others.
    let word = |part: &&str| !part.contains(['=', ':', '[']) && part.trim().parse::<LevelFilter>().is_err();
    if let Some(wrong) = wanted.split(',').find(word) {
        return Err(LogError { reason: format!("`{wrong}` is no level"), level: wanted });
    }
    let filter = EnvFilter::try_new(&wanted).map_err(|error| LogError { level: wanted, reason: error.to_string() })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // A log that cannot be written is no reason to end: saying so on standard error would be one.
    let log = log.log_internal_errors(false);
    // Refused only where a log is set up already, as in tests.
    let _ = match format {
        Format::Text => log.with_target(false).try_init(),
        Format::Json => log.json().flatten_event(true).try_init(),
    };
    Ok(())
}
