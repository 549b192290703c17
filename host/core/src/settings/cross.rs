//! What no key can be wrong about alone: lists that must not be one, a flow that feeds itself, a plugin in two roles.

use super::error::SettingsError;
use super::resolved::Settings;

/// Every mistake between keys.
pub(super) fn check(settings: &Settings) -> Vec<SettingsError> {
    let mut errors = Vec::new();
    let mut wrong = |key: String, message: String| errors.push(SettingsError { place: None, key, message });
    let queues = &settings.queues;
    if let Some(results) = &queues.command_results
        && [&queues.incoming, &queues.outgoing, &queues.dead_letters].contains(&results)
    {
        wrong("queues.command_results".to_owned(), "must be a list of its own".to_owned());
    }
    for (index, route) in settings.routes.iter().enumerate() {
        let at = |key: &str| format!("routes[{index}].{key}");
        if route.queue == queues.outgoing {
            wrong(at("queue"), "is queues.outgoing: its jobs would be taken for commands".to_owned());
        }
        if route.queue == queues.dead_letters {
            wrong(at("queue"), "is queues.dead_letters, of which only the newest entries are kept".to_owned());
        }
        if route.dedupe.is_some() && route.queue.contains(['{', '}']) {
            wrong(
                at("queue"),
                "must hold no braces where `dedupe` is set: they are what a Redis cluster places keys by".to_owned(),
            );
        }
        if route.topic.overlaps(settings.commands.topic.pattern()) {
            let message = format!(
                "takes topics of commands.topic (`{}`): commands would come back as jobs",
                settings.commands.topic
            );
            wrong(at("topic"), message);
        }
        if let Some(validator) = settings.commands.validator.as_ref().filter(|name| route.handlers.contains(name)) {
            let message = format!(
                "`{validator}` is commands.validator, and a plugin has one world: it cannot handle messages too"
            );
            wrong(at("handlers"), message);
        }
    }
    errors
}
