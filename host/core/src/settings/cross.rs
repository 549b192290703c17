//! What no key can be wrong about alone: lists that must not be one, a flow that feeds itself, a plugin in two roles.

use super::resolved::{Limits, Plugin, Settings};

/// A mistake between two keys.
pub(super) struct Mistake {
    pub(super) key: String,
    /// The other one: it tells where the mistake is, where the file does not hold the first.
    pub(super) with: String,
    pub(super) message: String,
}

/// Every mistake between keys.
pub(super) fn check(settings: &Settings) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut wrong = |key: String, with: &str, message: String| {
        mistakes.push(Mistake { key, with: with.to_owned(), message });
    };
    let queues = &settings.queues;
    let lists = [
        ("queues.incoming", Some(&queues.incoming)),
        ("queues.outgoing", Some(&queues.outgoing)),
        ("queues.dead_letters", Some(&queues.dead_letters)),
        ("queues.command_results", queues.command_results.as_ref()),
    ];
    for (index, (key, list)) in lists.into_iter().enumerate() {
        if let Some((with, _)) = lists[..index].iter().find(|(_, other)| list.is_some() && *other == list) {
            wrong(key.to_owned(), with, format!("is the same list as {with}; it must be one of its own"));
        }
    }
    for (index, route) in settings.routes.iter().enumerate() {
        let at = |key: &str| format!("routes[{index}].{key}");
        // Where `queues.incoming` is one of these lists, that is said above.
        let own = route.queue != queues.incoming;
        if own && route.queue == queues.outgoing {
            wrong(
                at("queue"),
                "queues.outgoing",
                "is queues.outgoing: its jobs would be taken for commands".to_owned(),
            );
        }
        if own && route.queue == queues.dead_letters {
            wrong(
                at("queue"),
                "queues.dead_letters",
                "is queues.dead_letters, of which only the newest entries are kept".to_owned(),
            );
        }
        if route.dedupe.is_some() && route.queue.contains(['{', '}']) {
            wrong(
                at("queue"),
                &at("dedupe"),
                "must hold no braces where `dedupe` is set: they are what a Redis cluster places keys by".to_owned(),
            );
        }
        if route.topic.overlaps(settings.commands.topic.pattern()) {
            let message = format!(
                "takes topics of commands.topic (`{}`): commands would come back as jobs",
                settings.commands.topic
            );
            wrong(at("topic"), "commands.topic", message);
        }
        if let Some(validator) = settings.commands.validator.as_ref().filter(|name| route.handlers.contains(name)) {
            let message = format!(
                "`{validator}` is commands.validator, and a plugin has one world: it cannot handle messages too"
            );
            wrong(at("handlers"), "commands.validator", message);
        }
    }
    for (name, plugin) in &settings.plugins {
        for grant in &plugin.grants.publish {
            let mut wrong = |message: String| wrong(format!("plugins.{name}.grants.publish"), "routes", message);
            if let Some(route) = settings.routes.iter().find(|route| route.topic.overlaps(grant)) {
                wrong(format!(
                    "`{grant}` overlaps `{}` of the route `{}`: what the plugin publishes would come back as messages, and feed itself",
                    route.topic, route.name
                ));
            }
            let own: Vec<_> = settings.routes.iter().filter(|route| route.handlers.contains(name)).collect();
            let known = |level: &str| own.iter().any(|route| route.topic.captures().any(|own| own == level));
            if let Some(level) = grant.captures().find(|level| !own.is_empty() && !known(level)) {
                wrong(format!(
                    "`{grant}`: `{{{level}}}` stands for what the message's own topic has there, and no route of the plugin has it"
                ));
            }
        }
    }
    // Who comes first would have them all, and the others would wait.
    let places = |plugin: &Plugin| plugin.limits.instances * if plugin.canary.is_some() { 2 } else { 1 };
    let all: usize = settings.plugins.values().map(places).sum();
    if let Some((name, most)) = settings.plugins.iter().max_by_key(|(_, plugin)| places(plugin))
        && all > Limits::INSTANCES_OF_ALL
    {
        let key = format!("plugins.{name}.limits.instances");
        let message = format!(
            "all plugins together may have {} instances at once, and have {all} (a canary's come on top); this one has {}, more than any other",
            Limits::INSTANCES_OF_ALL,
            places(most)
        );
        wrong(key, &format!("plugins.{name}.path"), message);
    }
    mistakes
}
