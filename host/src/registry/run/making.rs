//! A build through every step before it is live, off the threads that poll. Given up, it ends soon: its compiler at once, what runs its samples
//! at its next wait.

use std::sync::Arc;

use sluicegate_core::lifecycle::Step;
use tokio_util::sync::CancellationToken;

use super::blocking;
use crate::registry::Rehearsal;
use crate::registry::Wanted;
use crate::registry::load::{self, File, Loaded};
use crate::sandbox::compiled::{Claim, Urgency};
use crate::sandbox::{Problem, Refusal, Sandbox};

/// What makes builds. Cheap to clone.
#[derive(Clone)]
pub(super) struct Maker {
    pub(super) sandbox: Sandbox,
    pub(super) rehearsal: Option<Arc<dyn Rehearsal>>,
}

/// Which build, and how.
pub(super) struct Order {
    pub(super) wanted: Wanted,
    pub(super) file: Arc<File>,
    pub(super) number: u64,
    /// On real messages, too.
    pub(super) tried: bool,
}

impl Maker {
    /// What takes a build through every step. It takes as long as that takes.
    pub(super) fn steps<At: Fn(Step) + Send + 'static>(
        &self,
        order: Order,
        claim: Claim,
        at: At,
    ) -> impl FnOnce() -> Result<Loaded, Refusal> + Send + use<At> {
        let sandbox = self.sandbox.clone().claiming(claim);
        let rehearsal = self.rehearsal.clone().filter(|_| order.tried);
        move || {
            let Order { wanted, file, number, .. } = order;
            let loaded = load::load(&sandbox, &wanted, &file, number, at)?;
            if let Some(rehearsal) = rehearsal {
                rehearsal.rehearse(&loaded.generation)?;
            }
            Ok(loaded)
        }
    }

    /// The same, awaited.
    ///
    /// # Cancel safety
    /// Dropped, it is given up.
    pub(super) async fn make(
        &self,
        order: Order,
        urgency: Urgency,
        at: impl Fn(Step) + Send + 'static,
    ) -> Result<Loaded, Refusal> {
        let given_up = CancellationToken::new();
        let dropped = given_up.clone().drop_guard();
        let made = blocking(self.steps(order, Claim { urgency, given_up }, at)).await;
        dropped.disarm();
        made.unwrap_or_else(|| Err(panicked()))
    }
}

/// Its steps did not come to an end of their own.
pub(super) fn panicked() -> Refusal {
    Refusal { step: Step::Compiled, problem: Problem::Host("the engine panicked; see the log".to_owned()) }
}
