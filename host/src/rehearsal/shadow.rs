//! Both builds on the same messages, in shadow: nothing is sent, nothing counts for breakers and metrics of what is live.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_core::message::{Job, Message, Publication};
use sluicegate_core::settings::Rehearse;
use tokio::time::timeout;

use super::report::{Gathered, Report, Side};
use crate::live::Live;
use crate::recent::Recent;
use crate::sandbox::{Generation, Pool};
use crate::uplink::chain::{self, Made};

/// How long all messages together may take: beyond it what was seen so far decides.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Tries a build on the last messages of the routes that it would serve; none: there are none, or nothing is live that it could be
/// compared with.
///
/// # Cancel safety
/// Dropped, nothing happened.
pub async fn rehearse(live: &Live, recent: &Recent, build: &Arc<Generation>, rules: Rehearse) -> Option<Report> {
    let pool = Pool::uncounted();
    let mut gathered = Gathered::default();
    let mut standing = None;
    let all = async {
        for (place, chain) in live.chains.iter().enumerate() {
            let Some(now) = chain.iter().find(|generation| generation.name() == build.name()) else { continue };
            standing = Some(now.digest());
            let swap = |one: &Arc<Generation>| if one.name() == build.name() { build } else { one }.clone();
            let new: Vec<Arc<Generation>> = chain.iter().map(swap).collect();
            for message in recent.of(&live.route_name(place), rules.messages) {
                // The live one first, then the new one, on instances that are warm after the first message.
                let before = made(&pool, chain, &message).await;
                let after = made(&pool, &new, &message).await;
                gathered.add(&message.topic, &message.payload, before, after);
            }
        }
    };
    let _ = timeout(MAX_TIME, all).await;
    let standing = standing.filter(|_| gathered.now.calls > 0)?;
    let worse = gathered.worse(rules.tolerance).map(|worse| worse.to_string());
    Some(gathered.report(standing.to_string(), build.digest().to_string(), worse))
}

async fn made(pool: &Pool, chain: &[Arc<Generation>], message: &Message) -> Side {
    let began = Instant::now();
    let kept = Cell::new(false);
    let made = chain::run(pool, chain, message.clone(), &kept, &mut ()).await;
    let took = began.elapsed();
    match made {
        Made::Outputs { jobs, publications } => {
            let published = |(_, Publication { topic, payload, retain }): (_, Publication)| {
                let retained = if retain { " (retained)" } else { "" };
                format!("publish {}{retained} {}", topic.escape_debug(), String::from_utf8_lossy(&payload))
            };
            let mut lines: Vec<String> = publications.into_iter().map(published).collect();
            if jobs.is_empty() && lines.is_empty() {
                lines.push("dropped".to_owned());
            }
            let line = |job: Job| {
                let payload = String::from_utf8_lossy(&job.payload).into_owned();
                match job.idempotency_key {
                    Some(key) => format!("job {payload} (once: {key})"),
                    None => format!("job {payload}"),
                }
            };
            lines.extend(jobs.into_iter().map(line));
            Side { failed: false, took, lines }
        }
        Made::Failed(failed) => Side { failed: true, took, lines: vec![format!("failed: {}", failed.reason)] },
    }
}
