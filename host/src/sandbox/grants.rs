//! What a component needs to be granted: imports that are no plugin's by right.

use sluicegate_core::settings::Grants;

use super::refusal::Problem;

/// Imports, and the setting that grants them.
const STATE: (&str, &str) = ("sluicegate:plugin/state@", "grants.state");

/// The settings that would have to grant what a component imports.
#[must_use]
pub fn needs(imports: &[String]) -> Vec<&'static str> {
    let (import, setting) = STATE;
    if imports.iter().any(|found| found.starts_with(import)) { vec![setting] } else { Vec::new() }
}

/// Whether all that a component imports was granted.
pub(super) fn check(imports: &[String], grants: &Grants) -> Result<(), Problem> {
    match imports.iter().find(|import| import.starts_with(STATE.0)) {
        Some(import) if !grants.state => {
            let remedy =
                "set grants.state = true in its section `[plugins.NAME.grants]`, or build the plugin without it";
            Err(Problem::Import { import: import.clone(), remedy })
        }
        _ => Ok(()),
    }
}
