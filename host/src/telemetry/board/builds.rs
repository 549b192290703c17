//! What the status tells of a plugin's builds.

use jiff::Timestamp;
use serde::Serialize;
use sluicegate_core::compared::Sum;

use crate::telemetry::clock;

/// A plugin's live build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveBuild {
    /// As its manifest says.
    pub version: String,
    /// `sha256:…`
    pub digest: String,
    /// 1, 2, … since the gateway started.
    pub generation: u64,
    /// The world that it implements.
    pub world: String,
    /// `file`: the plugin's own file; `fallback`: the build that was kept.
    pub source: &'static str,
    /// The key that signed it, where one did.
    pub signed_by: Option<String>,
    /// Since when it is live.
    pub since: Timestamp,
}

/// A build that did not go live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// `sha256:…`, where the file could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The step of the lifecycle that refused it.
    pub step: &'static str,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A build on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// `sha256:…`
    pub digest: String,
    /// The step that it is at.
    pub step: &'static str,
    /// Since when it is there.
    pub since: Timestamp,
}

/// A build that a rollback goes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// As its manifest says.
    pub version: String,
    /// `sha256:…`
    pub digest: String,
}

/// A build that serves some machines before it serves all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CanaryBuild {
    /// As its manifest says.
    pub version: String,
    /// `sha256:…`
    pub digest: String,
    /// 1, 2, … since the gateway started.
    pub generation: u64,
    /// Since when.
    pub since: Timestamp,
    /// How it does; none: it was not looked at yet.
    #[serde(flatten)]
    pub compared: Option<Compared>,
}

impl CanaryBuild {
    /// It begins now.
    #[must_use]
    pub fn new(version: &str, digest: &str, generation: u64) -> Self {
        let (version, digest, since) = (version.to_owned(), digest.to_owned(), clock::now());
        Self { version, digest, generation, since, compared: None }
    }
}

/// A canary beside the live build, each by its own calls of the same while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// When it is live for all, where it does no worse until then.
    pub until: Timestamp,
    /// Of the canary.
    pub calls: u64,
    /// Of those, which failed.
    pub failures: u64,
    /// Of the live build.
    pub live_calls: u64,
    /// Of those, which failed.
    pub live_failures: u64,
}

impl Compared {
    /// What both came to.
    #[must_use]
    pub fn new(canary: Sum, live: Sum, until: Timestamp) -> Self {
        let (calls, failures) = (canary.calls, canary.failures);
        Self { until, calls, failures, live_calls: live.calls, live_failures: live.failures }
    }
}
