//! One snapshot of settings, routes and chains, swapped whole: a message keeps the one that it began with.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use sluicegate_core::keys::Keys;
use sluicegate_core::route::Routes;
use sluicegate_core::settings::{Settings, UtcOffset};

use crate::sandbox::Generation;

/// What a message is handled with.
pub struct Live {
    /// Grows with each swap.
    pub number: u64,
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// Topic → route.
    pub routes: Arc<Routes>,
    /// Each route's handlers, in the routes' order.
    pub chains: Vec<Chain>,
    /// Checks commands, where one is set.
    pub validator: Option<Arc<Generation>>,
    names: Arc<[Arc<str>]>,
    queues: Arc<[Arc<str>]>,
    once: Arc<[Option<(String, Duration)>]>,
    dead_letters: Arc<str>,
    plugins: IndexMap<String, Arc<Generation>>,
}

/// A route's handlers, in their order.
pub type Chain = Arc<[Arc<Generation>]>;

/// Where the current snapshot is.
pub type Current = Arc<ArcSwap<Live>>;

impl Live {
    /// The first one, once every plugin that the settings name is loaded; else the names of those that are missing.
    ///
    /// # Errors
    /// The names of the plugins that are missing.
    pub fn new(settings: Arc<Settings>, plugins: IndexMap<String, Arc<Generation>>) -> Result<Self, Vec<String>> {
        let needed = settings.routes.iter().flat_map(|route| &route.handlers).chain(&settings.commands.validator);
        let missing: Vec<String> = needed.filter(|name| !plugins.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        let chains = settings
            .routes
            .iter()
            .map(|route| route.handlers.iter().filter_map(|name| plugins.get(name).cloned()).collect())
            .collect();
        let validator = settings.commands.validator.as_ref().and_then(|name| plugins.get(name).cloned());
        let keys = Keys::new(&settings.redis, &settings.queues, &settings.gateway.instance);
        let queues = settings.routes.iter().map(|route| keys.queue(&route.queue).into()).collect();
        let once = settings.routes.iter().map(|route| Some((keys.once(&route.queue, &route.name), route.dedupe?)));
        Ok(Self {
            number: 1,
            names: settings.routes.iter().map(|route| route.name.as_str().into()).collect(),
            once: once.collect(),
            dead_letters: keys.dead_letters.as_str().into(),
            routes: Arc::new(Routes::new(&settings.routes)),
            settings,
            chains,
            validator,
            queues,
            plugins,
        })
    }

    /// The next one: a plugin's new build takes the place of the old one in every chain at once.
    #[must_use]
    pub fn with(&self, generation: &Arc<Generation>) -> Self {
        let mut plugins = self.plugins.clone();
        plugins.insert(generation.name().to_owned(), generation.clone());
        let swap =
            |old: &Arc<Generation>| if old.name() == generation.name() { generation.clone() } else { old.clone() };
        Self {
            number: self.number + 1,
            settings: self.settings.clone(),
            routes: self.routes.clone(),
            names: self.names.clone(),
            once: self.once.clone(),
            dead_letters: self.dead_letters.clone(),
            chains: self.chains.iter().map(|chain| chain.iter().map(swap).collect()).collect(),
            validator: self.validator.as_ref().map(swap),
            queues: self.queues.clone(),
            plugins,
        }
    }

    /// The whole key of the list that a route's jobs go to.
    #[must_use]
    pub fn queue(&self, route: usize) -> Arc<str> {
        self.queues[route].clone()
    }

    /// The name of a route.
    #[must_use]
    pub fn route_name(&self, route: usize) -> Arc<str> {
        self.names[route].clone()
    }

    /// The place of a route.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| **other == *name)
    }

    /// What stands before a route's idempotency keys in Redis, and how long they are remembered, where they are.
    #[must_use]
    pub fn once(&self, route: usize) -> Option<(&str, Duration)> {
        self.once[route].as_ref().map(|(prefix, for_)| (prefix.as_str(), *for_))
    }

    /// The whole key of the dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> Arc<str> {
        self.dead_letters.clone()
    }

    /// The offset of times that people read.
    #[must_use]
    pub fn zone(&self) -> UtcOffset {
        self.settings.gateway.time_zone
    }

    /// The build of each plugin that new messages are handled with.
    pub fn builds(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.plugins.values()
    }

    /// The plugins that fail at everything.
    pub fn broken(&self) -> impl Iterator<Item = &str> {
        self.plugins.values().filter(|generation| generation.is_broken()).map(|generation| generation.name())
    }

    /// Whether this build is the one that new messages are handled with.
    #[must_use]
    pub fn serves(&self, generation: &Generation) -> bool {
        self.plugins.get(generation.name()).is_some_and(|live| live.number() == generation.number())
    }
}
