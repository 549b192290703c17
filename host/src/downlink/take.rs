//! Commands move into this instance's processing list, as many as may be under way, while it holds its lease.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sluicegate_core::command::{Command, CommandError};
use sluicegate_core::dispatch::{Next, Taking, strangers};
use sluicegate_core::lease::Tenure;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::lease::Held;
use crate::redis::claim::Remembered;
use crate::redis::connect::{Link, RedisFault};
use crate::redis::pop::Popper;
use crate::telemetry::clock;

/// How long places are waited for, where few are free and more commands stand in the list: a look for commands is two round trips, whether it finds
/// one or a hundred.
const GATHER: Duration = Duration::from_millis(10);
/// Few: fewer than this part of `commands.in_flight`.
const FEW: usize = 4;

/// A command that stands in the processing list.
pub struct Taken {
    /// The entry.
    pub raw: Bytes,
    /// What it says.
    pub command: Result<Command, CommandError>,
    /// Its `message_id` was sent already, or is being sent.
    pub duplicate: bool,
    /// Its `message_id` is under way in its name, and no other's.
    pub owns_id: bool,
    /// The tenure that it was taken in: in another one it is not sent.
    pub tenure: Tenure,
    /// When it was taken.
    pub at: (Instant, Timestamp),
    /// Its share of `commands.in_flight`, or of what waits beside it.
    pub permit: OwnedSemaphorePermit,
}

impl Taken {
    /// Its `message_id`; empty where it has none.
    #[must_use]
    pub fn id(&self) -> &str {
        self.command.as_ref().map_or("", |command| command.message_id.as_str())
    }

    /// Its machine; empty where it is no command.
    #[must_use]
    pub fn target(&self) -> &str {
        self.command.as_ref().map_or("", |command| command.target.as_str())
    }
}

/// The entries that this process is at work on; an entry may stand there more than once.
///
/// The lock is held for a look-up only.
#[derive(Debug, Default)]
pub struct UnderWay {
    entries: Mutex<Entries>,
    /// Told when there are none any more.
    idle: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    raw: HashMap<Bytes, usize>,
    ids: HashSet<String>,
}

impl UnderWay {
    fn all(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: another command with this id is under way.
    fn add(&self, raw: &Bytes, id: &str) -> bool {
        let mut all = self.all();
        *all.raw.entry(raw.clone()).or_default() += 1;
        id.is_empty() || all.ids.insert(id.to_owned())
    }

    /// This process is done with it.
    pub fn remove(&self, taken: &Taken) {
        self.give_back(&taken.raw, taken.owns_id.then(|| taken.id()));
    }

    /// Its id goes with it, where it had it.
    fn give_back(&self, raw: &Bytes, id: Option<&str>) {
        let mut all = self.all();
        if let Some(count) = all.raw.get_mut(raw) {
            *count -= 1;
            if *count == 0 {
                all.raw.remove(raw);
            }
        }
        if let Some(id) = id {
            all.ids.remove(id);
        }
        if all.raw.is_empty() {
            self.idle.notify_one();
        }
    }

    fn is_idle(&self) -> bool {
        self.all().raw.is_empty()
    }

    /// Waits until there are none. Only the one task that adds may wait here.
    async fn let_go(&self) {
        while !self.is_idle() {
            self.idle.notified().await;
        }
    }

    fn snapshot(&self) -> HashMap<Bytes, usize> {
        self.all().raw.clone()
    }
}

/// What taking needs beside the connection.
pub struct Tools {
    /// To the worker.
    pub work: mpsc::Sender<Taken>,
    /// What is under way.
    pub under_way: Arc<UnderWay>,
    /// What is free of `in_flight`.
    pub room: Arc<Semaphore>,
    /// `commands.in_flight`
    pub in_flight: usize,
    /// The lease.
    pub held: Arc<Held>,
    /// How long ids are remembered (`commands.dedupe`).
    pub dedupe: Remembered,
}

impl Tools {
    /// Waits a moment until more than a few places are free.
    async fn gather(&self) {
        let places = u32::try_from(self.in_flight / FEW).unwrap_or(u32::MAX);
        let _ = timeout(GATHER, self.room.acquire_many(places)).await;
    }
}

/// Takes commands until `stop`.
pub async fn run(mut popper: Popper, mut link: Link, tools: Tools, stop: CancellationToken) {
    let taking = async {
        let mut looks = Taking::default();
        loop {
            let tenure = tools.held.held().await;
            let next = looks.next(tenure, clock::uptime(), popper.is_connected(), tools.under_way.is_idle());
            let taken = match next {
                Next::LetGo => {
                    tools.under_way.let_go().await;
                    continue;
                }
                Next::Look => {
                    let found = look_for_strangers(&mut popper, &tools).await;
                    found.inspect(|_| looks.looked(tenure, clock::uptime()))
                }
                Next::Pop => {
                    // One place at least before anything is moved: what is moved has a place.
                    let Ok(first) = tools.room.clone().acquire_owned().await else { return };
                    if popper.expects_more() {
                        tools.gather().await;
                    }
                    popper.pop(tools.room.available_permits() + 1).await.inspect(|_| drop(first))
                }
            };
            let handed = match taken {
                // What a connection could not do, making it anew does not show: only an answer does.
                Ok(taken) => hand_on(&mut popper, &tools, tenure, taken).await.inspect(|_| {
                    if next == Next::Pop {
                        link.up();
                    }
                }),
                Err(fault) => Err(fault),
            };
            match handed {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => tokio::time::sleep(link.down(&fault)).await,
            }
        }
    };
    // What is moved while this stops stands in the processing list, and is sent after the next start.
    tokio::select! {
        () = stop.cancelled() => {}
        () = taking => {}
    }
}

async fn look_for_strangers(popper: &mut Popper, tools: &Tools) -> Result<Vec<Bytes>, RedisFault> {
    // Before the look: what is finished meanwhile is no stranger, and only this task adds.
    let known = tools.under_way.snapshot();
    let strangers = strangers(known, popper.standing().await?);
    if !strangers.is_empty() {
        tracing::info!(commands = strangers.len(), "commands stand in the processing list; they go first");
    }
    Ok(strangers)
}

/// Hands commands to the worker; false: it is gone.
async fn hand_on(popper: &mut Popper, tools: &Tools, tenure: Tenure, taken: Vec<Bytes>) -> Result<bool, RedisFault> {
    let parsed: Vec<_> = taken.into_iter().map(|raw| (raw.clone(), Command::parse(raw))).collect();
    let id = |command: &Result<Command, CommandError>| {
        command.as_ref().map_or_else(|_| String::new(), |command| command.message_id.clone())
    };
    let ids: Vec<String> = parsed.iter().map(|(_, command)| id(command)).collect();
    // Before they are claimed: one with the same id that is done meanwhile was sent by then, and the claim tells. Looked for only
    // afterwards, it would be seen neither under way nor sent.
    let first: Vec<bool> = parsed.iter().zip(&ids).map(|((raw, _), id)| tools.under_way.add(raw, id)).collect();
    let free = match popper.claim(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await {
        Ok(free) => free,
        Err(fault) => {
            // They stand in the processing list, and are found there by the next look.
            for (((raw, _), id), first) in parsed.iter().zip(&ids).zip(first) {
                tools.under_way.give_back(raw, first.then_some(id));
            }
            return Err(fault);
        }
    };
    let (at, dedupe) = ((Instant::now(), clock::now()), tools.dedupe.is_on());
    for (((raw, command), first), free) in parsed.into_iter().zip(first).zip(free) {
        let Ok(permit) = tools.room.clone().acquire_owned().await else { return Ok(false) };
        let (duplicate, owns_id) = (dedupe && !(first && free), first && free);
        let taken = Taken { raw, command, duplicate, owns_id, tenure, at, permit };
        if first && !free {
            // Its id is not under way here: another instance sends it, or it was sent.
            tools.under_way.all().ids.remove(taken.id());
        }
        if tools.work.send(taken).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_under_way_once() {
        let under_way = UnderWay::default();
        let entry = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert!(under_way.is_idle());
        assert!(under_way.add(&entry("a"), "1"));
        assert!(!under_way.add(&entry("a"), "1"), "the same id is under way");
        assert!(under_way.add(&entry("b"), ""));
        assert!(under_way.add(&entry("b"), ""), "without an id it is another each time");
        assert_eq!(under_way.snapshot(), HashMap::from([(entry("a"), 2), (entry("b"), 2)]));
        assert!(!under_way.is_idle());
    }
}
