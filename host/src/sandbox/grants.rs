//! What a component needs to be granted: imports that are no plugin's by right.

use sluicegate_core::http::HttpGrant;
use sluicegate_core::settings::Grants;

use super::http;
use super::refusal::Problem;

const STATE: &str = "sluicegate:plugin/state@";

/// The settings that would have to grant what a component imports.
#[must_use]
pub fn needs(imports: &[String]) -> Vec<&'static str> {
    let imports_any = |is: fn(&str) -> bool| imports.iter().any(|import| is(import));
    let state = imports_any(|import| import.starts_with(STATE)).then_some("grants.state");
    state.into_iter().chain(imports_any(http::has).then_some("grants.http")).collect()
}

/// What a build is given that is only tried here: nothing is behind it.
#[must_use]
pub fn for_a_trial() -> Grants {
    Grants { state: true, http: HttpGrant::parse("nobody.invalid").into_iter().collect(), ..Grants::default() }
}

/// Whether all that a component imports was granted.
pub(super) fn check(imports: &[String], grants: &Grants) -> Result<(), Problem> {
    for import in imports {
        let remedy = if import.starts_with(STATE) && !grants.state {
            "set grants.state = true in its section `[plugins.NAME.grants]`, or build the plugin without it"
        } else if http::has(import) && grants.http.is_empty() {
            "name the servers that it may call in plugins.NAME.grants.http, or build the plugin without it"
        } else {
            continue;
        };
        return Err(Problem::Import { import: import.clone(), remedy });
    }
    Ok(())
}
