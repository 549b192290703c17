//! `sluicegate check --against`: what these settings would change on a running gateway, and how.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sluicegate_core::settings::Effective;
use sluicegate_core::settings::difference::{Change, What, difference};
use sluicegate_core::settings::table::Applies;

use super::client::Client;
use super::output::{Failure, terminal};

/// Text for people, and data for scripts.
pub(super) struct Plan {
    pub text: String,
    pub data: Value,
}

/// Asks the gateway which settings are in force, and compares.
pub(super) fn plan(client: &Client, here: &[Effective]) -> Result<Plan, Failure> {
    let in_force = client.get("/api/settings")?.good(client)?;
    let there: Vec<Effective> = serde_json::from_value(in_force["keys"].clone())
        .map_err(|_| client.unreachable("what answers is no gateway that tells its settings"))?;
    let changes = difference(&there, here);
    let mut text = String::new();
    for change in &changes {
        let _ = writeln!(text, "{:<10} {}", word(change), terminal(&sentence(change)));
    }
    let changed = || changes.iter().filter(|change| change.what != What::MayHaveChanged);
    let restart = changed().any(|change| change.applies == Applies::Restart);
    text.push_str(match (changed().count(), restart) {
        (0, _) => "plan   nothing changes, as far as can be seen from here\n",
        (_, false) => "plan   all of it is applied while the gateway runs\n",
        (_, true) => "plan   the running gateway refuses it as a whole: a part of it needs a restart\n",
    });
    Ok(Plan { text, data: json!({ "number": in_force["number"], "changes": changes, "restart": restart }) })
}

fn word(change: &Change) -> String {
    match change.what {
        What::MayHaveChanged => "unknown".to_owned(),
        _ => change.applies.to_string(),
    }
}

/// What became of a key.
pub(super) fn sentence(change: &Change) -> String {
    let key = &change.key;
    match (change.what, &change.before, &change.after) {
        (What::MayHaveChanged, ..) => format!("{key} holds a secret, which is masked: it may have changed"),
        (What::Added, _, None) => format!("{key} is new"),
        (What::Removed, None, _) => format!("{key} is gone"),
        (_, Some(before), Some(after)) if before == after => format!("{key} has another secret"),
        (_, before, after) => {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
            format!("{key}: {} -> {}", shown(before), shown(after))
        }
    }
}
