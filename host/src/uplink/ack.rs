//! The only place that settles a message: an [`Open`] delivery is settled with its outcome, or withholds its
//! acknowledgement.

use std::sync::Arc;

use sluicegate_core::ticket::{Outcome, Ticket};

use crate::mqtt::consume::Settled;
use crate::telemetry::metrics::RouteMetrics;

/// A delivery that is not settled yet.
///
/// Invariant: dropped without a verdict it withholds the acknowledgement and counts a fault; the broker sends the message
/// again when the session resumes.
#[derive(Debug)]
pub struct Open {
    ticket: Option<Ticket>,
}

impl Open {
    /// For a publish that just arrived.
    #[must_use]
    pub fn new(ticket: Ticket) -> Self {
        Self { ticket: Some(ticket) }
    }

    /// Its outcome is durable: what may be acknowledged.
    #[must_use]
    pub fn settle(mut self, outcome: Outcome, metrics: Option<&RouteMetrics>) -> Option<Ticket> {
        if let Some(metrics) = metrics {
            match outcome {
                Outcome::Pushed { jobs } => metrics.pushed(jobs),
                Outcome::Dead => metrics.dead(),
                Outcome::Dropped => metrics.dropped(),
            }
        }
        self.ticket.take()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            crate::telemetry::metrics::delivery_abandoned();
            tracing::error!(
                epoch = ticket.epoch.0,
                arrival = ticket.arrival,
                "a delivery was dropped without a verdict; its acknowledgement is withheld and the broker will send it again"
            );
        }
    }
}

/// Where settled tickets go.
pub type Acks = Arc<Settled>;
