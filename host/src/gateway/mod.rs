//! Builds the parts, supervises them, swaps what is live, and shuts down in order. Only here are tasks started.
//!
//! Invariant: the settings, routes and chains in force change only by a swap of the whole snapshot, done here, one by one.

mod build;
pub mod preflight;
mod probation;
mod rehearsal;
pub mod servers;
mod signals;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use sluicegate_core::settings::Settings;
use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminError};
use crate::dead_letters::desk::Desk;
use crate::live::{Current, Live};
use crate::mqtt::connect::MqttError;
use crate::recent::Recent;
use crate::redis::connect::RedisFault;
use crate::registry::{self, Proposal, Registry, Source};
use crate::sandbox::engine::EngineError;
use crate::sandbox::{Cache, Compiler, Generation, Sandbox, Step};
use crate::telemetry::board::{Board, LiveBuild, RouteStatus};
use crate::telemetry::clock;
use crate::telemetry::metrics::Exporter;

use rehearsal::RealMessages;
use signals::Signals;

/// After the limit is over, what is abandoned may still say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the gateway does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The admin server.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The broker's connection cannot even be tried.
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    /// Redis's connection cannot even be tried.
    #[error(transparent)]
    Redis(#[from] RedisFault),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] crate::spool::SpoolError),
    /// A server in this process.
    #[error(transparent)]
    Embedded(#[from] crate::embedded::EmbeddedError),
    /// Threads or signals.
    #[error("the system gives no {what}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A part ended that must not.
    #[error("{part} stopped by itself: {reason}; the gateway shut down, and what was not acknowledged comes again")]
    Fault {
        /// Which.
        part: &'static str,
        /// Why.
        reason: String,
    },
    /// A second signal.
    #[error("a second signal ended it before everything was finished: {0}; what was not acknowledged comes again")]
    Forced(String),
    /// The shutdown limit was over.
    #[error(
        "not everything was finished within gateway.shutdown_timeout ({limit:?}): {parts}; what was not acknowledged comes again"
    )]
    Unfinished {
        /// The limit.
        limit: Duration,
        /// What was not at its end.
        parts: String,
    },
}

/// A part's end: its name, and why it ended if it must not have.
type End = (&'static str, Result<(), String>);

/// Runs the gateway until a signal or a fault ends it.
///
/// # Errors
/// [`GatewayError`] says what could not be started, or what stopped.
pub async fn run(settings: Arc<Settings>, exporter: Exporter) -> Result<(), GatewayError> {
    let mut signals = Signals::listen().map_err(|source| GatewayError::System { what: "signals", source })?;
    let board = Arc::new(board(&settings));
    let desk = Arc::new(OnceLock::new());
    let (plugins, orders) = registry::desk::desk(board.clone());
    let admin = admin::start(settings.admin.listen, board.clone(), exporter, desk.clone(), plugins.clone())?;
    tracing::info!(address = %admin.address(), "admin listening");

    let mut gateway = Gateway {
        tasks: JoinSet::new(),
        names: HashMap::new(),
        stop: CancellationToken::new(),
        abandon: CancellationToken::new(),
        last: CancellationToken::new(),
        board: board.clone(),
        desk,
        recent: Arc::default(),
        plugins,
    };
    let result = gateway.serve(settings.clone(), orders, &mut signals).await;
    board.stopping();
    let ended = gateway.shut_down(settings.gateway.shutdown_timeout, &mut signals).await;
    admin.stop();
    result.and(ended)
}

/// Where compiled code is kept; without it each start compiles anew, and that is all.
fn cache(settings: &Settings) -> Option<Cache> {
    Cache::make(&settings.gateway.state)
        .inspect_err(|error| tracing::warn!(%error, "compiled plugins are not kept; each start compiles them anew"))
        .ok()
}

fn board(settings: &Settings) -> Board {
    let routes = settings
        .routes
        .iter()
        .map(|route| RouteStatus {
            name: route.name.clone(),
            topic: route.topic.to_string(),
            kind: route.kind.clone(),
            handlers: route.handlers.clone(),
            queue: route.queue.clone(),
        })
        .collect();
    Board::new(&settings.gateway.instance, settings.plugins.keys().cloned(), routes)
}

/// The running parts.
struct Gateway {
    tasks: JoinSet<Result<(), String>>,
    /// Of the tasks that have not ended.
    names: HashMap<task::Id, &'static str>,
    /// Take nothing more.
    stop: CancellationToken,
    /// Give up what is not finished.
    abandon: CancellationToken,
    /// Nothing uses the downlink connection and the embedded servers any more.
    last: CancellationToken,
    board: Arc<Board>,
    /// What the admin server asks of the dead letters, from when the lanes run.
    desk: Arc<OnceLock<Desk>>,
    /// What is asked of the plugins' builds.
    plugins: registry::desk::Desk,
    /// What builds to come are tried on.
    recent: Arc<Recent>,
}

impl Gateway {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async {
            task.await;
            Ok(())
        });
    }

    #[expect(clippy::disallowed_methods, reason = "the parts are started here alone")]
    fn spawn_fallible(&mut self, name: &'static str, task: impl Future<Output = Result<(), String>> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Serves until a signal (good) or a fault.
    async fn serve(
        &mut self,
        settings: Arc<Settings>,
        orders: registry::desk::Orders,
        signals: &mut Signals,
    ) -> Result<(), GatewayError> {
        let embedded = self.start_embedded(&settings).await?;
        let sandbox = Sandbox::new(Compiler::Process(settings.gateway.compile), cache(&settings))?;
        // One place: the registry waits while a swap is made.
        let (sender, mut proposals) = mpsc::channel(1);
        let wanted = registry::wanted(&settings);
        let kept = (settings.gateway.state.as_path(), settings.gateway.instance.as_str());
        let taking = Arc::new(OnceLock::new());
        let (recent, board) = (self.recent.clone(), self.board.clone());
        let rehearsal = Arc::new(RealMessages { current: taking.clone(), recent, board });
        let registry = Registry::new(sandbox.clone(), wanted, kept, sender, orders, self.board.clone());
        let registry = registry.rehearsing(rehearsal);
        let stop = self.stop.clone();
        self.spawn("the plugin registry", registry.run(stop));

        let spool = self.open_spool(&settings)?;
        let mut plugins: IndexMap<String, Arc<Generation>> = IndexMap::new();
        let mut first = Live::new(settings.clone(), plugins.clone());
        // Until every plugin is there nothing is taken: the broker and the list keep it.
        let live = loop {
            match first {
                Ok(live) => break live,
                Err(missing) => tracing::debug!(?missing, "waiting for plugins"),
            }
            match self.next(&mut proposals, signals).await? {
                Some(proposal) => {
                    plugins.insert(proposal.generation.name().to_owned(), proposal.generation.clone());
                    self.announce(proposal);
                    first = Live::new(settings.clone(), plugins.clone());
                }
                None => return Ok(()),
            }
        };
        let current: Current = Arc::new(ArcSwap::from_pointee(live));
        // Invariant: it is set here alone, once.
        let _ = taking.set(current.clone());
        let probation = probation::run(current.clone(), self.plugins.clone(), self.board.clone(), self.stop.clone());
        self.spawn("the probation of builds", probation);
        self.start_monitor(&settings, embedded, &current, &spool.0)?;
        let desk = self.start_uplink(&settings, &current, embedded, spool)?;
        // Invariant: it is set here alone, once.
        let _ = self.desk.set(desk);
        self.start_downlink(&settings, &current, embedded)?;
        while let Some(proposal) = self.next(&mut proposals, signals).await? {
            let next = current.load().with(&proposal.generation);
            let before = current.swap(Arc::new(next));
            before.builds().filter(|build| build.name() == proposal.generation.name()).for_each(|build| build.retire());
            self.announce(proposal);
        }
        Ok(())
    }

    /// The next build to make live; none: a signal says to stop.
    async fn next(
        &mut self,
        proposals: &mut mpsc::Receiver<Proposal>,
        signals: &mut Signals,
    ) -> Result<Option<Proposal>, GatewayError> {
        tokio::select! {
            Some(proposal) = proposals.recv() => Ok(Some(proposal)),
            name = signals.next() => {
                tracing::info!(signal = name, "shutting down");
                Ok(None)
            }
            Some(ended) = self.tasks.join_next_with_id() => Err(match self.ended(ended) {
                (part, Ok(())) => GatewayError::Fault { part, reason: "it came to its end".to_owned() },
                (part, Err(reason)) => GatewayError::Fault { part, reason },
            }),
        }
    }

    fn ended(&mut self, ended: Result<(task::Id, Result<(), String>), task::JoinError>) -> End {
        let (id, result) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(error.to_string())),
        };
        (self.names.remove(&id).unwrap_or("a task"), result)
    }

    /// Says that a build is live, to people and to the registry.
    fn announce(&self, proposal: Proposal) {
        let generation = &proposal.generation;
        let step = match proposal.source {
            Source::File => Step::Live,
            Source::Fallback => Step::Fallback,
        };
        tracing::info!(
            plugin = generation.name(),
            version = generation.version(),
            digest = %generation.digest(),
            generation = generation.number(),
            source = proposal.source.name(),
            "a build is live"
        );
        self.board.plugin_usage(generation.name(), generation.usage().clone());
        self.board.plugin_live(
            generation.name(),
            step.name(),
            LiveBuild {
                version: generation.version().to_owned(),
                digest: generation.digest().to_string(),
                generation: generation.number(),
                world: generation.world().to_string(),
                source: proposal.source.name(),
                signed_by: proposal.signed_by.map(|key| key.to_string()),
                since: clock::now(),
            },
        );
        proposal.is_live();
    }

    /// Stop taking, finish what was taken, acknowledge, disconnect; within the limit.
    async fn shut_down(&mut self, limit: Duration, signals: &mut Signals) -> Result<(), GatewayError> {
        self.stop.cancel();
        let finished = tokio::select! {
            finished = timeout(limit, self.finish()) => finished.is_ok(),
            name = signals.next() => {
                tracing::warn!(signal = name, "a second signal: ending at once; what was not acknowledged comes again");
                return Err(GatewayError::Forced(self.unfinished()));
            }
        };
        if finished {
            tracing::info!("everything taken is settled");
            return Ok(());
        }
        let parts = self.unfinished();
        self.abandon.cancel();
        self.last.cancel();
        let _ = timeout(LAST_WORDS, self.finish()).await;
        Err(GatewayError::Unfinished { limit, parts })
    }

    fn unfinished(&self) -> String {
        let mut parts: Vec<&str> = self.names.values().copied().collect();
        parts.sort_unstable();
        parts.join(", ")
    }

    /// The parts end one after another, as the channels between them close; those that the others need, last.
    async fn finish(&mut self) {
        while self.names.values().any(|name| !build::LAST.contains(name)) {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            if let (part, Err(reason)) = self.ended(ended) {
                tracing::error!(part, reason, "a part failed while it shut down");
            }
        }
        self.last.cancel();
        while let Some(ended) = self.tasks.join_next_with_id().await {
            if let (part, Err(reason)) = self.ended(ended) {
                tracing::error!(part, reason, "a part failed while it shut down");
            }
        }
    }
}
