//! The log: text for people, JSON for machines, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sets the log up, once. `level` wins over `RUST_LOG`; the default is `info`.
pub(super) fn init(level: Option<&str>, format: Format) -> Result<(), String> {
    let wanted = level
        .map(str::to_owned)
        .or_else(|| std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "info,sqlx=warn".to_owned());
    let filter = EnvFilter::try_new(&wanted).map_err(|error| {
        format!(
            "cannot read the log level `{wanted}`: {error}; use error, warn, info, debug, trace or `module=level,…`"
        )
    })?;
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
