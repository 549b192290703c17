//! The interface `state`: a plugin's own keys, for those that were granted it. A call's writes are held back until it has succeeded, and then
//! made in one step, if nothing that the call was told has changed meanwhile: else the call is run again.
//!
//! - [`Store`]: where they are kept.
//! - `memory`: an empty one in this process, for samples and for trying out.
//! - `turns`: who may add to a key, so that calls in one process seldom get in each other's way.

mod memory;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluicegate_core::settings::Limits;
use sluicegate_core::state::{Call, Change, Committed, Limit};

use super::bindings::handler::sluicegate::plugin::state::{Host, StateError};
use super::guest::State;
use crate::telemetry::clock;

pub use memory::Memory;
use turns::{Turn, Turns};

/// How often a call is run again, since others changed what it had been told.
pub(super) const RUNS: u32 = 32;
/// How long a plugin that has as many keys as it may have is taken to have them without asking.
const FULL: Duration = Duration::from_secs(1);

/// Where plugins' state is kept. The gateway gives one that is in Redis.
pub trait Store: Send + Sync {
    /// The value of a plugin's key, within this time.
    ///
    /// # Errors
    /// Why it is not to be had now.
    fn get<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Option<Bytes>, String>>;

    /// Makes a call's changes in one step, where all that it was told is still so and the plugin has no more than `most` keys then.
    ///
    /// # Errors
    /// Why that is not to be had now; they may have been made.
    fn commit<'a>(
        &'a self,
        plugin: &'a str,
        changes: &'a [Change],
        most: u64,
    ) -> BoxFuture<'a, Result<Committed, String>>;
}

/// The least time that Redis must have had, before it is blamed for a call that did not succeed.
const FAIR: Duration = Duration::from_millis(20);

/// One build's access to its plugin's state.
pub(super) struct Access {
    plugin: String,
    limits: Limits,
    store: Arc<dyn Store>,
    turns: Arc<Turns>,
    /// Until when, in milliseconds since the gateway started, there is no room for another key.
    full_until: AtomicU64,
}

impl Access {
    pub(super) fn new(plugin: &str, limits: Limits, store: Arc<dyn Store>) -> Arc<Self> {
        let (turns, full_until) = (Arc::default(), AtomicU64::new(0));
        Arc::new(Self { plugin: plugin.to_owned(), limits, store, turns, full_until })
    }

    /// The same for what is only tried, which holds up nobody's turn.
    pub(super) fn in_shadow(&self) -> Arc<Self> {
        Self::new(&self.plugin, self.limits, self.store.clone())
    }

    /// The same to a state of its own, which is empty.
    pub(super) fn to_nothing(&self) -> Arc<Self> {
        Self::new(&self.plugin, self.limits, Arc::new(Memory::default()))
    }

    fn is_full(&self) -> bool {
        millis(clock::uptime()) < self.full_until.load(Ordering::Relaxed)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Why the guest is told no.
enum No {
    Away(String),
    Limit(Limit),
}

impl From<Limit> for No {
    fn from(limit: Limit) -> Self {
        Self::Limit(limit)
    }
}

/// One call's dealings with the state.
pub(super) struct Session {
    access: Arc<Access>,
    call: Call,
    /// It is run again: now it waits for its turn at whatever it reads.
    again: bool,
    turns: Vec<Turn>,
    /// Why the state was not to be had, where the guest was told so.
    pub(super) away: Option<String>,
}

impl Session {
    pub(super) fn new(access: &Arc<Access>, again: bool) -> Self {
        let call = Call::new(access.limits.state_value);
        Self { access: access.clone(), call, again, turns: Vec::new(), away: None }
    }

    /// Asks for a key that is not known yet. Of what is left of the call's time it may take a half: then there is still time to answer.
    async fn know(&mut self, key: &str, turn: bool, deadline: Instant) -> Result<(), No> {
        if self.call.look(key)?.is_some() {
            return Ok(());
        }
        let half = || deadline.saturating_duration_since(Instant::now()) / 2;
        // One that asks at the last moment has itself to blame.
        let in_time = half() >= FAIR;
        if turn || self.again {
            self.turns.extend(self.access.turns.wait(key, half()).await);
        }
        match self.access.store.get(&self.access.plugin, key, half()).await {
            Ok(value) => Ok(self.call.saw(key, value)?),
            Err(reason) => {
                if in_time {
                    self.away = Some(reason.clone());
                }
                Err(No::Away(reason))
            }
        }
    }

    /// Where the plugin has as many keys as it may have, no other is made.
    async fn make_room(&mut self, key: &str, deadline: Instant) -> Result<(), No> {
        if !self.access.is_full() {
            return Ok(());
        }
        self.know(key, false, deadline).await?;
        match self.call.look(key)? {
            Some(None) => Err(Limit::Full(self.access.limits.state_keys).into()),
            _ => Ok(()),
        }
    }

    async fn get(&mut self, key: &str, deadline: Instant) -> Result<Option<Vec<u8>>, No> {
        self.know(key, false, deadline).await?;
        Ok(self.call.look(key)?.flatten().map(|value| value.to_vec()))
    }

    async fn set(&mut self, key: &str, value: Vec<u8>, ttl_ms: Option<u64>, deadline: Instant) -> Result<(), No> {
        self.make_room(key, deadline).await?;
        Ok(self.call.set(key, value, ttl_ms)?)
    }

    async fn increment(&mut self, key: &str, by: i64, ttl_ms: Option<u64>, deadline: Instant) -> Result<i64, No> {
        self.know(key, true, deadline).await?;
        self.make_room(key, deadline).await?;
        Ok(self.call.add(key, by, ttl_ms)?)
    }

    /// Whether the call changes anything.
    pub(super) fn writes(&self) -> bool {
        self.call.writes()
    }

    /// The call has succeeded: makes its changes.
    ///
    /// # Errors
    /// Why the state is not to be had; they may have been made.
    pub(super) async fn commit(self) -> Result<Committed, String> {
        // Others have their turn once this is done.
        let Self { access, call, turns: _turns, .. } = self;
        let Some(changes) = call.changes() else { return Ok(Committed::Done) };
        let committed = access.store.commit(&access.plugin, &changes, access.limits.state_keys).await?;
        if committed == Committed::Full {
            access.full_until.store(millis(clock::uptime() + FULL), Ordering::Relaxed);
        }
        Ok(committed)
    }
}

fn told<T>(answer: Result<T, No>) -> Result<T, StateError> {
    answer.map_err(|no| match no {
        No::Away(reason) => StateError::Unavailable(reason),
        No::Limit(limit) => StateError::Limit(limit.to_string()),
    })
}

impl Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, StateError>> {
        let (session, deadline) = self.session()?;
        Ok(told(session.get(&key, deadline).await))
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<(), StateError>> {
        let (session, deadline) = self.session()?;
        Ok(told(session.set(&key, value, ttl_ms, deadline).await))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), StateError>> {
        let (session, _) = self.session()?;
        Ok(told(session.call.delete(&key).map_err(No::from)))
    }

    async fn increment(
        &mut self,
        key: String,
        by: i64,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<i64, StateError>> {
        let (session, deadline) = self.session()?;
        Ok(told(session.increment(&key, by, ttl_ms, deadline).await))
    }
}
