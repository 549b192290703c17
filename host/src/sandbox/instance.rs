//! One running copy of a plugin: it is started, and then has one call at a time.
//!
//! Invariant: after a trap, a time-out or a dropped call an instance is never used again ([`super::pool`] sees to it).

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use indexmap::IndexMap;
use sluicegate_core::fault::Fault;
use sluicegate_core::message::{Failure, GuestCommand, Message, Output};
use sluicegate_core::settings::Limits;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::timeout_at;
use wasmtime::{PoolConcurrencyLimitError, Store, UpdateDeadline};

use super::answer::{fault, fuel, lift, lift_failure, lower, lower_command};
use super::engine::Clock;
use super::generation::{Generation, HandlerBindings, Linked, ValidatorBindings};
use super::guest::State;
use super::state::{Access, Session};
use crate::telemetry::usage::Usage;

/// Until the next attempt to start a copy where the engine has no room.
const BUSY: Duration = Duration::from_millis(5);

enum Bindings {
    Handler(HandlerBindings),
    Validator(ValidatorBindings),
}

enum NotStarted {
    /// All of the engine's places are taken.
    Busy,
    Fault(Fault),
}

/// Counts an instance as long as it is there.
struct Counted(Arc<Usage>);

impl Counted {
    fn new(usage: Arc<Usage>) -> Self {
        usage.started();
        Self(usage)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// A running copy.
pub(super) struct Instance {
    store: Store<State>,
    bindings: Bindings,
    limits: Limits,
    state: Option<Arc<Access>>,
    clock: Arc<Clock>,
    /// Goes back with it.
    _place: OwnedSemaphorePermit,
    usage: Counted,
    /// Calls that it answered.
    pub(super) calls: u32,
}

impl Instance {
    /// Starts a copy. The deadline over the first call begins here: `start` functions are guest code too.
    ///
    /// Where the engine has no room for another one, this waits for it: busy is no failure.
    ///
    /// In shadow there is nothing behind what was granted.
    pub(super) async fn start(
        generation: &Generation,
        settings: Arc<IndexMap<String, String>>,
        state: Option<Arc<Access>>,
        place: OwnedSemaphorePermit,
        in_shadow: bool,
    ) -> Result<Self, Fault> {
        loop {
            match Self::try_start(generation, settings.clone(), in_shadow).await {
                Ok((store, bindings)) => {
                    // In shadow it is nobody's.
                    let usage = Counted::new(if in_shadow { Arc::default() } else { generation.usage().clone() });
                    let limits = generation.limits;
                    let clock = generation.sandbox.clock.clone();
                    return Ok(Self { store, bindings, limits, state, clock, _place: place, usage, calls: 0 });
                }
                Err(NotStarted::Fault(fault)) => return Err(fault),
                Err(NotStarted::Busy) => tokio::time::sleep(BUSY).await,
            }
        }
    }

    async fn try_start(
        generation: &Generation,
        settings: Arc<IndexMap<String, String>>,
        in_shadow: bool,
    ) -> Result<(Store<State>, Bindings), NotStarted> {
        let limits = generation.limits;
        let state = State::new(generation, settings, in_shadow);
        let mut store = Store::new(generation.sandbox.engine(), state);
        store.limiter(|state| &mut state.allowance);
        // What the host allocates while it lifts an answer is bounded by this alone.
        store.set_hostcall_fuel(fuel(&limits));
        store.epoch_deadline_callback(|store| {
            store.data().over_host_calls()?;
            if Instant::now() >= store.data().deadline {
                return Ok(UpdateDeadline::Interrupt);
            }
            // It goes on when all that is ready had its turn: the runtime wakes it, not the lane's own queue.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store.set_epoch_deadline(1);
        let deadline = store.data().deadline;
        let started = AssertUnwindSafe(async {
            match &generation.linked {
                Linked::Handler(linked) => linked.instantiate_async(&mut store).await.map(Bindings::Handler),
                Linked::Validator(linked) => linked.instantiate_async(&mut store).await.map(Bindings::Validator),
            }
        });
        let _ticking = generation.sandbox.clock.keep_ticking();
        let Ok(started) = timeout_at(deadline.into(), started.catch_unwind()).await else {
            return Err(NotStarted::Fault(Fault::TimedOut(limits.call_timeout)));
        };
        match started {
            Ok(Ok(bindings)) => Ok((store, bindings)),
            Ok(Err(error)) if error.is::<PoolConcurrencyLimitError>() => Err(NotStarted::Busy),
            Ok(Err(error)) => Err(NotStarted::Fault(match fault(&error, &store, limits) {
                Fault::Trap(text) | Fault::Garbage(text) => Fault::Instantiate(text),
                other => other,
            })),
            Err(_) => Err(NotStarted::Fault(Fault::Instantiate("the engine panicked".to_owned()))),
        }
    }

    fn begin(&mut self, again: bool) {
        let state = self.store.data_mut();
        state.begin(self.state.as_ref().map(|access| Session::new(access, again)));
        if self.calls > 0 {
            // A refusal that the guest survived is not what the next trap is about.
            state.allowance.refused = false;
            state.deadline = Instant::now() + self.limits.call_timeout;
        }
        self.calls += 1;
        self.store.set_epoch_deadline(1);
    }

    /// What the last call had to do with the state.
    pub(super) fn take_session(&mut self) -> Option<Session> {
        self.store.data_mut().session.take()
    }

    /// Hands it a message; `again`, since others changed what it was told of the state.
    pub(super) async fn handle(
        &mut self,
        message: &Message,
        again: bool,
    ) -> Result<Result<Vec<Output>, Failure>, Fault> {
        self.begin(again);
        let Bindings::Handler(bindings) = &self.bindings else {
            return Err(Fault::Garbage("it is no topic-handler".to_owned()));
        };
        let message = lower(message);
        // The engine has panicked while lifting before: one message's plugin must not end the process.
        let deadline = self.store.data().deadline;
        let answer = {
            let _ticking = self.clock.keep_ticking();
            let call = pin!(AssertUnwindSafe(bindings.call_handle(&mut self.store, &message)).catch_unwind());
            // Where the guest waits for the host no epoch reaches it. Ready at once, no timer is made.
            timeout_at(deadline.into(), call).await
        };
        match self.unwrap(answer)? {
            Ok(outputs) => lift(outputs, &self.limits).map(Ok),
            Err(failure) => Ok(Err(lift_failure(failure))),
        }
    }

    /// Hands it a command; `again` as above.
    pub(super) async fn validate(
        &mut self,
        command: &GuestCommand,
        again: bool,
    ) -> Result<Result<Bytes, Failure>, Fault> {
        self.begin(again);
        let Bindings::Validator(bindings) = &self.bindings else {
            return Err(Fault::Garbage("it is no command-validator".to_owned()));
        };
        let command = lower_command(command);
        let deadline = self.store.data().deadline;
        let answer = {
            let _ticking = self.clock.keep_ticking();
            let call = pin!(AssertUnwindSafe(bindings.call_validate(&mut self.store, &command)).catch_unwind());
            timeout_at(deadline.into(), call).await
        };
        match self.unwrap(answer)? {
            Ok(payload) if payload.len() as u64 > self.limits.output.0 => {
                Err(Fault::OutputTooLarge(self.limits.output))
            }
            Ok(payload) => Ok(Ok(payload.into())),
            Err(failure) => Ok(Err(lift_failure(failure))),
        }
    }

    fn unwrap<T>(&mut self, answer: Result<std::thread::Result<wasmtime::Result<T>>, Elapsed>) -> Result<T, Fault> {
        self.store.data_mut().http.end();
        self.usage.0.memory(self.store.data().allowance.memory_used);
        match answer {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(fault(&error, &self.store, self.limits)),
            Err(_) => Err(Fault::TimedOut(self.limits.call_timeout)),
            Ok(Err(_)) => Err(Fault::Garbage("the engine panicked while it read the answer".to_owned())),
        }
    }
}
