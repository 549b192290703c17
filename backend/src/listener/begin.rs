//! At a start, or after a lapse: what was begun under an older epoch is fenced off, what the database has already leaves the processing
//! list, and what is left is to be done first.

use super::Parts;
use crate::clock;
use crate::database::fault::Fault;
use crate::domain::lanes::{self, Progress};
use crate::redis::connect::RedisFault;
use crate::redis::lists::{Keeper, Mended, Standing};

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
    /// How many entries stand in the processing list.
    pub(super) standing: usize,
}

/// What stands in an instance's processing list, and which places of it the database has.
pub(super) async fn look(
    parts: &Parts,
    keeper: &mut Keeper,
    instance: &str,
    notes: &[Progress],
) -> Result<(Standing, lanes::Standing), RedisFault> {
    let standing = keeper.standing(instance, |entry| parts.source.machine(entry)).await?;
    let found = lanes::standing(standing.settled, notes, standing.machines.iter().map(String::as_str));
    Ok((standing, found))
}

/// Begins a tenure in which the lease has `number`; none: it has another by now.
pub(super) async fn begin(parts: &Parts, keeper: &mut Keeper, number: u64) -> Result<Option<Begun>, Trouble> {
    let name = parts.name(&parts.instance);
    loop {
        let (epoch, notes) = parts.database.within(parts.database.fence(&name, parts.lanes, clock::now())).await?;
        let (there, found) = look(parts, keeper, &parts.instance, &notes).await?;
        // Nothing else settles for this instance now, but an answer of its own may come late.
        match keeper.mend(&parts.instance, number, there.settled, found.settled, &found.done).await? {
            Mended::Done => {}
            Mended::Settled => continue,
            Mended::NotHeld => return Ok(None),
        }
        let (committed, standing) = (found.done.len(), there.machines.len() - found.done.len());
        if !there.machines.is_empty() {
            tracing::info!(standing, committed, "jobs stood in the processing list");
        }
        return Ok(Some(Begun { epoch, settled: found.settled, standing }));
    }
}
