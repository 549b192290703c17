//! What is asked of the dead letters, and answered. The list is read page by page: it may be larger than memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicegate_core::dead_letter::{DeadLetter, Filter, LetterId};
use tokio::sync::mpsc;

use super::replay::{Order, Progress, ProgressCell};
use crate::redis::connect::RedisFault;
use crate::redis::letters::Letters;

/// Entries that are read at once.
pub(super) const PAGE: u64 = 100;
/// Bytes of letters that one answer lists.
pub const MAX_BYTES: usize = 16 << 20;
/// What a letter costs beside its long texts.
const OVERHEAD: usize = 512;

/// Why the desk does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// Redis does not answer, or refuses.
    #[error(transparent)]
    Redis(#[from] RedisFault),
    /// There is none of that name.
    #[error("there is no dead letter {0}; `sluicegate dead-letters list` shows those there are")]
    Unknown(LetterId),
    /// One replay at a time.
    #[error("a replay is under way; GET /api/dead-letters/replay shows how far it is")]
    Busy,
    /// The gateway ends.
    #[error("the gateway is shutting down")]
    Stopping,
}

/// One letter, named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named<'a> {
    /// Its name.
    pub id: LetterId,
    /// What stands in it; none: the entry is no dead letter of a gateway.
    #[serde(flatten)]
    pub letter: Option<DeadLetter<'a>>,
}

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Letters in the list.
    pub total: u64,
    /// Of these, letters that the filter means.
    pub matched: u64,
    /// The newest of those that it means, oldest first.
    pub letters: Vec<Named<'static>>,
}

/// By what letters are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum By {
    Reason,
    Route,
    Machine,
    Plugin,
}

/// The desk. Cheap to clone; each clone has a connection of its own, made when it is first used.
#[derive(Clone)]
pub struct Desk {
    open: Arc<dyn Fn() -> Letters + Send + Sync>,
    orders: mpsc::Sender<Order>,
    progress: Arc<ProgressCell>,
}

impl Desk {
    /// `open` makes a connection; `orders` go to [`super::replay::run`], which shows in `progress` how far it is.
    #[must_use]
    pub fn new(
        open: Arc<dyn Fn() -> Letters + Send + Sync>,
        orders: mpsc::Sender<Order>,
        progress: Arc<ProgressCell>,
    ) -> Self {
        Self { open, orders, progress }
    }

    /// The newest `limit` letters that the filter means; with their payloads, as many of them as fit into [`MAX_BYTES`].
    ///
    /// # Errors
    /// [`DeskError::Redis`].
    pub async fn list(&self, filter: &Filter, limit: usize, payloads: bool) -> Result<Listed, DeskError> {
        let (mut found, mut bytes) = (VecDeque::new(), 0);
        let mut listed = Listed { total: 0, matched: 0, letters: Vec::new() };
        each(&mut (self.open)(), |entry, id, letter| {
            listed.total += 1;
            if letter.is_some_and(|letter| filter.matches(id, letter)) || (letter.is_none() && filter.is_empty()) {
                listed.matched += 1;
                let shown = letter.map(|letter| shown(letter, payloads));
                let size =
                    if payloads { entry.len() } else { letter.map_or(0, |letter| letter.reason.len()) } + OVERHEAD;
                bytes += size;
                found.push_back((size, Named { id, letter: shown }));
                while found.len() > limit || bytes > MAX_BYTES {
                    let Some((size, _)) = found.pop_front() else { break };
                    bytes -= size;
                }
            }
        })
        .await?;
        listed.letters = found.into_iter().map(|(_, named)| named).collect();
        Ok(listed)
    }

    /// How many letters the filter means, by what they have in common; the most first.
    ///
    /// # Errors
    /// [`DeskError::Redis`].
    pub async fn count(&self, filter: &Filter, by: By) -> Result<Vec<(Option<String>, u64)>, DeskError> {
        let mut counts: BTreeMap<Option<String>, u64> = BTreeMap::new();
        each(&mut (self.open)(), |_, id, letter| {
            if let Some(letter) = letter.filter(|letter| filter.matches(id, letter)) {
                let value = match by {
                    By::Reason => Some(&letter.reason),
                    By::Route => letter.route.as_ref(),
                    By::Machine => letter.serial_no.as_ref(),
                    By::Plugin => letter.plugin.as_ref(),
                };
                *counts.entry(value.map(|value| value.clone().into_owned())).or_default() += 1;
            }
        })
        .await?;
        let mut counts: Vec<(Option<String>, u64)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Ok(counts)
    }

    /// One letter, as it stands in the list.
    ///
    /// # Errors
    /// [`DeskError::Redis`], or [`DeskError::Unknown`].
    pub async fn show(&self, id: LetterId) -> Result<Bytes, DeskError> {
        let mut found = None;
        each(&mut (self.open)(), |entry, other, _| {
            if other == id {
                found = Some(entry.clone());
            }
        })
        .await?;
        found.ok_or(DeskError::Unknown(id))
    }

    /// Drops those that the filter means; gives back how many. A filter that is empty means all of them.
    ///
    /// # Errors
    /// [`DeskError::Redis`]: some may be gone.
    pub async fn discard(&self, filter: &Filter) -> Result<u64, DeskError> {
        let mut letters = (self.open)();
        let (mut from, mut dropped) = (0, 0);
        let mut left = letters.length().await?;
        while left > 0 {
            let page = letters.page(from, PAGE.min(left)).await?;
            let Ok(read) = u64::try_from(page.len()) else { break };
            if read == 0 {
                break;
            }
            left -= read.min(left);
            let meant = |entry: &Bytes| match DeadLetter::from_json(entry) {
                Ok(letter) => filter.matches(LetterId::of(entry), &letter),
                Err(_) => filter.is_empty() || filter.ids.contains(&LetterId::of(entry)),
            };
            let meant: Vec<Bytes> = page.into_iter().filter(meant).collect();
            let removed = letters.remove(&meant).await?;
            dropped += removed;
            from += read.saturating_sub(removed);
        }
        tracing::warn!(dropped, "dead letters were dropped by hand");
        Ok(dropped)
    }

    /// Begins a replay.
    ///
    /// # Errors
    /// [`DeskError::Busy`], where another is under way; [`DeskError::Stopping`].
    pub fn replay(&self, order: Order) -> Result<(), DeskError> {
        if !self.progress.begin() {
            return Err(DeskError::Busy);
        }
        self.orders.try_send(order).map_err(|_| {
            self.progress.change(|progress| progress.running = false);
            DeskError::Stopping
        })
    }

    /// How far the last replay is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.progress()
    }
}

/// Reads every letter that stands there now, from the oldest.
pub(super) async fn each(
    letters: &mut Letters,
    mut look: impl FnMut(&Bytes, LetterId, Option<&DeadLetter<'_>>),
) -> Result<(), RedisFault> {
    let length = letters.length().await?;
    let mut from = 0;
    while from < length {
        let page = letters.page(from, PAGE.min(length - from)).await?;
        if page.is_empty() {
            break;
        }
        from += page.len() as u64;
        for entry in &page {
            look(entry, LetterId::of(entry), DeadLetter::from_json(entry).ok().as_ref());
        }
    }
    Ok(())
}

/// As it is listed.
fn shown(letter: &DeadLetter<'_>, whole: bool) -> DeadLetter<'static> {
    let own = |text: &Option<Cow<'_, str>>| text.as_ref().map(|text| text.clone().into_owned().into());
    let properties = letter.properties.iter().filter(|_| whole);
    let properties =
        properties.map(|(name, value)| (name.clone().into_owned().into(), value.clone().into_owned().into()));
    DeadLetter {
        kind: letter.kind,
        reason: letter.reason.clone().into_owned().into(),
        route: own(&letter.route),
        topic: own(&letter.topic),
        serial_no: own(&letter.serial_no),
        plugin: own(&letter.plugin),
        plugin_version: own(&letter.plugin_version),
        attempts: letter.attempts,
        received_at: letter.received_at.clone().into_owned().into(),
        dead_at: own(&letter.dead_at),
        properties: properties.collect(),
        payload: own(&letter.payload).filter(|_| whole),
        payload_base64: own(&letter.payload_base64).filter(|_| whole),
    }
}
