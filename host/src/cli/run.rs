//! `sluicegate run`

use std::path::Path;

use super::config;
use super::output::{Code, Failure};
use crate::gateway;
use crate::settings;
use crate::telemetry::causes::with_causes;
use crate::telemetry::metrics::Exporter;

pub(super) fn run(file: Option<&Path>) -> Result<Code, Failure> {
    let resolved = config::load(file)?;
    let wrong = |message: String| Failure::new(Code::Wrong, message, "sluicegate check");
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        instance = resolved.settings.gateway.instance,
        settings = file.map_or_else(|| "built-in, or ./sluicegate.toml".to_owned(), |file| file.display().to_string()),
        "sluicegate starts"
    );
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    crate::tls::install().map_err(|error| wrong(with_causes(&error)))?;
    let exporter = Exporter::install().map_err(|error| wrong(with_causes(&error)))?;
    // Two are enough: guests run on threads of their own, so these only move bytes.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| wrong(format!("the system gives no threads: {error}")))?;
    let result = runtime.block_on(gateway::run(settings::file(file), resolved, exporter));
    // Whatever is still blocked is abandoned: the limit is over.
    runtime.shutdown_background();
    match result {
        Ok(()) => Ok(Code::Good),
        Err(error) => {
            let reason = with_causes(&error);
            tracing::error!(%reason, "the gateway stopped");
            Err(wrong(reason).logged())
        }
    }
}
