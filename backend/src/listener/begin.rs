//! At a start, or after a lapse: what was begun under an older epoch is fenced off, what the database has already leaves the processing
//! list, and what is left is to be done first.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Parts;
use crate::clock;
use crate::database::fault::Fault;
use crate::domain::job::Source;
use crate::domain::lanes::{self, Progress};
use crate::redis::connect::RedisFault;
use crate::redis::lists::{Keeper, Standing};

/// One of the two servers.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Redis(#[from] RedisFault),
    #[error(transparent)]
    Database(#[from] Fault),
}

/// What a tenure begins with.
pub(super) struct Begun {
    /// The epoch that commits are made under.
    pub(super) epoch: i64,
    /// The last batch that left the list.
    pub(super) settled: u64,
    /// What stands in the processing list, oldest first.
    pub(super) standing: Vec<Bytes>,
}

/// Where in the list what the database has stands.
pub(super) fn places(source: &Source, standing: &Standing, notes: &[Progress]) -> lanes::Standing {
    let machines: Vec<String> = standing.entries.iter().map(|entry| source.machine(entry)).collect();
    lanes::standing(standing.settled, notes, machines.iter().map(String::as_str))
}

/// Begins.
pub(super) async fn begin(parts: &Parts, keeper: &mut Keeper) -> Result<Begun, Trouble> {
    let name = parts.name(&parts.instance);
    loop {
        let (epoch, notes) = parts.database.within(parts.database.fence(&name, parts.lanes, clock::now())).await?;
        let standing = keeper.standing(&parts.instance).await?;
        let found = places(&parts.source, &standing, &notes);
        // Nothing else settles for this instance now, but an answer of its own may come late.
        if !keeper.mend(&parts.instance, standing.settled, found.settled, &found.done).await? {
            continue;
        }
        let done: BTreeSet<usize> = found.done.into_iter().collect();
        if !standing.entries.is_empty() {
            tracing::info!(
                standing = standing.entries.len() - done.len(),
                committed = done.len(),
                "jobs stood in the processing list"
            );
        }
        let left = standing.entries.into_iter().enumerate().filter(|(place, _)| !done.contains(place));
        return Ok(Begun { epoch, settled: found.settled, standing: left.map(|(_, entry)| entry).collect() });
    }
}
