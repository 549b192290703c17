//! One compiled build of a plugin. Messages in flight finish on the generation that they began on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use sluicegate_core::breaker::{Breaker, Verdict};
use sluicegate_core::compared::Sum;
use sluicegate_core::digest::Digest;
use sluicegate_core::settings::{Grants, Limits};
use sluicegate_samples::Sample;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component, HasSelf, Linker};

use super::bindings::handler::sluicegate::plugin::{host, state};
use super::bindings::handler::{TopicHandler, TopicHandlerPre};
use super::bindings::validator::{CommandValidator, CommandValidatorPre};
use super::compiled::Origin;
use super::engine::Sandbox;
use super::grants;
use super::guest::State;
use super::guest_log::GuestLog;
use super::inspect::{self, Inspection, World};
use super::refusal::{Problem, Refusal, Step};
use super::share::Share;
use super::state::Access;
use super::{http, wasi};
use crate::telemetry::clock;
use crate::telemetry::metrics::PluginMetrics;
use crate::telemetry::usage::Usage;

/// Instances of a build in shadow at once: one for a rehearsal, one for whoever asks for its messages.
const SHADOW_INSTANCES: usize = 2;

/// A build, ready to be instantiated.
pub struct Generation {
    /// Unique in this process: what warm instances are kept by.
    pub(super) id: u64,
    name: String,
    number: u64,
    inspection: Inspection,
    pub(super) limits: Limits,
    pub(super) settings: Arc<IndexMap<String, String>>,
    grants: Grants,
    /// Where it was granted that.
    pub(super) state: Option<Arc<Access>>,
    pub(super) sandbox: Sandbox,
    pub(super) linked: Linked,
    pub(super) metrics: PluginMetrics,
    /// Of its instances, over all lanes: `limits.instances` of them.
    pub(super) places: Arc<Semaphore>,
    /// Of those in shadow, which take none of the messages' own.
    shadow_places: Arc<Semaphore>,
    pub(super) log: Arc<GuestLog>,
    usage: Arc<Usage>,
    pub(super) share: Share,
    /// What it calls servers with, where it may and does.
    pub(super) http: Option<Arc<http::Client>>,
    /// Whether the breaker has anything to say: a good call costs no lock.
    troubled: AtomicBool,
    breaker: Mutex<Breaker>,
    /// No new message is handled with it.
    retired: AtomicBool,
    done: Done,
}

/// What its calls came to, as the messages' own.
#[derive(Default)]
struct Done {
    calls: AtomicU64,
    failures: AtomicU64,
    nanos: AtomicU64,
}

pub(super) enum Linked {
    Handler(TopicHandlerPre<State>),
    Validator(CommandValidatorPre<State>),
}

impl Sandbox {
    /// Verifies, compiles and checks a component. It takes as long as compiling takes, so it is not for a thread that
    /// polls.
    ///
    /// # Errors
    /// [`Refusal`] names the step and what is wrong.
    pub fn compile(
        &self,
        bytes: &[u8],
        settings: IndexMap<String, String>,
        limits: Limits,
        grants: &Grants,
        name: &str,
        number: u64,
    ) -> Result<Generation, Refusal> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let inspection = inspect::inspect(bytes)?;
        grants::check(&inspection.imports, grants).map_err(|problem| Refusal::new(Step::Checked, problem))?;
        let (component, _) = self.component(&inspection.digest, bytes)?;
        let linked = self
            .link(&component, &inspection, grants)
            .map_err(|error| Refusal::new(Step::Checked, Problem::Engine(one_line(&error))))?;
        let calls = inspection.needs_http();
        let http = calls.then(|| http::Client::new(&self.net, name, &grants.http, limits.http)).transpose()?;
        Ok(Generation {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.to_owned(),
            number,
            inspection,
            limits,
            settings: Arc::new(settings),
            state: grants.state.then(|| Access::new(name, limits, self.store.clone())),
            grants: grants.clone(),
            sandbox: self.clone(),
            linked,
            metrics: PluginMetrics::new(name),
            places: Arc::new(Semaphore::new(limits.instances)),
            shadow_places: Arc::new(Semaphore::new(SHADOW_INSTANCES)),
            log: Arc::new(GuestLog::new(name, &limits)),
            usage: self.usage(name),
            share: Share::new(limits.time_per_second),
            http,
            troubled: AtomicBool::new(false),
            breaker: Mutex::default(),
            retired: AtomicBool::new(false),
            done: Done::default(),
        })
    }

    /// Verifies and compiles a component, for the cache alone.
    ///
    /// # Errors
    /// [`Refusal`] names the step and what is wrong.
    pub fn precompile(&self, bytes: &[u8]) -> Result<(Inspection, Origin), Refusal> {
        let inspection = inspect::inspect(bytes)?;
        let (_, origin) = self.component(&inspection.digest, bytes)?;
        Ok((inspection, origin))
    }

    fn link(&self, component: &Component, inspection: &Inspection, grants: &Grants) -> wasmtime::Result<Linked> {
        let mut linker = Linker::<State>::new(self.engine());
        host::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
        wasi::link(&mut linker)?;
        if grants.state {
            state::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
        }
        if inspection.needs_http() {
            http::link(&mut linker)?;
        }
        let linked = linker.instantiate_pre(component)?;
        Ok(match inspection.world {
            World::TopicHandler => Linked::Handler(TopicHandlerPre::new(linked)?),
            World::CommandValidator => Linked::Validator(CommandValidatorPre::new(linked)?),
        })
    }
}

impl Generation {
    /// The name that the settings give it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 1, 2, … of this plugin since the gateway started.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What its manifest calls it; the settings may have another name for it.
    #[must_use]
    pub fn manifest_name(&self) -> &str {
        &self.inspection.manifest.name
    }

    /// As its manifest says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.inspection.manifest.version
    }

    /// Of the whole file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.inspection.digest
    }

    /// What it implements.
    #[must_use]
    pub fn world(&self) -> World {
        self.inspection.world
    }

    /// What the operator granted it.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Whether it may call servers, and is made for it.
    #[must_use]
    pub fn calls_servers(&self) -> bool {
        self.http.is_some()
    }

    /// Nobody wants it any more, before it was ever live.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub async fn given_up(&self) {
        self.sandbox.given_up().await;
    }

    /// What the plugin used so far, by all of its builds.
    #[must_use]
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// It had so much of the processor.
    pub(super) fn busy(&self, time: Duration) {
        self.usage.busy(time);
        self.share.took(time);
    }

    /// A call for a message or a command ended; it failed where it gave no answer, or refused the message.
    pub fn did(&self, failed: bool, took: Duration) {
        self.done.calls.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.done.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.done.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A message failed at what stands behind it in the chain, or what came of it cannot be passed on: it may be its doing, so its call counts
    /// as a failure after all.
    pub fn failed_behind(&self) {
        self.done.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// What the calls for messages came to so far.
    #[must_use]
    pub fn sum(&self) -> Sum {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let busy = Duration::from_nanos(read(&self.done.nanos));
        Sum { calls: read(&self.done.calls), failures: read(&self.done.failures), busy }
    }

    /// The broker has what it published, or refused it.
    pub fn published(&self, outcome: &'static str) {
        self.metrics.publication(outcome);
    }

    /// No new message is handled with it any more: it never comes back.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// A place for an instance; who finds none free waits.
    ///
    /// # Cancel safety
    /// Dropped, none was taken.
    pub(super) async fn place(&self, in_shadow: bool) -> OwnedSemaphorePermit {
        let places = self.places(in_shadow).clone();
        places.acquire_owned().await.expect("invariant: the places of a build are never closed")
    }

    /// The same where one is free at once, and nobody waits for it.
    pub(super) fn free_place(&self, in_shadow: bool) -> Option<OwnedSemaphorePermit> {
        self.places(in_shadow).clone().try_acquire_owned().ok()
    }

    fn places(&self, in_shadow: bool) -> &Arc<Semaphore> {
        if in_shadow { &self.shadow_places } else { &self.places }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a message may be handed to it now.
    #[must_use]
    pub fn ask(&self) -> Verdict {
        if self.troubled.load(Ordering::Relaxed) { self.breaker().ask(clock::uptime()) } else { Verdict::Go }
    }

    /// A call gave no answer; `machine` is the message's.
    pub fn faulted(&self, machine: &str) {
        self.troubled.store(true, Ordering::Relaxed);
        if self.breaker().failed(machine, clock::uptime()) {
            tracing::error!(
                plugin = self.name,
                generation = self.number,
                "the plugin fails at everything; its messages wait in the spool until it is repaired"
            );
        }
    }

    /// A call gave an answer.
    pub fn answered(&self) {
        // Read first: all lanes look at it, and nearly always it is false.
        let troubled = self.troubled.load(Ordering::Relaxed) && self.troubled.swap(false, Ordering::Relaxed);
        if troubled && self.breaker().answered() {
            tracing::info!(plugin = self.name, generation = self.number, "the plugin answers again");
        }
    }

    /// Whether it fails at everything.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken_for().is_some()
    }

    /// For how long it has failed at everything; none: it does not.
    #[must_use]
    pub fn broken_for(&self) -> Option<Duration> {
        if self.troubled.load(Ordering::Relaxed) { self.breaker().open_for(clock::uptime()) } else { None }
    }

    /// What it promises.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.inspection.samples
    }
}

/// Characters of an engine's error: it may quote what a file says of itself.
const MAX_ERROR: usize = 512;

/// An engine's error with its causes, in one line.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    let mut line = String::with_capacity(text.len());
    for part in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(part);
    }
    if let Some((end, _)) = line.char_indices().nth(MAX_ERROR) {
        line.truncate(end);
        line.push('…');
    }
    line
}

// The generated types; named here so that their use is in one place.
pub(super) type HandlerBindings = TopicHandler;
pub(super) type ValidatorBindings = CommandValidator;
