//! One snapshot of settings, routes and chains, swapped whole: a message keeps the one that it began with.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use sluicegate_core::keys::Keys;
use sluicegate_core::route::Routes;
use sluicegate_core::settings::{Route, Settings, UtcOffset};

use crate::sandbox::Generation;

/// What a message is handled with.
pub struct Live {
    /// Grows with each swap.
    pub number: u64,
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// Topic → route: those of the settings, then what is left of older ones ([`Live::next`]).
    pub routes: Arc<Routes>,
    /// Each route's handlers, in the order of `routes`.
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
        Self::of(1, settings, Vec::new(), plugins)
    }

    fn of(
        number: u64,
        settings: Arc<Settings>,
        older: Vec<Route>,
        plugins: IndexMap<String, Arc<Generation>>,
    ) -> Result<Self, Vec<String>> {
        let needed = settings.routes.iter().chain(&older).flat_map(|route| &route.handlers);
        let needed = needed.chain(&settings.commands.validator);
        let missing: Vec<String> = needed.filter(|name| !plugins.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        let routes: Vec<Route> = settings.routes.iter().cloned().chain(older).collect();
        let chain = |route: &Route| route.handlers.iter().filter_map(|name| plugins.get(name).cloned()).collect();
        let chains = routes.iter().map(chain).collect();
        let validator = settings.commands.validator.as_ref().and_then(|name| plugins.get(name).cloned());
        let keys = Keys::new(&settings.redis, &settings.queues, &settings.gateway.instance);
        let queues = routes.iter().map(|route| keys.queue(&route.queue).into()).collect();
        let once = routes.iter().map(|route| Some((keys.once(&route.queue, &route.name), route.dedupe?)));
        Ok(Self {
            number,
            names: routes.iter().map(|route| route.name.as_str().into()).collect(),
            once: once.collect(),
            dead_letters: keys.dead_letters.as_str().into(),
            routes: Arc::new(Routes::new(&routes)),
            settings,
            chains,
            validator,
            queues,
            plugins,
        })
    }

    /// The next one, by other settings, with new builds of some plugins.
    ///
    /// What comes by an older subscription, or is parked, is handled to its end: so a route that the settings do not name any more stays
    /// behind the others, with its handlers, until [`Live::without`] lets it go; and a route with another topic stays with its older
    /// topics too, all else as it is now.
    ///
    /// # Errors
    /// The names of the plugins that are missing.
    pub fn next<'a>(
        &self,
        settings: Arc<Settings>,
        builds: impl Iterator<Item = &'a Arc<Generation>>,
    ) -> Result<Self, Vec<String>> {
        let older = older(self.routes.iter().map(|prepared| &prepared.route), &settings.routes);
        let mut plugins = self.plugins.clone();
        for build in builds {
            plugins.insert(build.name().to_owned(), build.clone());
        }
        plugins.retain(|name, _| {
            settings.plugins.contains_key(name) || older.iter().any(|route| route.handlers.contains(name))
        });
        Self::of(self.number + 1, settings, older, plugins)
    }

    /// The next one, without these routes that the settings do not name any more: nothing of them is left.
    #[must_use]
    pub fn without(&self, gone: &[String]) -> Option<Self> {
        let older = self.older().filter(|route| !gone.contains(&route.name)).cloned().collect::<Vec<_>>();
        let mut plugins = self.plugins.clone();
        plugins.retain(|name, _| {
            self.settings.plugins.contains_key(name) || older.iter().any(|route| route.handlers.contains(name))
        });
        Self::of(self.number + 1, self.settings.clone(), older, plugins).ok()
    }

    fn older(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().skip(self.settings.routes.len()).map(|prepared| &prepared.route)
    }

    /// The routes that the settings do not name any more, and that are not let go yet.
    #[must_use]
    pub fn leaving(&self) -> Vec<String> {
        let named = |name: &String| self.settings.routes.iter().any(|route| route.name == *name);
        let mut leaving: Vec<String> =
            self.older().map(|route| route.name.clone()).filter(|name| !named(name)).collect();
        leaving.dedup();
        leaving
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

    /// The number of a plugin's build that is live.
    #[must_use]
    pub fn generation(&self, plugin: &str) -> Option<u64> {
        self.plugins.get(plugin).map(|generation| generation.number())
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

    /// The place of a route for a message of this topic: it may have come by an older topic of the route.
    #[must_use]
    pub fn route(&self, name: &str, topic: &str) -> Option<usize> {
        let mut places = self.names.iter().enumerate().filter(|(_, other)| ***other == *name).map(|(place, _)| place);
        let first = places.clone().next();
        places.find(|place| self.routes.get(*place).route.topic.matches(topic).is_some()).or(first)
    }

    /// Whether there is a route of this name.
    #[must_use]
    pub fn route_named(&self, name: &str) -> bool {
        self.names.iter().any(|other| **other == *name)
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

/// How many older topics of one route are known: what came by one is handled as long as it may be somewhere, and nobody changes a
/// topic so often.
const OLDER_TOPICS: usize = 8;

/// What stays behind the new routes: of each route that had another topic, its older ones; of each that is not there any more, all.
fn older<'a>(before: impl Iterator<Item = &'a Route>, now: &[Route]) -> Vec<Route> {
    let mut older: Vec<Route> = Vec::new();
    for route in before {
        let stays = match now.iter().find(|new| new.name == route.name) {
            Some(new) => Route { topic: route.topic.clone(), ..new.clone() },
            None => route.clone(),
        };
        let known = |other: &Route| other.name == stays.name && other.topic == stays.topic;
        let count = older.iter().filter(|other| other.name == stays.name).count();
        if !now.iter().any(known) && !older.iter().any(known) && count < OLDER_TOPICS {
            older.push(stays);
        }
    }
    older
}

#[cfg(test)]
mod tests {
    use sluicegate_core::settings::{BUILT_IN, Outside, interpolate::Sources, read};

    use super::*;

    fn route(name: &str, topic: &str, attempts: u32) -> Route {
        let outside = Outside {
            sources: Sources { variable: &|_| Ok(None), file: &|_| Err(String::new()) },
            base: std::path::Path::new(""),
            built_in_plugin: &|name| name.into(),
        };
        let some = read(Some(("built-in", BUILT_IN)), &outside).expect("good").settings.routes[0].clone();
        let topic = sluicegate_core::topic::TopicPattern::parse(topic).expect("a topic");
        Route { name: name.to_owned(), topic, attempts, ..some }
    }

    #[track_caller]
    fn check(before: &[Route], now: &[Route], expected: &[(&str, &str, u32)]) -> Vec<Route> {
        let older = older(before.iter(), now);
        let shown: Vec<_> =
            older.iter().map(|route| (route.name.clone(), route.topic.to_string(), route.attempts)).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, topic, attempts)| ((*name).to_owned(), (*topic).to_owned(), *attempts))
            .collect();
        assert_eq!(shown, expected);
        now.iter().cloned().chain(older).collect()
    }

    #[test]
    fn what_may_still_come_for_a_route_stays_known() {
        let first = [route("a", "a/{serial_no}", 1), route("b", "b/{serial_no}", 1)];
        check(&first, &first, &[]);
        // Another topic: what came by the first is handled as the route is now.
        let moved = [route("a", "a2/{serial_no}", 2), route("b", "b/{serial_no}", 1)];
        let live = check(&first, &moved, &[("a", "a/{serial_no}", 2)]);
        // And back, and without the other, which stays as it was.
        let back = [route("a", "a/{serial_no}", 3)];
        let live = check(&live, &back, &[("a", "a2/{serial_no}", 3), ("b", "b/{serial_no}", 1)]);
        // It comes again: nothing of the old one is left but its topic.
        let again = [route("a", "a/{serial_no}", 3), route("b", "b2/{serial_no}", 4)];
        check(&live, &again, &[("a", "a2/{serial_no}", 3), ("b", "b/{serial_no}", 4)]);
        // Somebody who changes it all the time does not fill the memory.
        let mut live = vec![route("a", "t/{serial_no}", 1)];
        for number in 0..100 {
            let now = [route("a", &format!("t{number}/{{serial_no}}"), 1)];
            let older = older(live.iter(), &now);
            live = now.into_iter().chain(older).collect();
        }
        assert_eq!(live.len(), 1 + OLDER_TOPICS);
        assert_eq!(live[1].topic.to_string(), "t98/{serial_no}");
    }
}
