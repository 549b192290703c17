//! The last real messages, for builds that the registry proposes.

use std::sync::{Arc, OnceLock};

use serde_json::json;
use sluicegate_core::lifecycle::Step;

use crate::live::Current;
use crate::recent::Recent;
use crate::registry::Rehearsal;
use crate::rehearsal;
use crate::sandbox::{Generation, Problem, Refusal};
use crate::telemetry::board::Board;

/// What a build is tried on, from when messages are taken.
pub(super) struct RealMessages {
    pub current: Arc<OnceLock<Current>>,
    pub recent: Arc<Recent>,
    pub board: Arc<Board>,
}

impl Rehearsal for RealMessages {
    fn rehearse(&self, build: &Arc<Generation>) -> Result<(), Refusal> {
        let refused = |problem| Refusal { step: Step::Rehearsed, problem };
        let Some(current) = self.current.get() else { return Ok(()) };
        let live = current.load_full();
        let Some(plugin) = live.settings.plugins.get(build.name()) else { return Ok(()) };
        // Guests run on a thread of their own, never on one that polls sockets: this one.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| refused(Problem::Host(error.to_string())))?;
        let rehearsed = runtime.block_on(rehearsal::rehearse(&live, &self.recent, build, plugin.rehearse));
        let Some(report) = rehearsed else { return Ok(()) };
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
            Some(reason) => Err(refused(Problem::Worse(reason))),
            None => Ok(()),
        }
    }
}
