//! One snapshot of settings, routes and chains, swapped whole: a message keeps the one that its first attempt began with.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use sluicegate_core::canary::Machines;
use sluicegate_core::compared::Sum;
use sluicegate_core::keys::Keys;
use sluicegate_core::route::Routes;
use sluicegate_core::settings::{Route, Settings, UtcOffset};

use crate::sandbox::Generation;

/// What a message is handled with.
#[derive(Clone)]
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
    validator: Option<Arc<Generation>>,
    /// Builds that serve some machines in place of the live one, by plugin; hardly ever is there one.
    canaries: IndexMap<String, Canary>,
    names: Arc<[Arc<str>]>,
    queues: Arc<[Arc<str>]>,
    once: Arc<[Option<(String, Duration)>]>,
    dead_letters: Arc<str>,
    plugins: IndexMap<String, Arc<Generation>>,
}

/// A route's handlers, in their order.
pub type Chain = Arc<[Arc<Generation>]>;

/// A build that serves some machines before it serves all.
#[derive(Clone)]
pub struct Canary {
    /// It.
    pub build: Arc<Generation>,
    /// Whose messages it handles.
    pub machines: Machines,
    /// Since when.
    pub since: Instant,
    /// What the live build's calls had come to then.
    pub before: Sum,
}

/// Where the current snapshot is.
pub type Current = Arc<ArcSwap<Live>>;

impl Live {
    /// The first one, once every plugin that the settings name is loaded; else the names of those that are missing.
    ///
    /// # Errors
    /// The names of the plugins that are missing.
    pub fn new(settings: Arc<Settings>, plugins: IndexMap<String, Arc<Generation>>) -> Result<Self, Vec<String>> {
        Self::of(1, settings, Vec::new(), plugins, IndexMap::new())
    }

    fn of(
        number: u64,
        settings: Arc<Settings>,
        older: Vec<Route>,
        plugins: IndexMap<String, Arc<Generation>>,
        canaries: IndexMap<String, Canary>,
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
            canaries,
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
        let (mut plugins, mut canaries) = (self.plugins.clone(), self.canaries.clone());
        for build in builds {
            plugins.insert(build.name().to_owned(), build.clone());
            // It was compared with another one.
            canaries.shift_remove(build.name());
        }
        plugins.retain(|name, _| {
            settings.plugins.contains_key(name) || older.iter().any(|route| route.handlers.contains(name))
        });
        canaries.retain(|name, canary| {
            let Some(plugin) = settings.plugins.get(name) else { return false };
            // Where the settings say nothing of it any more it is at its end, and serves the same machines until that is seen to.
            if let Some(rules) = &plugin.canary {
                canary.machines = rules.machines.clone();
            }
            true
        });
        Self::of(self.number + 1, settings, older, plugins, canaries)
    }

    /// The next one, without these routes that the settings do not name any more: nothing of them is left.
    #[must_use]
    pub fn without(&self, gone: &[String]) -> Option<Self> {
        let older = self.older().filter(|route| !gone.contains(&route.name)).cloned().collect::<Vec<_>>();
        let mut plugins = self.plugins.clone();
        plugins.retain(|name, _| {
            self.settings.plugins.contains_key(name) || older.iter().any(|route| route.handlers.contains(name))
        });
        Self::of(self.number + 1, self.settings.clone(), older, plugins, self.canaries.clone()).ok()
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

    /// Whether this one has the settings and routes of another, and only builds may be others.
    #[must_use]
    pub fn has_routes_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.settings, &other.settings) && Arc::ptr_eq(&self.routes, &other.routes)
    }

    /// The next one: a plugin's new build takes the place of the old one in every chain at once; as a canary it was before, it is none any
    /// more.
    #[must_use]
    pub fn with(&self, generation: &Arc<Generation>) -> Self {
        let mut plugins = self.plugins.clone();
        plugins.insert(generation.name().to_owned(), generation.clone());
        let mut canaries = self.canaries.clone();
        canaries.retain(|_, canary| {
            canary.build.number() != generation.number() || canary.build.name() != generation.name()
        });
        Self {
            chains: self.chains.iter().map(|chain| swapped(chain, generation)).collect(),
            validator: self.validator.as_ref().map(|old| swap(old, generation).clone()),
            plugins,
            ..self.with_canaries(canaries)
        }
    }

    /// The next one: a plugin's new build handles what comes of some machines, in the place of a canary that there was.
    #[must_use]
    pub fn with_canary(&self, generation: &Arc<Generation>) -> Self {
        let mut canaries = self.canaries.clone();
        let rules = self.settings.plugins.get(generation.name()).and_then(|plugin| plugin.canary.as_ref());
        // Where other settings came in force meanwhile, which say nothing of it, its time is over: whoever judges it looks for it here.
        let machines = rules.map(|rules| rules.machines.clone()).unwrap_or_default();
        let before = self.build(generation.name()).map(|live| live.sum()).unwrap_or_default();
        let canary = Canary { build: generation.clone(), machines, since: Instant::now(), before };
        canaries.insert(generation.name().to_owned(), canary);
        self.with_canaries(canaries)
    }

    /// The next one: the plugin's live build handles all messages again.
    #[must_use]
    pub fn without_canary(&self, plugin: &str) -> Self {
        let mut canaries = self.canaries.clone();
        canaries.shift_remove(plugin);
        self.with_canaries(canaries)
    }

    fn with_canaries(&self, canaries: IndexMap<String, Canary>) -> Self {
        Self { number: self.number + 1, canaries, ..self.clone() }
    }

    /// The handlers that the messages of a machine on a route go through: the same ones in this snapshot each time.
    #[must_use]
    pub fn chain(&self, route: usize, serial_no: &str) -> Cow<'_, [Arc<Generation>]> {
        let chain = &self.chains[route];
        if self.canaries.is_empty() {
            return Cow::Borrowed(chain);
        }
        let pick = |live: &Arc<Generation>| self.pick(live, serial_no).clone();
        Cow::Owned(chain.iter().map(pick).collect())
    }

    /// What checks the commands for a machine.
    #[must_use]
    pub fn validator(&self, target: &str) -> Option<&Arc<Generation>> {
        self.validator.as_ref().map(|live| self.pick(live, target))
    }

    /// A plugin's live build, or its canary where the machine is one of its.
    fn pick<'a>(&'a self, live: &'a Arc<Generation>, serial_no: &str) -> &'a Arc<Generation> {
        let canary = self.canaries.get(live.name()).filter(|canary| canary.machines.take(serial_no));
        canary.map_or(live, |canary| &canary.build)
    }

    /// The builds that serve some machines, by plugin.
    pub fn canaries(&self) -> impl Iterator<Item = (&str, &Canary)> {
        self.canaries.iter().map(|(name, canary)| (name.as_str(), canary))
    }

    /// Whether this build is a canary.
    #[must_use]
    pub fn is_canary(&self, generation: &Generation) -> bool {
        let canary = self.canaries.get(generation.name());
        canary.is_some_and(|canary| canary.build.number() == generation.number())
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

    /// The live build of each plugin.
    pub fn builds(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.plugins.values()
    }

    /// The plugins that fail at everything.
    pub fn broken(&self) -> impl Iterator<Item = &str> {
        self.plugins.values().filter(|generation| generation.is_broken()).map(|generation| generation.name())
    }

    /// The live build of a plugin.
    #[must_use]
    pub fn build(&self, plugin: &str) -> Option<&Arc<Generation>> {
        self.plugins.get(plugin)
    }

    /// Whether this build is its plugin's live one.
    #[must_use]
    pub fn is_live(&self, generation: &Generation) -> bool {
        self.plugins.get(generation.name()).is_some_and(|live| live.number() == generation.number())
    }

    /// Whether new messages are handled with this build: all, or some machines'.
    #[must_use]
    pub fn serves(&self, generation: &Generation) -> bool {
        self.is_live(generation) || self.is_canary(generation)
    }

    /// Every build that new messages are handled with.
    pub fn serving(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.plugins.values().chain(self.canaries.values().map(|canary| &canary.build))
    }
}

fn swap<'a>(old: &'a Arc<Generation>, new: &'a Arc<Generation>) -> &'a Arc<Generation> {
    if old.name() == new.name() { new } else { old }
}

/// A chain in which a plugin's other build stands.
#[must_use]
pub fn swapped(chain: &[Arc<Generation>], build: &Arc<Generation>) -> Chain {
    chain.iter().map(|old| swap(old, build).clone()).collect()
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
    use sluicegate_core::settings::{BUILT_IN, Grants, Limits, Outside, interpolate::Sources, read};
    use sluicegate_guests::Guest;

    use super::*;
    use crate::sandbox::tests::sandbox;

    fn settings(text: &str) -> Settings {
        let outside = Outside {
            sources: Sources { variable: &|_| Ok(None), file: &|_| Err(String::new()) },
            base: std::path::Path::new(""),
            built_in_plugin: &|name| name.into(),
        };
        read(Some(("test", text)), &outside).expect("good").settings
    }

    /// The registry may have begun one when settings came in force that say nothing of it: whoever judges canaries finds it, and that its time
    /// is over.
    #[test]
    fn a_canary_that_the_settings_say_nothing_of_is_there_and_serves_nobody() {
        let text = "[plugins.guest]\npath = \"guest.wasm\"\n[[routes]]\nname = \"a\"\ntopic = \"a/{serial_no}\"\nhandlers = [\"guest\"]\n";
        let build = |number| {
            let (component, limits, grants) = (Guest::echo().handler(), Limits::default(), Grants::default());
            let built = sandbox().compile(&component, IndexMap::new(), limits, &grants, "guest", number);
            Arc::new(built.expect("it compiles"))
        };
        let plugins = IndexMap::from([("guest".to_owned(), build(1))]);
        let live = Live::new(Arc::new(settings(text)), plugins).expect("all plugins are there");
        let with = live.with_canary(&build(2));
        let canaries: Vec<_> = with.canaries().map(|(name, canary)| (name, canary.build.number())).collect();
        assert_eq!(canaries, [("guest", 2)]);
        assert_eq!(with.chain(0, "M-1")[0].number(), 1);
    }

    fn route(name: &str, topic: &str, attempts: u32) -> Route {
        let some = settings(BUILT_IN).routes[0].clone();
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
