//! How a new build does once it is live: for a while it is judged against the one before, and where it does worse the one before comes
//! back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::backoff::Backoff;
use sluicegate_core::canary::{self, Verdict};
use sluicegate_core::compared::Sum;
use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Step;
use sluicegate_core::settings::Probation;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::live::{Current, Live};
use crate::registry::desk::{Desk, DeskError, RolledBack, Worse};
use crate::sandbox::Generation;
use crate::telemetry::board::Board;
use crate::telemetry::{clock, metrics};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);

/// A build on probation.
struct Trial {
    build: Arc<Generation>,
    /// What the one before came to, in all its time.
    before: Sum,
    /// It failed at everything, too: to go back to it helps nobody.
    before_broken: bool,
    until: Instant,
    /// When to try to go back once more, where that failed.
    again: Instant,
    backoff: Backoff,
}

/// The builds that were live at the last look, and those on probation.
struct Watch {
    live: HashMap<String, Arc<Generation>>,
    trials: HashMap<String, Trial>,
    board: Arc<Board>,
}

/// Judges until `stop`.
pub(super) async fn run(current: Current, desk: Desk, board: Arc<Board>, stop: CancellationToken) {
    let mut watch = Watch { live: HashMap::new(), trials: HashMap::new(), board };
    watch.look(&current.load_full(), &desk);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let live = current.load_full();
        watch.look(&live, &desk);
        for (name, worse) in watch.judge(&live) {
            tokio::select! {
                () = stop.cancelled() => return,
                went = desk.roll_back(&name, Some(worse)) => watch.went(&name, went),
            }
        }
    }
}

impl Watch {
    /// Which builds are new.
    fn look(&mut self, live: &Live, desk: &Desk) {
        let named = |name: &String| live.builds().any(|build| build.name() == name);
        self.live.retain(|name, _| named(name));
        for build in live.builds() {
            let name = build.name();
            let Some(before) = self.live.insert(name.to_owned(), build.clone()) else { continue };
            if before.number() == build.number() {
                continue;
            }
            if before.digest() == build.digest()
                && let Some(trial) = self.trials.get_mut(name)
            {
                // With other settings it is judged on.
                trial.build = build.clone();
                continue;
            }
            self.end(name);
            let Some(rules) = live.settings.plugins.get(name).map(|plugin| plugin.probation) else { continue };
            // The same build was judged before; and one that came back is what was gone back to.
            if before.digest() == build.digest() || came_back(desk, name, build.digest()) || rules.for_.is_zero() {
                continue;
            }
            let until = Instant::now() + rules.for_;
            let (build, before, before_broken) = (build.clone(), before.sum(), before.is_broken());
            self.board.plugin_probation(name, Some(clock::now() + rules.for_));
            metrics::reload(name, Step::Probation.name(), "begun");
            let backoff = Backoff::for_rollbacks();
            self.trials
                .insert(name.to_owned(), Trial { build, before, before_broken, until, again: Instant::now(), backoff });
        }
    }

    /// Which builds do worse than those before them.
    fn judge(&mut self, live: &Live) -> Vec<(String, Worse)> {
        let mut worse = Vec::new();
        let mut ended = Vec::new();
        for (name, trial) in &self.trials {
            let rules = live.settings.plugins.get(name).map(|plugin| plugin.probation);
            let Some(Probation { min_calls, tolerance, .. }) = rules.filter(|_| live.is_live(&trial.build)) else {
                ended.push(name.clone());
                continue;
            };
            if Instant::now() < trial.again {
                continue;
            }
            let now = trial.build.sum();
            let over = Instant::now() >= trial.until;
            let reason = match canary::judge(trial.before, now, min_calls, tolerance, over) {
                // Its breaker lets few calls through: it would never come to `min_calls`.
                _ if trial.build.is_broken() && !trial.before_broken => Some("it fails at everything".to_owned()),
                Verdict::Worse(worse) => Some(worse.to_string()),
                Verdict::Passed => None,
                Verdict::Wait => continue,
            };
            let (digest, generation) = (trial.build.digest(), trial.build.number());
            if let Some(reason) = reason {
                tracing::error!(plugin = name, %digest, reason, "a build on probation does worse than the one before");
                // Its time is over, however often it takes to go back.
                self.board.plugin_probation(name, None);
                worse.push((name.clone(), Worse { generation, reason }));
            } else {
                tracing::info!(plugin = name, %digest, calls = now.calls, failures = now.failures, "a build's probation is over");
                metrics::reload(name, Step::Probation.name(), "passed");
                ended.push(name.clone());
            }
        }
        ended.iter().for_each(|name| self.end(name));
        worse
    }

    /// What became of going back: the trial goes on where it may still come about, without a limit, since the bad build is live.
    fn went(&mut self, name: &str, went: Result<RolledBack, DeskError>) {
        match went {
            Ok(_) => self.end(name),
            // What serves now is judged by itself.
            Err(DeskError::Overtaken(_)) => {}
            Err(error @ (DeskError::NoFallback(_) | DeskError::Unknown { .. } | DeskError::Stopping)) => {
                tracing::error!(plugin = name, %error, "a build does worse than the one before, and there is no way back");
                self.end(name);
            }
            Err(error) => {
                tracing::warn!(plugin = name, %error, "the build before could not come back; trying again");
                if let Some(trial) = self.trials.get_mut(name) {
                    trial.again = Instant::now() + trial.backoff.next(clock::chance());
                }
            }
        }
    }

    fn end(&mut self, name: &str) {
        if self.trials.remove(name).is_some() {
            self.board.plugin_probation(name, None);
        }
    }
}

/// Whether a build is live since a rollback.
fn came_back(desk: &Desk, name: &str, digest: Digest) -> bool {
    let changes = desk.history().of(Some(name));
    changes.iter().find(|change| change.to == Some(digest)).is_some_and(|change| change.is_rollback())
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use sluicegate_core::settings::{Grants, Limits};
    use sluicegate_guests::Guest;

    use super::*;
    use crate::sandbox::tests::sandbox;

    #[tokio::test]
    async fn a_way_back_that_is_closed_for_a_moment_is_tried_again_and_one_that_is_not_there_is_not() {
        let board = Arc::new(Board::new("test", ["guest".to_owned()], Vec::new()));
        let build = sandbox().compile(
            &Guest::echo().handler(),
            IndexMap::new(),
            Limits::default(),
            &Grants::default(),
            "guest",
            2,
        );
        let trial = Trial {
            build: Arc::new(build.expect("it compiles")),
            before: Sum::default(),
            before_broken: false,
            until: Instant::now(),
            again: Instant::now(),
            backoff: Backoff::for_rollbacks(),
        };
        let mut watch = Watch { live: HashMap::new(), trials: HashMap::from([("guest".to_owned(), trial)]), board };
        let refused = || DeskError::Refused {
            digest: digest(),
            step: Step::Rehearsed,
            reason: "a sample took too long".to_owned(),
        };
        for error in [DeskError::Busy, refused()] {
            let before = Instant::now();
            watch.went("guest", Err(error));
            assert!(watch.trials.get("guest").is_some_and(|trial| trial.again > before), "it is tried again, later");
        }
        watch.went("guest", Err(DeskError::NoFallback("guest".to_owned())));
        assert!(watch.trials.is_empty(), "there is nothing to go back to");
    }

    fn digest() -> Digest {
        format!("sha256:{}", "0".repeat(64)).parse().expect("a digest")
    }
}
