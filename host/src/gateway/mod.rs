//! Builds the parts, supervises them, swaps what is live, and shuts down in order. Only here are tasks started.
//!
//! - `build`: what the parts are made of.
//! - `reload`, `knobs`: other settings while they run.
//! - `state`: what plugins keep.
//! - [`preflight`]: what would keep them from starting.
//!
//! Invariant: the settings, routes and chains in force change only by a swap of the whole snapshot, done here, one by one.

mod build;
mod canary;
mod knobs;
pub mod preflight;
mod probation;
mod rehearsal;
mod reload;
pub mod servers;
mod signals;
mod state;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use sluicegate_core::settings::{Resolved, Settings};
use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::access::AccessError;
use crate::access::rules::Rules;
use crate::admin::{self, AdminError};
use crate::dead_letters::desk::Desk;
use crate::live::{Current, Live};
use crate::mqtt::connect::MqttError;
use crate::recent::Recent;
use crate::redis::connect::RedisFault;
use crate::registry::{self, Proposal, Registry, Source};
use crate::sandbox::engine::EngineError;
use crate::sandbox::{Cache, Compiler, Generation, Sandbox, Step};
use crate::settings::desk::{Asked, By, InForce};
use crate::settings::{self, propose::Proposer};
use crate::spool::{Spool, Waiting};
use crate::telemetry::board::{Board, LiveBuild, RouteStatus};
use crate::telemetry::clock;
use crate::telemetry::metrics::Exporter;

use build::Embedded;
use knobs::Knobs;
use rehearsal::RealMessages;
use reload::{Force, Progress, Running};
use signals::{Heard, Signals};

/// After the limit is over, what is abandoned may still say so.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Who asks for the settings of the file while it is read; beyond it whoever asks waits.
const ASKED: usize = 8;

/// Why the gateway does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The admin server.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The broker's questions.
    #[error(transparent)]
    Access(#[from] AccessError),
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
pub async fn run(file: Option<PathBuf>, resolved: Resolved, exporter: Exporter) -> Result<(), GatewayError> {
    let settings = Arc::new(resolved.settings);
    let mut signals = Signals::listen().map_err(|source| GatewayError::System { what: "signals", source })?;
    let board = Arc::new(board(&settings));
    let desk = Arc::new(OnceLock::new());
    let in_force = InForce {
        number: 1,
        since: clock::now(),
        by: By::Start,
        file: file.as_deref().map(reload::shown),
        keys: resolved.effective,
    };
    let in_force = Arc::new(ArcSwap::from_pointee(in_force));
    let (asks, asked) = mpsc::channel(ASKED);
    let edits = Edits { file, asked, in_force: in_force.clone(), desk: settings::desk::Desk::new(asks, in_force) };
    let (recent, taking) = (Arc::<Recent>::default(), Arc::default());
    let real = RealMessages { current: Arc::clone(&taking), recent: recent.clone(), board: board.clone() };
    let (plugins, orders) = registry::desk::desk(board.clone(), Some(Arc::new(real)));
    let shown = admin::Shown { letters: desk.clone(), plugins: plugins.clone(), settings: edits.desk.clone() };
    let admin = admin::start(settings.admin.listen, board.clone(), exporter, shown)?;
    tracing::info!(address = %admin.address(), "admin listening");

    let mut gateway = Gateway {
        tasks: JoinSet::new(),
        names: HashMap::new(),
        stop: CancellationToken::new(),
        abandon: CancellationToken::new(),
        last: CancellationToken::new(),
        board: board.clone(),
        desk,
        recent,
        taking,
        plugins: plugins.clone(),
        limit: settings.gateway.shutdown_timeout,
    };
    let result = gateway.serve(settings, edits, (plugins, orders), &mut signals).await;
    board.stopping();
    let ended = gateway.shut_down(gateway.limit, &mut signals).await;
    admin.stop();
    result.and(ended)
}

/// Where compiled code is kept; without it each start compiles anew, and that is all.
fn cache(settings: &Settings) -> Option<Cache> {
    Cache::make(&settings.gateway.state)
        .inspect_err(|error| tracing::warn!(%error, "compiled plugins are not kept; each start compiles them anew"))
        .ok()
}

/// How the settings are read again.
struct Edits {
    file: Option<PathBuf>,
    asked: mpsc::Receiver<Asked>,
    in_force: Arc<ArcSwap<InForce>>,
    desk: settings::desk::Desk,
}

fn board(settings: &Settings) -> Board {
    Board::new(&settings.gateway.instance, settings.plugins.keys().cloned(), route_status(settings))
}

fn route_status(settings: &Settings) -> Vec<RouteStatus> {
    settings
        .routes
        .iter()
        .map(|route| RouteStatus {
            name: route.name.clone(),
            topic: route.topic.to_string(),
            kind: route.kind.clone(),
            handlers: route.handlers.clone(),
            queue: route.queue.clone(),
        })
        .collect()
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
    /// From when messages are taken.
    taking: Arc<OnceLock<Current>>,
    /// `gateway.shutdown_timeout`
    limit: Duration,
}

/// The builds that passed every step, by plugin.
#[derive(Default)]
struct Plugins {
    live: IndexMap<String, Arc<Generation>>,
    /// Those that serve some machines, until messages are taken; from then on `Live` has them.
    canaries: IndexMap<String, Arc<Generation>>,
}

/// What the gateway hears of.
struct Inbox {
    builds: mpsc::Receiver<Proposal>,
    edits: mpsc::Receiver<settings::propose::Proposal>,
}

enum Event {
    /// A build passed every step.
    Build(Proposal),
    /// The settings' file was read.
    Edit(settings::propose::Proposal),
    /// An edit goes on.
    Progress(Progress),
    /// SIGHUP.
    Reload,
    /// Another signal.
    Stop,
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
        edits: Edits,
        (desk, orders): (registry::desk::Desk, registry::desk::Orders),
        signals: &mut Signals,
    ) -> Result<(), GatewayError> {
        let embedded = self.start_embedded(&settings).await?;
        let sandbox = Sandbox::new(Compiler::Beside(settings.gateway.compile), cache(&settings))?;
        let sandbox = sandbox.keeping_state_in(self.start_state(&settings, embedded)?);
        let rules = Arc::new(ArcSwap::from_pointee(Rules::new(&settings)));
        // Before plugins are loaded: machines may log in, and the broker keeps what they send.
        self.start_access(&settings, embedded, rules.clone())?;
        // One place: the registry waits while a swap is made.
        let (sender, builds) = mpsc::channel(1);
        let wanted = registry::wanted(&settings);
        let kept = (settings.gateway.state.as_path(), settings.gateway.instance.as_str());
        let registry = Registry::new(sandbox.clone(), wanted, kept, sender, orders, self.board.clone());
        let stop = self.stop.clone();
        self.spawn("the plugin registry", registry.run(stop));
        // One place: the next is read once this one is answered.
        let (sender, proposals) = mpsc::channel(1);
        let Edits { file, asked, in_force, desk: asking } = edits;
        let proposer = Proposer::new(file, asked, sender);
        let stop = self.stop.clone();
        self.spawn("the settings' file", proposer.run(stop));

        let mut spool = Some(self.open_spool(&settings)?);
        let mut inbox = Inbox { builds, edits: proposals };
        let mut force = Force::new(settings, in_force, desk, self.board.clone(), rules);
        let mut plugins = Plugins::default();
        let mut running: Option<Running> = None;
        loop {
            // Until every plugin is there nothing is taken: the broker and the list keep it.
            if spool.is_some() {
                match Live::new(force.settings.clone(), plugins.live.clone()) {
                    Ok(live) => {
                        let live = plugins.canaries.values().fold(live, |live, canary| live.with_canary(canary));
                        if let Some(spool) = spool.take() {
                            running = Some(self.start(live, embedded, spool)?);
                        }
                    }
                    Err(missing) => tracing::debug!(?missing, "waiting for plugins"),
                }
            }
            match self.next(&mut inbox, &mut force, signals).await? {
                Event::Build(proposal) => self.put(proposal, &force, running.as_ref(), &mut plugins),
                Event::Edit(proposal) => force.propose(proposal),
                Event::Progress(Progress::Ordered(ordered)) => {
                    let builds = force.ordered(ordered, running.as_ref(), &mut plugins);
                    self.limit = force.settings.gateway.shutdown_timeout;
                    builds.into_iter().for_each(|proposal| self.announce(proposal));
                }
                Event::Progress(Progress::Confirmed(why_not)) => force.confirmed(why_not),
                Event::Progress(Progress::Look) => {
                    if let Some(running) = &running {
                        force.look(running);
                    }
                }
                Event::Reload => asking.ask(By::Signal),
                Event::Stop => return Ok(()),
            }
        }
    }

    /// Starts what takes messages and commands.
    fn start(&mut self, live: Live, embedded: Embedded, spool: (Spool, Vec<Waiting>)) -> Result<Running, GatewayError> {
        let knobs = Knobs::new(&live, spool.0.clone());
        let settings = live.settings.clone();
        let current: Current = Arc::new(ArcSwap::from_pointee(live));
        // Invariant: it is set here alone, once.
        let _ = self.taking.set(current.clone());
        let probation = probation::run(current.clone(), self.plugins.clone(), self.board.clone(), self.stop.clone());
        self.spawn("the probation of builds", probation);
        let canaries = canary::run(current.clone(), self.plugins.clone(), self.board.clone(), self.stop.clone());
        self.spawn("the judging of canaries", canaries);
        self.start_monitor(&settings, &knobs, embedded, &current)?;
        let publisher = self.start_publishing(&settings, &knobs, embedded)?;
        let desk = self.start_uplink(&settings, &knobs, &current, embedded, &publisher, spool)?;
        // Invariant: it is set here alone, once.
        let _ = self.desk.set(desk);
        self.start_downlink(&settings, &knobs, &current, embedded, publisher)?;
        Ok(Running { current, knobs, recent: self.recent.clone() })
    }

    /// What is to be done next.
    async fn next(
        &mut self,
        inbox: &mut Inbox,
        force: &mut Force,
        signals: &mut Signals,
    ) -> Result<Event, GatewayError> {
        tokio::select! {
            Some(proposal) = inbox.builds.recv() => Ok(Event::Build(proposal)),
            Some(proposal) = inbox.edits.recv() => Ok(Event::Edit(proposal)),
            progress = force.progress() => Ok(Event::Progress(progress)),
            heard = signals.any() => Ok(match heard {
                Heard::Reload => Event::Reload,
                Heard::End(name) => {
                    tracing::info!(signal = name, "shutting down");
                    Event::Stop
                }
            }),
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
        proposal.is_taken();
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
