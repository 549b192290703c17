//! Which build of each plugin there is: found → verified → compiled → checked → rehearsed, then proposed to the gateway,
//! which alone makes it live. A build that fails at any step changes nothing.
//!
//! - [`load`]: one file through all steps.
//! - [`order`]: other settings; what changes in their plugins is loaded before anything else changes.

pub mod load;
pub mod order;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use sluicegate_core::digest::Digest;
use sluicegate_core::settings::Settings;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::sandbox::{Generation, Refusal, Sandbox, Step, World};
use crate::telemetry::board::{Board, Refused};
use crate::telemetry::clock;
use crate::watch::Watch;
use order::Order;

/// A build that passed every step.
pub struct Proposal {
    /// It.
    pub generation: Arc<Generation>,
}

/// A plugin as the settings name it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The settings' name for it.
    pub name: String,
    /// Its file, settings and limits.
    pub plugin: sluicegate_core::settings::Plugin,
    /// The world that its place in the settings needs.
    pub world: Option<World>,
    /// What the live build calls itself: a build of another plugin does not take its place.
    pub before: Option<String>,
}

/// Every plugin that the settings name.
#[must_use]
pub fn wanted(settings: &Settings) -> Vec<Wanted> {
    let handler = |name: &String| settings.routes.iter().any(|route| route.handlers.contains(name));
    let plugins: &IndexMap<_, _> = &settings.plugins;
    plugins
        .iter()
        .map(|(name, plugin)| Wanted {
            name: name.clone(),
            plugin: plugin.clone(),
            world: if settings.commands.validator.as_ref() == Some(name) {
                Some(World::CommandValidator)
            } else {
                handler(name).then_some(World::TopicHandler)
            },
            before: None,
        })
        .collect()
}

/// One plugin and what became of its file so far.
struct Watched {
    wanted: Wanted,
    live: Option<Digest>,
    /// The build that was refused last.
    refused: Option<Tried>,
    /// The last reason for which the file could not be read, so that it is said once.
    unreadable: Option<String>,
    number: u64,
}

/// A build that was refused: not tried again until the file changes, or where it may do better later, a few times.
#[derive(Debug, Clone, Copy)]
struct Tried {
    digest: Digest,
    tries: u32,
    most: u32,
}

/// How often a build is tried that failed for what may pass; the files are looked at again every 30 s.
const TRIES: u32 = 5;

impl Watched {
    /// As it is, for another list of plugins.
    fn carried(&self) -> Self {
        let (wanted, unreadable) = (self.wanted.clone(), self.unreadable.clone());
        Self { wanted, live: self.live, refused: self.refused, unreadable, number: self.number }
    }
}

/// Watches the plugins' files.
pub struct Registry {
    sandbox: Sandbox,
    plugins: Vec<Watched>,
    /// The last generation of plugins that the settings do not name any more: where they are named again they go on counting.
    gone: HashMap<String, u64>,
    proposals: mpsc::Sender<Proposal>,
    orders: Option<mpsc::Receiver<Order>>,
    board: Arc<Board>,
}

impl Registry {
    /// Proposals go to `proposals`; what is refused, to the board and the log.
    #[must_use]
    pub fn new(sandbox: Sandbox, plugins: Vec<Wanted>, proposals: mpsc::Sender<Proposal>, board: Arc<Board>) -> Self {
        let plugins = plugins
            .into_iter()
            .map(|wanted| Watched { wanted, live: None, refused: None, unreadable: None, number: 0 })
            .collect();
        Self { sandbox, plugins, gone: HashMap::new(), proposals, orders: None, board }
    }

    /// Does what is ordered, too.
    #[must_use]
    pub fn taking(mut self, orders: mpsc::Receiver<Order>) -> Self {
        self.orders = Some(orders);
        self
    }

    /// Loads every plugin, then each new build of it, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let paths = self.plugins.iter().map(|plugin| plugin.wanted.plugin.path.clone()).collect();
        // Watched first, read then: what changes in between is noticed.
        let mut watch = Watch::new(paths).await;
        let mut changed: Vec<usize> = (0..self.plugins.len()).collect();
        loop {
            for index in changed {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.look(index) => {}
                }
            }
            let order = tokio::select! {
                () = stop.cancelled() => return,
                order = ordered(&mut self.orders) => order,
                looked = watch.changed() => {
                    changed = looked;
                    continue;
                }
            };
            changed = Vec::new();
            let obeyed = tokio::select! {
                () = stop.cancelled() => return,
                obeyed = self.obey(order) => obeyed,
            };
            watch = obeyed.unwrap_or(watch);
        }
    }

    /// Looks at one plugin's file, and loads it where it is a build that was not seen yet.
    #[expect(clippy::disallowed_methods, reason = "it is awaited here")]
    async fn look(&mut self, index: usize) {
        let watched = &self.plugins[index];
        let path = watched.wanted.plugin.path.clone();
        let (live, refused) = (watched.live, watched.refused);
        // Off the threads that poll: a file may lie on a slow disk, and compiling takes as long as it takes.
        let read = tokio::task::spawn_blocking(move || load::read(&path)).await;
        let file = match read {
            Ok(Ok(file)) => file,
            Ok(Err(refusal)) => return self.unreadable(index, &refusal),
            Err(_) => return tracing::error!("reading a plugin's file panicked"),
        };
        let watched = &mut self.plugins[index];
        watched.unreadable = None;
        if live == Some(file.digest) {
            watched.refused = None;
            return;
        }
        if refused.is_some_and(|refused| refused.digest == file.digest && refused.tries >= refused.most) {
            return;
        }
        let (sandbox, wanted, number) = (self.sandbox.clone(), watched.wanted.clone(), watched.number + 1);
        let digest = file.digest;
        tracing::debug!(plugin = wanted.name, %digest, "a new build was found");
        let loaded = tokio::task::spawn_blocking(move || load::load(&sandbox, &wanted, &file, number)).await;
        match loaded {
            Ok(Ok(generation)) => {
                watched.number = number;
                watched.live = Some(digest);
                watched.wanted.before = Some(generation.manifest_name().to_owned());
                watched.refused = None;
                // The gateway ends after the registry; without it there is nobody to tell.
                let _ = self.proposals.send(Proposal { generation: Arc::new(generation) }).await;
            }
            Ok(Err(refusal)) => self.refused(index, Some(digest), &refusal),
            Err(_) => {
                let reason = crate::sandbox::Problem::Host("the engine panicked; see the log".to_owned());
                self.refused(index, Some(digest), &Refusal { step: Step::Compiled, problem: reason });
            }
        }
    }

    /// A vanished file changes nothing for a live plugin: the settings name it, so it stays live.
    fn unreadable(&mut self, index: usize, refusal: &Refusal) {
        let reason = refusal.problem.to_string();
        let watched = &mut self.plugins[index];
        if watched.unreadable.as_ref() == Some(&reason) {
            return;
        }
        watched.unreadable = Some(reason);
        if watched.live.is_some() && refusal.problem.is_absence() {
            let path = watched.wanted.plugin.path.display();
            tracing::warn!(plugin = watched.wanted.name, %path, "the plugin's file is gone; the live build goes on");
            return;
        }
        self.refused(index, None, refusal);
    }

    fn refused(&mut self, index: usize, digest: Option<Digest>, refusal: &Refusal) {
        let watched = &mut self.plugins[index];
        let before = watched.refused.filter(|before| Some(before.digest) == digest).map_or(0, |before| before.tries);
        let most = if refusal.problem.may_pass() { TRIES } else { 1 };
        watched.refused = digest.map(|digest| Tried { digest, tries: before + 1, most });
        let name = &watched.wanted.name;
        let remaining = if watched.live.is_some() { "the live build goes on" } else { "the plugin is missing" };
        tracing::error!(
            plugin = name,
            digest = digest.map(tracing::field::display),
            step = %refusal.step,
            reason = %refusal.problem,
            path = %watched.wanted.plugin.path.display(),
            "a build was refused; {remaining}"
        );
        self.board.plugin_refused(
            name,
            Refused {
                digest: digest.map(|digest| digest.to_string()),
                step: refusal.step.to_string(),
                reason: refusal.problem.to_string(),
                at: clock::now(),
            },
        );
    }
}

/// The next order; without anybody to give one, never.
async fn ordered(orders: &mut Option<mpsc::Receiver<Order>>) -> Order {
    match orders {
        Some(receiver) => match receiver.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
