//! Both builds on the same messages, in shadow: nothing is sent, nothing counts for breakers and metrics of what is live.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_core::fault::Fault;
use sluicegate_core::message::{GuestCommand, Job, Message};
use sluicegate_core::settings::Rehearse;
use sluicegate_core::tried::Tried;
use tokio::time::timeout;

use super::report::{Gathered, Report, Side};
use super::text;
use crate::live::{Live, swapped};
use crate::recent::Recent;
use crate::sandbox::{Generation, Pool};
use crate::uplink::chain::{self, Made, Reason};

/// How long all messages together may take: beyond it what was seen so far decides.
const MAX_TIME: Duration = Duration::from_secs(10);
/// The same for telling what a plugin was given: somebody waits for it.
const MAX_TELLING: Duration = Duration::from_secs(2);

/// Tries a build on the last messages of the routes that it would serve, or the last commands; none: there are none, or nothing is live
/// that it could be compared with.
///
/// # Cancel safety
/// Dropped, nothing happened.
pub async fn rehearse(live: &Live, recent: &Recent, build: &Arc<Generation>, rules: Rehearse) -> Option<Report> {
    let standing = live.build(build.name())?;
    let pool = Pool::uncounted();
    let mut gathered = Gathered::default();
    let all = async {
        for (place, chain) in live.chains.iter().enumerate() {
            if !chain.iter().any(|generation| generation.name() == build.name()) {
                continue;
            }
            let new = swapped(chain, build);
            for message in recent.of(&live.route_name(place), rules.messages) {
                both(&mut gathered, &pool, (chain, &new), &Tried::Message(message)).await;
            }
        }
        if live.settings.commands.validator.as_deref() == Some(build.name()) {
            let (old, new) = ([standing.clone()], [build.clone()]);
            for command in recent.commands(rules.messages) {
                both(&mut gathered, &pool, (&old, &new), &Tried::Command(command)).await;
            }
        }
    };
    if timeout(MAX_TIME, all).await.is_err() {
        gathered.cut(MAX_TIME);
    }
    if gathered.is_empty() {
        return None;
    }
    let worse = gathered.worse(rules.tolerance).map(|worse| worse.to_string());
    Some(gathered.report(standing.digest().to_string(), build.digest().to_string(), worse))
}

/// The last messages or commands as a plugin itself was given them: what stands before it in a chain is run once more, in shadow. At most so
/// many of each route.
///
/// # Cancel safety
/// Dropped, nothing happened.
pub async fn inputs(live: &Live, recent: &Recent, plugin: &str, most: usize) -> Vec<Tried> {
    let pool = Pool::uncounted();
    let mut inputs = Vec::new();
    let all = async {
        for (place, chain) in live.chains.iter().enumerate() {
            let Some(at) = chain.iter().position(|generation| generation.name() == plugin) else { continue };
            for message in recent.of(&live.route_name(place), most) {
                if at == 0 {
                    inputs.push(Tried::Message(message));
                } else if let Made::Outputs { jobs, .. } = run(&pool, &chain[..at], &message).await {
                    let given = |job: Job| Arc::new(Message { payload: job.payload, ..(*message).clone() });
                    inputs.extend(jobs.into_iter().map(given).map(Tried::Message));
                }
            }
        }
        if live.settings.commands.validator.as_deref() == Some(plugin) {
            inputs.extend(recent.commands(most).into_iter().map(Tried::Command));
        }
    };
    let _ = timeout(MAX_TELLING, all).await;
    inputs
}

/// Gives one message or command to two chains; of a command, each is its validator alone. The first one first, then the other, on instances
/// that are warm after the first message. What the second one alone has no time for it is given once more.
pub async fn both(
    gathered: &mut Gathered,
    pool: &Pool,
    (before, now): (&[Arc<Generation>], &[Arc<Generation>]),
    tried: &Tried,
) {
    let (before, _) = made(pool, before, tried).await;
    let well = !before.failed;
    gathered.began(&tried.about(), tried.payload(), before);
    let (mut side, was_busy) = made(pool, now, tried).await;
    if was_busy && well {
        (side, _) = made(pool, now, tried).await;
    }
    gathered.ended(side);
}

/// Whether a failure may be the machine's, which is busy, and not the build's. A trap is the build's, although the next instance may do better.
fn may_be_busy(reason: &Reason) -> bool {
    reason.is_nobodys() || matches!(reason, Reason::Fault(Fault::TimedOut(_)))
}

/// What a chain made of it, and whether it failed only since the machine may be busy.
async fn made(pool: &Pool, chain: &[Arc<Generation>], tried: &Tried) -> (Side, bool) {
    let began = Instant::now();
    let made = match (tried, chain) {
        (Tried::Message(message), _) => handled(pool, chain, message).await,
        (Tried::Command(command), [validator, ..]) => validated(pool, validator, command).await,
        (Tried::Command(_), []) => Ok(Vec::new()),
    };
    let took = began.elapsed();
    match made {
        Ok(lines) => (Side { failed: false, took, lines }, false),
        Err(reason) => (Side { failed: true, took, lines: vec![text::failed(&reason)] }, may_be_busy(&reason)),
    }
}

async fn run(pool: &Pool, chain: &[Arc<Generation>], message: &Message) -> Made {
    // What it would keep is not written.
    chain::run(pool, chain, message.clone(), &Cell::new(false), &mut ()).await
}

async fn handled(pool: &Pool, chain: &[Arc<Generation>], message: &Message) -> Result<Vec<String>, Reason> {
    match run(pool, chain, message).await {
        Made::Outputs { jobs, publications } => {
            let published = publications.iter().map(|(_, one)| text::publication(&one.topic, &one.payload, one.retain));
            let pushed = jobs.iter().map(|job| text::job(&job.payload, job.idempotency_key.as_deref()));
            Ok(text::or_dropped(published.chain(pushed)))
        }
        Made::Failed(failed) => Err(failed.reason),
    }
}

async fn validated(pool: &Pool, validator: &Arc<Generation>, command: &GuestCommand) -> Result<Vec<String>, Reason> {
    match pool.validate(validator, command).await {
        Ok(Ok(payload)) => Ok(vec![text::payload(&payload)]),
        Ok(Err(failure)) => Err(failure.into()),
        Err(fault) => Err(fault.into()),
    }
}
