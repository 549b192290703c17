//! How a new build does that serves some machines first: it is compared with the live build, each by its own calls of the same while. Where it does
//! worse it is withdrawn; where its time is over and it does not, it is live for all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sluicegate_core::canary::{Verdict, judge};
use sluicegate_core::compared::Sum;
use sluicegate_core::lifecycle::Step;
use tokio_util::sync::CancellationToken;

use crate::live::{Canary, Current, Live};
use crate::registry::desk::{Desk, DeskError, Worse};
use crate::sandbox::Generation;
use crate::telemetry::board::{Board, Compared};
use crate::telemetry::clock;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);

/// A canary beside one live build: from when both are counted, and what they had come to then.
struct Trial {
    canary: u64,
    live: u64,
    since: Instant,
    until: Timestamp,
    before: (Sum, Sum),
}

/// What is to become of a canary.
enum Decision {
    Promote(u64),
    Withdraw(Worse),
}

/// Judges until `stop`.
pub(super) async fn run(current: Current, desk: Desk, board: Arc<Board>, stop: CancellationToken) {
    let mut trials: HashMap<String, Trial> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let live = current.load_full();
        for (name, decision) in look(&live, &mut trials, &board) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = carry_out(&desk, &name, decision) => {}
            }
        }
    }
}

async fn carry_out(desk: &Desk, name: &str, decision: Decision) {
    let went = match decision {
        Decision::Promote(generation) => desk.promote(name, Some(generation)).await.map(|_| ()),
        Decision::Withdraw(worse) => desk.roll_back(name, Some(worse)).await.map(|_| ()),
    };
    match went {
        // What is not done now is found again at the next look.
        Ok(())
        | Err(
            DeskError::Busy
            | DeskError::Stopping
            | DeskError::NoCanary(_)
            | DeskError::NoFallback(_)
            | DeskError::Overtaken(_),
        ) => {}
        Err(error) => tracing::error!(plugin = name, %error, "what was decided of a canary was not done"),
    }
}

fn look(live: &Live, trials: &mut HashMap<String, Trial>, board: &Board) -> Vec<(String, Decision)> {
    trials.retain(|name, _| live.canaries().any(|(other, _)| other == name));
    let mut decided = Vec::new();
    for (name, canary) in live.canaries() {
        let (Some(standing), Some(plugin)) = (live.build(name), live.settings.plugins.get(name)) else { continue };
        let trial = trial(trials, name, canary, standing);
        // The settings say nothing of it any more: its time is over.
        let for_ = plugin.canary.as_ref().map_or(Duration::ZERO, |rules| rules.for_);
        let left = for_.saturating_sub(trial.since.elapsed());
        // Steady, where nothing changed: two clocks do not tell a time to the same microsecond.
        let until = clock::now() + left;
        if until.duration_since(trial.until).abs() > jiff::SignedDuration::from_secs(1) {
            trial.until = until;
        }
        let (own, beside) = (canary.build.sum(), standing.sum());
        let (now, then) = (own.since(trial.before.0), beside.since(trial.before.1));
        board.plugin_compared(name, canary.build.number(), Compared::new(now, then, trial.until));
        // Where all traffic is the canary's, what the live build came to before is the best that there is.
        let measure = plugin.probation;
        let then = if then.calls >= measure.min_calls { then } else { beside };
        let digest = canary.build.digest();
        let worse = match judge(then, now, measure.min_calls, measure.tolerance, left.is_zero()) {
            _ if canary.build.is_broken() && !standing.is_broken() => "it fails at everything".to_owned(),
            Verdict::Worse(worse) => worse.to_string(),
            Verdict::Wait => continue,
            Verdict::Passed => {
                let (calls, failures) = (now.calls, now.failures);
                tracing::info!(plugin = name, %digest, step = %Step::Canary, calls, failures, "a canary does no worse than the live build");
                decided.push((name.to_owned(), Decision::Promote(canary.build.number())));
                continue;
            }
        };
        let reason = format!("{worse} ({} of {} calls, by the machines that it served)", now.failures, now.calls);
        tracing::error!(plugin = name, %digest, step = %Step::Canary, reason, "a canary does worse than the live build");
        decided.push((name.to_owned(), Decision::Withdraw(Worse { generation: canary.build.number(), reason })));
    }
    decided
}

/// Where another build is live than before, the canary is compared with that one, from now on.
fn trial<'t>(
    trials: &'t mut HashMap<String, Trial>,
    name: &str,
    canary: &Canary,
    standing: &Generation,
) -> &'t mut Trial {
    let (number, live) = (canary.build.number(), standing.number());
    let (since, until) = (canary.since, Timestamp::MIN);
    let begun = || Trial { canary: number, live, since, until, before: (Sum::default(), canary.before) };
    let trial = trials.entry(name.to_owned()).or_insert_with(begun);
    if trial.canary != number {
        *trial = begun();
    } else if trial.live != live {
        *trial = Trial { live, since: Instant::now(), before: (canary.build.sum(), standing.sum()), ..begun() };
    }
    trial
}
