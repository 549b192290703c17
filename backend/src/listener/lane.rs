//! Commits the jobs of one lane, in their order: all in one transaction where that goes well. What the database refuses is found by halving,
//! tried a few times by itself, and set aside as a dead letter with the reason; the others go on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::Parts;
use crate::board::Patience;
use crate::database::apply::{Applying, Mark, apply};
use crate::database::fault::Fault;
use crate::domain::job::Job;
use crate::domain::lanes::Progress;
use crate::domain::letter::Letter;
use crate::redis::push::Pusher;
use crate::{clock, metrics};

/// How often a part that met a row which was not there a moment before is tried anew, before it counts as refused.
const CONFLICTS: u32 = 3;
/// How often in a row the database closes the connection over one part, and answers at once when it is asked something else, before that counts as
/// refused: what goes away and comes back in between must not be a job's fault.
const CUTS: u32 = 3;
/// How long a job waits between two attempts: others of its batch wait as long.
const BETWEEN: Duration = Duration::from_millis(50);
/// What a statement has beside the jobs, at the most: rows of a few columns.
const AROUND: u64 = 64 << 10;
/// The most bytes of a reason.
const MAX_REASON: usize = 2_000;

/// An entry of the list, and what it was read as.
pub(super) struct Entry {
    pub(super) raw: Bytes,
    pub(super) job: Result<Job, String>,
}

/// One lane's part of a batch.
pub(super) struct Part<'a> {
    pub(super) parts: &'a Parts,
    pub(super) epoch: i64,
    pub(super) batch: u64,
    pub(super) size: u32,
    pub(super) lane: u32,
    pub(super) entries: Vec<Entry>,
}

/// Another has taken over what this one was at.
pub(super) struct Fenced;

/// Why a range is not committed.
enum Failed {
    Fault(Fault),
    /// Redis does not take the dead letters.
    Letters(String),
}

impl Part<'_> {
    /// Commits all of it, however long the database is away.
    pub(super) async fn commit(&self, letters: &mut Pusher) -> Result<(), Fenced> {
        let mut patience = self.patience();
        let mut left: Vec<Range<usize>> = Vec::new();
        if !self.entries.is_empty() {
            left.push(0..self.entries.len());
        }
        // Invariant: all three are of the range that is next.
        let (mut attempts, mut conflicts, mut cuts) = (0, 0, 0);
        while let Some(range) = left.pop() {
            match self.range(range.clone(), None, letters).await {
                Ok(()) => {
                    patience.good();
                    (attempts, conflicts, cuts) = (0, 0, 0);
                }
                Err(Failed::Fault(Fault::Fenced)) => return Err(Fenced),
                Err(Failed::Fault(Fault::Away(why)) | Failed::Letters(why)) => {
                    cuts = 0;
                    left.push(range);
                    tokio::time::sleep(patience.bad(&why)).await;
                }
                Err(Failed::Fault(Fault::Cut(why))) => {
                    // A server that ends, or something on the way to it, cuts as well: that is no job's fault.
                    cuts = if self.may_be_too_large(range.clone()).await { cuts + 1 } else { 0 };
                    let alone = range.len() == 1;
                    if cuts < CUTS || alone && cuts < self.parts.attempts {
                        left.push(range);
                        tokio::time::sleep(patience.bad(&why)).await;
                        continue;
                    }
                    if alone {
                        self.give_up(range.clone(), &self.too_large(range.start, &why), cuts, letters).await?;
                    } else {
                        left.extend(halves(range));
                    }
                    (attempts, conflicts, cuts) = (0, 0, 0);
                    // It waits for nobody's return: from here on it is a search.
                    patience = self.patience();
                }
                Err(Failed::Fault(Fault::Conflict(why))) if conflicts < CONFLICTS => {
                    conflicts += 1;
                    tracing::debug!(why, "a row came in between; trying again");
                    left.push(range);
                    tokio::time::sleep(BETWEEN).await;
                }
                Err(Failed::Fault(Fault::Conflict(_) | Fault::Refused(_))) if range.len() > 1 => {
                    left.extend(halves(range));
                    (conflicts, cuts) = (0, 0);
                }
                Err(Failed::Fault(Fault::Conflict(why) | Fault::Refused(why))) => {
                    attempts += 1;
                    if attempts < self.parts.attempts {
                        left.push(range);
                        tokio::time::sleep(BETWEEN).await;
                        continue;
                    }
                    self.give_up(range, &why, attempts, letters).await?;
                    (attempts, conflicts, cuts) = (0, 0, 0);
                }
            }
        }
        Ok(())
    }

    fn patience(&self) -> Patience<'_> {
        Patience::with_list(&self.parts.board, "writing jobs to the database", &self.parts.list)
    }

    /// Whether the database answers, and these jobs are as large as to have been closed the connection over.
    async fn may_be_too_large(&self, range: Range<usize>) -> bool {
        let database = &self.parts.database;
        let jobs: usize = self.entries[range].iter().map(|entry| entry.raw.len()).sum();
        let statement = u64::try_from(jobs).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(AROUND);
        matches!(database.within(database.largest_statement()).await, Ok(Some(most)) if statement > most)
    }

    /// Why a job over which the connection is closed is given up.
    fn too_large(&self, place: usize, why: &str) -> String {
        format!(
            "the database closes the connection over this job, of {} bytes, and answers otherwise: MySQL and MariaDB do that where a statement is \
             larger than their max_allowed_packet ({why})",
            self.entries[place].raw.len()
        )
    }

    /// A job that the database refuses for ever.
    async fn give_up(&self, range: Range<usize>, why: &str, attempts: u32, letters: &mut Pusher) -> Result<(), Fenced> {
        let mut patience = self.patience();
        loop {
            match self.range(range.clone(), Some((why, attempts)), letters).await {
                Ok(()) => {
                    patience.good();
                    return Ok(());
                }
                Err(Failed::Fault(Fault::Fenced)) => return Err(Fenced),
                Err(Failed::Fault(fault)) => tokio::time::sleep(patience.bad(&fault)).await,
                Err(Failed::Letters(why)) => tokio::time::sleep(patience.bad(&why)).await,
            }
        }
    }

    /// One transaction: the jobs of a range, or none of them where it is given up. Dead letters are written down before the commit: after it
    /// nobody would know of them.
    async fn range(
        &self,
        range: Range<usize>,
        given_up: Option<(&str, u32)>,
        letters: &mut Pusher,
    ) -> Result<(), Failed> {
        let (mut jobs, mut places, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for place in range.clone() {
            match (&self.entries[place].job, given_up) {
                (_, Some((why, attempts))) => dead.push((place, why.to_owned(), attempts)),
                (Ok(job), None) => {
                    jobs.push(job.clone());
                    places.push(place);
                }
                (Err(why), None) => dead.push((place, why.clone(), 1)),
            }
        }
        let done = u32::try_from(range.end).unwrap_or(u32::MAX);
        let mark = Mark {
            listener: self.parts.name(&self.parts.instance),
            epoch: self.epoch,
            progress: Progress { lane: self.lane, batch: self.batch, size: self.size, lanes: self.parts.lanes, done },
        };
        let with = Applying { rules: &self.parts.rules, window: self.parts.window, now: clock::now() };
        let database = &self.parts.database;
        let ready = database.within(apply(database, &jobs, &mark, &with)).await.map_err(Failed::Fault)?;
        // It was committed already, by an attempt whose answer did not come.
        let Some(mut ready) = ready else { return Ok(()) };
        dead.extend(std::mem::take(&mut ready.dead).into_iter().map(|(job, why)| (places[job], why, 1)));
        let written: Vec<String> =
            dead.iter().map(|(place, why, attempts)| self.letter(*place, why, *attempts)).collect();
        letters.push(&written).await.map_err(|fault| Failed::Letters(fault.to_string()))?;
        database.within(ready.commit()).await.map_err(Failed::Fault)?;
        for (place, why, attempts) in &dead {
            let machine = self.parts.source.machine(&self.entries[*place].raw);
            tracing::warn!(machine, attempts, reason = why, "a job is a dead letter");
        }
        self.count(range, &dead.iter().map(|(place, ..)| *place).collect::<Vec<_>>());
        Ok(())
    }

    /// What a transaction came to, by the jobs' types.
    fn count(&self, range: Range<usize>, dead: &[usize]) {
        self.parts.board.done(range.len() - dead.len(), dead.len());
        let mut kinds: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        for place in range {
            let kind = self.parts.source.label(self.entries[place].job.as_ref().ok().map(|job| &job.work));
            let (done, died) = kinds.entry(kind).or_default();
            *(if dead.contains(&place) { died } else { done }) += 1;
        }
        for (kind, (done, died)) in kinds {
            metrics::done(kind, done);
            metrics::dead(kind, died);
        }
    }

    /// A dead letter: the job as it came, and why.
    fn letter(&self, place: usize, why: &str, attempts: u32) -> String {
        let (job, job_base64) = sluicegate_core::dead_letter::text_or_base64(&self.entries[place].raw);
        Letter {
            job: job.map(Into::into),
            job_base64: job_base64.map(Into::into),
            reason: why[..why.floor_char_boundary(MAX_REASON)].into(),
            attempts,
            list: self.parts.keys.list.as_str().into(),
            instance: self.parts.instance.as_str().into(),
            dead_at: clock::now().to_string().into(),
        }
        .to_json()
    }
}

/// The two halves of a range of several, the first of them last: that one is next.
fn halves(range: Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    [middle..range.end, range.start..middle]
}
