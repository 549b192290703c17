//! One running copy of a plugin: its store, what it may use, and one call at a time.
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
use sluicegate_core::message::{Failure, Field, GuestCommand, Job, Message, Output, Publication};
use sluicegate_core::settings::Limits;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::timeout_at;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};

use super::bindings::handler::sluicegate::plugin::{host, types};
use super::generation::{Generation, HandlerBindings, Linked, ValidatorBindings, one_line};
use super::guest_log::GuestLog;
use super::http::{self, Behind, Http};
use super::limits::Allowance;
use super::state::{Access, Session};
use super::wasi::{self, Wasi};
use crate::telemetry::usage::Usage;

/// What the host may hold for a guest's answer beyond the payloads: names, keys, topics.
const ANSWER_ALLOWANCE: u64 = 64 << 10;
/// Log lines of one call.
const MAX_LINES: u32 = 64;
/// Bytes of one log line, and of a failure's reason.
const MAX_TEXT: usize = 1_024;

/// Until the next attempt to start a copy where the engine has no room.
const BUSY: Duration = Duration::from_millis(5);

/// What a store holds for its guest.
pub(super) struct State {
    allowance: Allowance,
    settings: Arc<IndexMap<String, String>>,
    log: Arc<GuestLog>,
    deadline: Instant,
    lines: u32,
    host_calls: u32,
    max_host_calls: u32,
    wasi: Option<Wasi>,
    session: Option<Session>,
    http: Http,
}

impl State {
    /// What the call has to do with the state, and until when it must be done.
    pub(super) fn session(&mut self) -> wasmtime::Result<(&mut Session, Instant)> {
        self.count_host_call()?;
        // It is linked where it was granted, and only there.
        let session = self.session.as_mut().ok_or_else(|| wasmtime::Error::msg("there is no state outside a call"))?;
        Ok((session, self.deadline))
    }

    /// Counts a host call that cannot be refused by itself: the next tick of the epoch ends the call.
    pub(super) fn wasi(&mut self) -> &mut Wasi {
        self.http().0
    }

    /// The same, for what needs both.
    pub(super) fn http(&mut self) -> (&mut Wasi, &mut Http) {
        self.host_calls = self.host_calls.saturating_add(1);
        let handles = if self.http.is_linked() { http::MAX_HANDLES } else { wasi::MAX_HANDLES };
        (self.wasi.get_or_insert_with(|| Wasi::new(&self.log, handles)), &mut self.http)
    }

    fn over_host_calls(&self) -> wasmtime::Result<()> {
        if self.host_calls > self.max_host_calls {
            let most = self.max_host_calls;
            return Err(wasmtime::Error::msg(format!("more than {most} host calls in one call (limits.host_calls)")));
        }
        Ok(())
    }

    /// Each of them may make the host copy and allocate.
    fn count_host_call(&mut self) -> wasmtime::Result<()> {
        self.host_calls = self.host_calls.saturating_add(1);
        self.over_host_calls()
    }
}

impl host::Host for State {
    fn log(&mut self, level: host::Level, message: String) -> wasmtime::Result<()> {
        self.count_host_call()?;
        self.lines += 1;
        if self.lines > MAX_LINES {
            return Ok(());
        }
        self.log.line(level, cut(&message));
        Ok(())
    }

    fn setting(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.count_host_call()?;
        Ok(self.settings.get(&name).cloned())
    }
}

/// What the host may allocate while it takes an answer: the engine asks before it does, for what it becomes here, which is several times what it is
/// in the guest.
fn fuel(limits: &Limits) -> usize {
    let outputs = limits.outputs.saturating_mul(size_of::<types::Output>());
    usize::try_from(limits.output.0 + ANSWER_ALLOWANCE).unwrap_or(usize::MAX).saturating_add(outputs)
}

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
                    let usage = Counted::new(generation.usage().clone());
                    let limits = generation.limits;
                    return Ok(Self { store, bindings, limits, state, _place: place, usage, calls: 0 });
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
        let state = State {
            allowance: Allowance::new(&limits),
            settings,
            log: generation.log.clone(),
            deadline: Instant::now() + limits.call_timeout,
            lines: 0,
            host_calls: 0,
            max_host_calls: limits.host_calls,
            wasi: None,
            session: None,
            http: Http::new(match &generation.http {
                None => Behind::None,
                Some(_) if in_shadow => Behind::Shadow,
                Some(client) => Behind::Servers(client.clone()),
            }),
        };
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
        state.lines = 0;
        state.host_calls = 0;
        state.session = self.state.as_ref().map(|access| Session::new(access, again));
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
            let call = pin!(AssertUnwindSafe(bindings.call_handle(&mut self.store, &message)).catch_unwind());
            // Where the guest waits for the host no epoch reaches it. Ready at once, no timer is made.
            timeout_at(deadline.into(), call).await
        };
        match self.unwrap(answer)? {
            Ok(outputs) => self.lift(outputs).map(Ok),
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
        let command = types::Command {
            target: command.target.clone(),
            name: command.name.clone(),
            payload: command.payload.to_vec(),
            message_id: command.message_id.clone(),
        };
        let deadline = self.store.data().deadline;
        let answer = {
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

    fn lift(&self, outputs: Vec<types::Output>) -> Result<Vec<Output>, Fault> {
        let size: usize = outputs
            .iter()
            .map(|output| match output {
                types::Output::Job(job) => job.payload.len() + job.idempotency_key.as_ref().map_or(0, String::len),
                types::Output::Publish(publication) => publication.payload.len() + publication.topic.len(),
            })
            .sum();
        if outputs.len() > self.limits.outputs {
            return Err(Fault::TooManyOutputs(self.limits.outputs));
        }
        if size as u64 > self.limits.output.0 {
            return Err(Fault::OutputTooLarge(self.limits.output));
        }
        let lift = |output| match output {
            types::Output::Job(job) => {
                Output::Job(Job { payload: job.payload.into(), idempotency_key: job.idempotency_key })
            }
            types::Output::Publish(publication) => Output::Publish(Publication {
                topic: publication.topic,
                payload: publication.payload.into(),
                retain: publication.retain,
            }),
        };
        Ok(outputs.into_iter().map(lift).collect())
    }
}

fn lower(message: &Message) -> types::Message {
    let fields = |fields: &[Field]| {
        fields.iter().map(|field| types::Field { name: field.name.clone(), value: field.value.clone() }).collect()
    };
    types::Message {
        topic: message.topic.clone(),
        captures: fields(&message.captures),
        payload: message.payload.to_vec(),
        properties: fields(&message.properties),
        received_at: message.received_at.clone(),
        id: message.id.clone(),
        attempt: message.attempt,
    }
}

fn lift_failure(failure: types::Failure) -> Failure {
    match failure {
        types::Failure::Reject(reason) => Failure::Reject(cut(&reason).to_owned()),
        types::Failure::Retry(reason) => Failure::Retry(cut(&reason).to_owned()),
    }
}

/// The first [`MAX_TEXT`] bytes, at a character's end.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

fn fault(error: &wasmtime::Error, store: &Store<State>, limits: Limits) -> Fault {
    let trap = error.downcast_ref::<Trap>();
    let text = one_line(error);
    match trap {
        Some(Trap::Interrupt) => Fault::TimedOut(limits.call_timeout),
        _ if store.data().allowance.refused => Fault::OutOfMemory(limits.memory),
        // The engine's type for it is private; a test with an endless answer pins the words.
        _ if text.contains("hostcall fuel") || text.contains("fuel allocated for hostcalls") => {
            Fault::OutputTooLarge(limits.output)
        }
        // The trap's own words; what surrounds them is a backtrace.
        Some(trap) => Fault::Trap(match function(error) {
            Some(name) => format!("{trap} in `{name}`"),
            None => trap.to_string(),
        }),
        None => Fault::Garbage(text),
    }
}

/// The guest's function that trapped, where its names are in the file. They are the guest's words.
fn function(error: &wasmtime::Error) -> Option<String> {
    let name = error.downcast_ref::<WasmBacktrace>()?.frames().first()?.func_name()?;
    Some(name.chars().take(128).flat_map(char::escape_debug).collect())
}
