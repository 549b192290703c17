//! `sluicegate config …`

use std::path::Path;

use serde_json::json;
use sluicegate_core::settings::difference::Change;
use sluicegate_core::settings::{Resolved, to_toml};

use super::client::Client;
use super::output::{Code, Failure, Output, terminal};
use super::plan;
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

/// Tells a running gateway to read its settings again.
pub(super) fn reload(client: Client, output: &Output) -> Result<Code, Failure> {
    let client = client.patient();
    let next = "sluicegate check --against ADDRESS:PORT (what the file would change, and how)";
    let answer =
        client.post("/api/settings/reload", &json!({}))?.good(&client).map_err(|failure| failure.refused(next))?;
    let number = &answer["number"];
    let mut text = if answer["outcome"] == "unchanged" {
        format!("nothing changed; settings {number} are in force\n")
    } else {
        format!("settings {number} are in force\n")
    };
    let changes: Vec<Change> = serde_json::from_value(answer["changes"].clone()).unwrap_or_default();
    for change in &changes {
        text.push_str(&format!("{:<10} {}\n", change.applies.to_string(), terminal(&plan::sentence(change))));
    }
    if let Some(reason) = answer["unconfirmed"].as_str() {
        text.push_str(&format!("note       {}\n", terminal(reason)));
    }
    Ok(output.good(&text, &answer))
}
