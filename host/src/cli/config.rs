//! `sluicegate config …`

use std::path::Path;

use serde_json::json;
use sluicegate_core::settings::{Resolved, to_toml};

use super::output::{Code, Failure, Output};
use crate::settings;

/// The settings, or every mistake in them.
pub(super) fn load(file: Option<&Path>) -> Result<Resolved, Failure> {
    settings::load(file).map_err(|errors| {
        let messages = errors.0.iter().map(ToString::to_string).collect();
        Failure::many(Code::Wrong, messages, "sluicegate config schema (every key), or docs/settings.md")
    })
}

pub(super) fn show(file: Option<&Path>, output: &Output) -> Result<Code, Failure> {
    let resolved = load(file)?;
    Ok(output.good(&to_toml(&resolved.effective), &json!(resolved.effective)))
}
