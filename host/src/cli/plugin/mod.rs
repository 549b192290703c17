//! `sluicegate plugin …`

use std::fmt::Write as _;
use std::path::Path;

use indexmap::IndexMap;
use serde_json::json;
use sluicegate_core::settings::{CompileLimits, Limits, Plugin, Settings};

use super::output::{Code, Failure, Output};
use crate::registry::Wanted;
use crate::registry::load::{self, File};
use crate::sandbox::inspect::{self, Inspection};
use crate::sandbox::refusal::Step;
use crate::sandbox::{Cache, Compiler, Origin, Problem, Refusal, Sandbox};
use crate::telemetry::causes::with_causes;

fn read(file: &Path) -> Result<File, Failure> {
    load::read(file).map_err(|refusal| wrong(&refusal))
}

fn wrong(refusal: &Refusal) -> Failure {
    Failure::new(Code::Wrong, refusal.to_string(), next(refusal))
}

/// What to do about it, wherever the file is from.
pub(super) fn next(refusal: &Refusal) -> &'static str {
    if matches!(refusal.problem, Problem::CompileTime { .. } | Problem::CompileMemory { .. }) {
        return "raise that limit where the plugin is worth it; `sluicegate plugin compile FILE` tries it beforehand";
    }
    if matches!(refusal.problem, Problem::Untrusted(_)) {
        return "sluicegate plugin verify FILE (whose a build is, and whether it is taken)";
    }
    match refusal.step {
        Step::Found => "check the path (in the source tree `cargo xtask plugins` builds those of plugins/)",
        Step::Verified | Step::Compiled | Step::Checked => {
            "have the plugin built as wit/plugin.wit says, on the interface of this version of sluicegate"
        }
        Step::Rehearsed | Step::Live | Step::Probation | Step::Fallback => {
            "mend the plugin, or what its sample promises; its settings count, too"
        }
    }
}

/// An engine that compiles as the gateway of these settings does, and uses what that kept. It keeps nothing itself: the one who looks may be
/// another user, whose files the gateway must not trust.
pub(super) fn sandbox(settings: Option<&Settings>) -> Result<Sandbox, Failure> {
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
    let settings = super::config::load(config)?.settings;
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

/// What a component file says of itself.
pub(super) fn inspected(file: &Path) -> Result<Inspection, Failure> {
    let bytes = read(file)?.bytes;
    inspect::inspect(&bytes).map_err(|refusal| wrong(&refusal))
}

pub(super) fn inspect(file: &Path, output: &Output) -> Result<Code, Failure> {
    let found = inspected(file)?;
    let samples: Vec<String> = found.samples.iter().map(|sample| sample.name.escape_debug().to_string()).collect();
    let text = format!(
        "name         {}\nversion      {}\ndescription  {}\nworld        {}\nimports      {}\nsamples      {}\ndigest       {}\nsize         {} bytes\n",
        found.manifest.name,
        found.manifest.version,
        found.manifest.description,
        found.world,
        if found.imports.is_empty() { "none".to_owned() } else { found.imports.join(", ") },
        if samples.is_empty() { "none".to_owned() } else { format!("{} ({})", samples.len(), samples.join(", ")) },
        found.digest,
        found.size,
    );
    let data = json!({
        "manifest": found.manifest,
        "world": found.world,
        "imports": found.imports,
        "samples": samples,
        "digest": found.digest.to_string(),
        "size": found.size,
    });
    Ok(output.good(&text, &data))
}

pub(super) fn test(file: &Path, output: &Output) -> Result<Code, Failure> {
    let read = read(file)?;
    let sandbox = sandbox(None)?;
    let plugin = Plugin {
        path: file.to_owned(),
        digest: None,
        settings: IndexMap::new(),
        limits: Limits::default(),
        grants: Default::default(),
    };
    let wanted = Wanted { name: "plugin".to_owned(), plugin, trust: None, world: None, before: None };
    let generation = load::load(&sandbox, &wanted, &read, 1, |_| {}).map_err(|refusal| wrong(&refusal))?.generation;
    let mut text = String::new();
    let names: Vec<String> = generation.samples().iter().map(|sample| sample.name.escape_debug().to_string()).collect();
    for name in &names {
        let _ = writeln!(text, "ok  {name}");
    }
    let _ = writeln!(text, "{} samples gave what they promise", names.len());
    Ok(output.good(&text, &json!({ "samples": names })))
}
