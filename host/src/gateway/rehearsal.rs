//! The last real messages and commands, for builds that the registry proposes, and for whoever asks for them.

use std::sync::{Arc, OnceLock};

use serde_json::json;
use sluicegate_core::lifecycle::Step;
use sluicegate_core::tried::Tried;

use crate::live::Current;
use crate::recent::{MAX_MESSAGES, Recent};
use crate::registry::Rehearsal;
use crate::rehearsal;
use crate::sandbox::{Generation, Problem, Refusal, block_on};
use crate::telemetry::board::Board;

/// What a build is tried on, from when messages are taken.
pub(super) struct RealMessages {
    pub current: Arc<OnceLock<Current>>,
    pub recent: Arc<Recent>,
    pub board: Arc<Board>,
}

impl Rehearsal for RealMessages {
    fn messages(&self, plugin: &str) -> Result<Vec<Tried>, Refusal> {
        let Some(current) = self.current.get() else { return Ok(Vec::new()) };
        block_on(rehearsal::inputs(&current.load_full(), &self.recent, plugin, MAX_MESSAGES))
    }

    fn rehearse(&self, build: &Arc<Generation>) -> Result<(), Refusal> {
        let Some(current) = self.current.get() else { return Ok(()) };
        let live = current.load_full();
        let Some(plugin) = live.settings.plugins.get(build.name()) else { return Ok(()) };
        let rehearsed = block_on(async {
            tokio::select! {
                rehearsed = rehearsal::rehearse(&live, &self.recent, build, plugin.rehearse) => Ok(rehearsed),
                () = build.given_up() => Err(Refusal { step: Step::Rehearsed, problem: Problem::GivenUp }),
            }
        })?;
        let Some(report) = rehearsed? else { return Ok(()) };
        tracing::info!(
            plugin = build.name(),
            digest = %build.digest(),
            messages = report.messages,
            new_failures = report.new_failures,
            differing = report.differing,
            "a build was tried on the last real messages"
        );
        let reason = report.refused.clone();
        let shown = json!({ "report": report, "text": report.text() });
        self.board.plugin_rehearsed(build.name(), shown);
        match reason {
            Some(reason) => Err(Refusal { step: Step::Rehearsed, problem: Problem::Worse(reason) }),
            None => Ok(()),
        }
    }
}
