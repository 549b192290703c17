//! The engine: what it takes, what it refuses, and the clock by which guests yield.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sluicegate_core::digest::Digest;
use sluicegate_core::settings::Limits;
use wasmtime::component::Component;

use super::compiled::cache::Cache;
use super::compiled::{Claim, Compiled, Compiler, Origin};
use super::http::Net;
use super::refusal::Refusal;
use super::state::{Memory, Store};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures};

use crate::telemetry::usage::Usage;

/// How often a running guest is made to yield, so that a spinning one does not hold its lane for the others.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// Ticks for which the clock goes on while no call is under way, so that messages a moment apart do not each wake it.
const IDLE: u32 = 100;
/// The largest memory that one instance may be given; the settings' `limits.memory` stays within it.
const MAX_MEMORY: usize = 256 << 20;
/// Instances at once, over all plugins and lanes: twice what the settings may ask for, since those of a build that is replaced go only once what
/// is under way is done, and some are in shadow.
const MAX_INSTANCES: u32 = 2 * Limits::INSTANCES_OF_ALL as u32;
/// The most of each that one instance may be made of. There is room for all core instances and memories in every instance, so that no plugin takes
/// what another one was promised; it is room in the address space alone.
const CORE_INSTANCES: u32 = 16;
const MEMORIES: u32 = 4;
/// Of tables there is room for four in each instance that the settings may ask for, which is one more than any compiler makes: the engine maps them
/// writable, and a system without so much memory would refuse more.
const TABLES: u32 = 8;
const ALL_TABLES: u32 = 4 * Limits::INSTANCES_OF_ALL as u32;
/// Places without an instance that stay as the last one left them.
const MAX_WARM: u32 = 16;
/// Of a guest's own stack.
const WASM_STACK: usize = 512 << 10;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The machine does not give what the settings of the engine need.
    #[error("the WebAssembly engine does not start on this machine")]
    Engine(#[source] Box<dyn Error + Send + Sync>),
    /// Its clock has no thread.
    #[error("the system gives no thread for the WebAssembly engine's clock")]
    Clock(#[source] io::Error),
}

/// The engine and its clock. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    engine: Engine,
    compiled: Arc<Compiled>,
    usages: Arc<Mutex<HashMap<String, Arc<Usage>>>>,
    pub(super) store: Arc<dyn Store>,
    pub(super) net: Arc<Net>,
    claim: Claim,
    pub(super) clock: Arc<Clock>,
}

impl Sandbox {
    /// Starts the engine. Without a cache each file is compiled anew.
    ///
    /// # Errors
    /// [`EngineError`], where the machine cannot reserve what it needs.
    pub fn new(compiler: Compiler, cache: Option<Cache>) -> Result<Self, EngineError> {
        let engine = Engine::new(&config(Allocation::Pool)).map_err(|error| EngineError::Engine(error.into()))?;
        let clock = Clock::start(engine.clone()).map_err(EngineError::Clock)?;
        Ok(Self {
            engine,
            compiled: Arc::new(Compiled::new(compiler, cache)),
            usages: Arc::default(),
            store: Arc::new(Memory::default()),
            net: Arc::default(),
            claim: Claim::default(),
            clock: Arc::new(clock),
        })
    }

    /// From now on builds' state is kept there; else it is in this process, and empty at first.
    #[must_use]
    pub fn keeping_state_in(mut self, store: Arc<dyn Store>) -> Self {
        self.store = store;
        self
    }

    /// From now on it compiles, and builds are tried by their samples, for this purpose and as long as they are wanted.
    #[must_use]
    pub fn claiming(mut self, claim: Claim) -> Self {
        self.claim = claim;
        self
    }

    /// Nobody wants what it makes any more.
    ///
    /// # Cancel safety
    /// Dropped, nothing happened.
    pub(super) async fn given_up(&self) {
        self.claim.given_up.cancelled().await;
    }

    /// The code of a file whose digest this is. It takes as long as compiling takes.
    pub(super) fn component(&self, digest: &Digest, bytes: &[u8]) -> Result<(Component, Origin), Refusal> {
        self.compiled.component(&self.engine, digest, bytes, &self.claim)
    }

    /// What a plugin used so far, by whatever build.
    pub(super) fn usage(&self, plugin: &str) -> Arc<Usage> {
        let mut usages = self.usages.lock().unwrap_or_else(PoisonError::into_inner);
        usages.entry(plugin.to_owned()).or_default().clone()
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// Where memories and stacks come from.
pub(super) enum Allocation {
    /// A pool that is reserved at the start.
    Pool,
    /// The system, one by one: for a process that only compiles, and has no room for a pool. The code is the same.
    OnDemand,
}

/// What compiles and what runs are one configuration: code is refused by an engine of another one.
pub(super) fn config(allocation: Allocation) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MAX_INSTANCES)
        .total_core_instances(MAX_INSTANCES * CORE_INSTANCES)
        .total_memories(MAX_INSTANCES * MEMORIES)
        .total_tables(ALL_TABLES)
        .total_stacks(MAX_INSTANCES)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        // A second one is what guests with references to the host's things have.
        .max_tables_per_module(4)
        .max_memory_size(MAX_MEMORY)
        // Room in the address space only; each plugin has its own limit below it.
        .table_elements(100_000)
        // Each keeps its pages for another instance of the same build; a hundred, as is the default, would be those of builds that are gone.
        .max_unused_warm_slots(MAX_WARM)
        // Pages that the next instance would touch again anyway.
        .linear_memory_keep_resident(64 << 10)
        .async_stack_keep_resident(16 << 10);
    let mut config = Config::new();
    config
        // The process that compiles has threads for it; one that serves messages makes none by the way.
        .parallel_compilation(matches!(allocation, Allocation::OnDemand))
        .allocation_strategy(match allocation {
            Allocation::Pool => InstanceAllocationStrategy::Pooling(pool),
            Allocation::OnDemand => InstanceAllocationStrategy::OnDemand,
        })
        .memory_reservation(MAX_MEMORY as u64)
        .memory_guard_size(64 << 10)
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(WASM_STACK + (512 << 10));
    // The latest advisories sit in these, and no plugin needs them. Leaving out the engine's Cargo features alone is not
    // enough: without `gc` a guest's `ref.test` ended the whole process.
    for feature in [
        WasmFeatures::GC,
        WasmFeatures::EXCEPTIONS,
        WasmFeatures::LEGACY_EXCEPTIONS,
        WasmFeatures::THREADS,
        WasmFeatures::SHARED_EVERYTHING_THREADS,
        WasmFeatures::MEMORY64,
        WasmFeatures::STACK_SWITCHING,
        WasmFeatures::FUNCTION_REFERENCES,
        WasmFeatures::CUSTOM_PAGE_SIZES,
        WasmFeatures::RELAXED_SIMD,
        WasmFeatures::CM_ASYNC,
        WasmFeatures::CM_THREADING,
        WasmFeatures::CM_ERROR_CONTEXT,
        WasmFeatures::CM_GC,
    ] {
        config.wasm_features(feature, false);
    }
    config
}

/// Ticks the engine's epoch, on a thread of its own: it must tick while every other thread runs guests. While no call is under way it sleeps, so
/// that a gateway without messages does not wake the processor a thousand times a second.
///
/// Invariant: every call into a guest holds a [`Ticking`].
#[derive(Debug)]
pub(super) struct Clock {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Calls under way, those that wait for the host too.
    running: AtomicU32,
    asleep: AtomicBool,
}

/// The clock ticks as long as this is there.
#[must_use = "the clock may sleep once it is dropped"]
pub(super) struct Ticking<'a>(&'a Shared);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "it is joined when the engine goes")]
    fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let ticking = shared.clone();
        let thread = std::thread::Builder::new().name("epoch".to_owned()).spawn(move || ticking.run(&engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A call is under way from now on.
    pub(super) fn keep_ticking(&self) -> Ticking<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        Ticking(&self.shared)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Shared {
    fn run(&self, engine: &Engine) {
        let mut idle = 0;
        while !self.stop.load(Ordering::SeqCst) {
            idle = if self.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
            if idle > IDLE {
                self.asleep.store(true, Ordering::SeqCst);
                // Who begins now sees that it sleeps, or is seen here.
                if self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                idle = 0;
            }
            std::thread::park_timeout(TICK);
            engine.increment_epoch();
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use wasmtime::{Module, Store, Trap};

    use super::*;

    /// A guest that runs for minutes, unless its epoch is over.
    fn interrupted(engine: &Engine, clock: &Clock) {
        let text = "(module (func (export \"run\") (local i64) (loop $again
            (local.set 0 (i64.add (local.get 0) (i64.const 1)))
            (br_if $again (i64.lt_u (local.get 0) (i64.const 500_000_000_000))))))";
        let bytes = wat::parse_str(text).expect("a text");
        let module = Module::new(engine, bytes).expect("a module");
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(2);
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).expect("it starts");
        let run = instance.get_typed_func::<(), ()>(&mut store, "run").expect("a function");
        let _ticking = clock.keep_ticking();
        let error = run.call(&mut store, ()).expect_err("it is over before");
        assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::Interrupt), "{error}");
    }

    #[test]
    fn the_clock_sleeps_while_no_guest_runs_and_ticks_for_the_next() {
        let engine = Engine::new(&config(Allocation::OnDemand)).expect("an engine");
        let clock = Clock::start(engine.clone()).expect("a thread");
        let asleep = || clock.shared.asleep.load(Ordering::SeqCst);
        for _ in 0..3 {
            let began = Instant::now();
            while !asleep() {
                assert!(began.elapsed() < Duration::from_secs(60), "it does not sleep");
                std::thread::park_timeout(TICK);
            }
            interrupted(&engine, &clock);
            assert!(!asleep());
        }
    }
}
