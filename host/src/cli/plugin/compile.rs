//! Compiled as the gateway does it: ahead of a swap, and for those who look at plugins as it would.

use std::path::Path;

use serde_json::json;
use sluicegate_core::settings::{CompileLimits, Settings};

use super::{read, wrong};
use crate::cli::config;
use crate::cli::output::{Code, Failure, Output};
use crate::sandbox::{Cache, Compiler, Origin, Sandbox};
use crate::telemetry::causes::with_causes;

/// An engine that compiles as the gateway of these settings does, and uses what that kept. It keeps nothing itself: the one who looks may be
/// another user, whose files the gateway must not trust.
pub(in crate::cli) fn sandbox(settings: Option<&Settings>) -> Result<Sandbox, Failure> {
    let cache = settings.and_then(|settings| {
        Cache::open(&settings.gateway.state)
            .inspect_err(|error| tracing::debug!(%error, "compiled plugins are not looked up"))
            .ok()
            .flatten()
    });
    start(settings, cache)
}

fn start(settings: Option<&Settings>, cache: Option<Cache>) -> Result<Sandbox, Failure> {
    let limits = settings.map_or_else(CompileLimits::default, |settings| settings.gateway.compile);
    Sandbox::new(Compiler::Process(limits), cache).map_err(|error| Failure::new(Code::Wrong, with_causes(&error), ""))
}

/// Fills the gateway's cache ahead of a swap.
pub(super) fn compile(file: &Path, config: Option<&Path>, output: &Output) -> Result<Code, Failure> {
    let settings = config::load(config)?.settings;
    let read = read(file)?;
    let state = &settings.gateway.state;
    let cache = Cache::make(state)
        .map_err(|error| Failure::new(Code::Wrong, with_causes(&error), "run it as the user that runs the gateway"))?;
    let kept = cache.path().display().to_string();
    let (inspection, origin) =
        start(Some(&settings), Some(cache))?.precompile(&read.bytes).map_err(|refusal| wrong(&refusal))?;
    let what = match origin {
        Origin::Cache => "was compiled already",
        Origin::Compiler => "is compiled",
    };
    let (name, version) = (&inspection.manifest.name, &inspection.manifest.version);
    let text = format!("{name} {version} {what}: {}\nkept in {kept}\n", inspection.digest);
    let data =
        json!({ "digest": inspection.digest.to_string(), "compiled": origin == Origin::Compiler, "cache": kept });
    Ok(output.good(&text, &data))
}
