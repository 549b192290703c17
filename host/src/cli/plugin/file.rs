//! `sluicegate plugin inspect` and `test`: a component file by itself.

use std::fmt::Write as _;
use std::path::Path;

use indexmap::IndexMap;
use serde_json::json;
use sluicegate_core::settings::{Limits, Plugin};

use super::{read, sandbox, wrong};
use crate::cli::output::{Code, Failure, Output, terminal};
use crate::registry::Wanted;
use crate::registry::load;
use crate::sandbox::grants;
use crate::sandbox::inspect::{self, Inspection};

/// What a component file says of itself.
pub(in crate::cli) fn inspected(file: &Path) -> Result<Inspection, Failure> {
    let bytes = read(file)?.bytes;
    inspect::inspect(&bytes).map_err(|refusal| wrong(&refusal))
}

pub(super) fn inspect(file: &Path, output: &Output) -> Result<Code, Failure> {
    let found = inspected(file)?;
    let samples: Vec<&str> = found.samples.iter().map(|sample| sample.name.as_str()).collect();
    let needs = grants::needs(&found.imports);
    let text = format!(
        "name         {}\nversion      {}\ndescription  {}\nworld        {}\nimports      {}\nneeds        {}\nsamples      {}\ndigest       {}\nsize         {} bytes\n",
        terminal(&found.manifest.name),
        terminal(&found.manifest.version),
        terminal(&found.manifest.description),
        found.world,
        if found.imports.is_empty() { "none".to_owned() } else { terminal(&found.imports.join(", ")) },
        if needs.is_empty() { "nothing granted".to_owned() } else { needs.join(", ") },
        if samples.is_empty() {
            "none".to_owned()
        } else {
            format!("{} ({})", samples.len(), terminal(&samples.join(", ")))
        },
        found.digest,
        found.size,
    );
    let data = json!({
        "manifest": found.manifest,
        "world": found.world,
        "imports": found.imports,
        "needs": needs,
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
        rehearse: Default::default(),
        canary: None,
        probation: Default::default(),
        // It is only tried: there is nothing behind what it imports.
        grants: grants::for_a_trial(),
    };
    let wanted = Wanted { name: "plugin".to_owned(), plugin, trust: None, world: None, before: None };
    let generation = load::load(&sandbox, &wanted, &read, 1, |_| {}).map_err(|refusal| wrong(&refusal))?.generation;
    let mut text = String::new();
    let names: Vec<&str> = generation.samples().iter().map(|sample| sample.name.as_str()).collect();
    for name in &names {
        let _ = writeln!(text, "ok  {}", terminal(name));
    }
    let _ = writeln!(text, "{} samples gave what they promise", names.len());
    Ok(output.good(&text, &json!({ "samples": names })))
}
