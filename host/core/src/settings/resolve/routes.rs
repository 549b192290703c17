//! `[[routes]]`: each by itself, and against those before it.

use super::Resolver;
use crate::settings::Effective;
use crate::settings::resolved::{OnFailure, Priority, Route, WhenBehind};
use crate::settings::written;
use crate::topic::TopicPattern;

/// Of shared subscriptions [MQTT-4.8.2-1], and of EMQX's older word for them.
const SHARED: [&str; 2] = ["$share/", "$queue/"];

impl Resolver<'_> {
    pub(super) fn routes(&mut self, written: &[written::Route], incoming: &str, plugins: &[&str]) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        for (index, written) in written.iter().enumerate() {
            let Some(route) = self.route(index, written, incoming, plugins) else { continue };
            let path = format!("routes[{index}]");
            if routes.iter().any(|other| other.name == route.name) {
                let message = format!("`{}` is the name of another route; names are unique", route.name);
                self.wrong(None, &format!("{path}.name"), message);
            }
            if route.when_behind == WhenBehind::Latest && route.priority != Priority::Low {
                self.warnings.push(format!(
                    "{path}.when_behind: has no effect without priority = \"low\": all messages of this route are kept"
                ));
            }
            if let Some(first) = routes.iter().find(|other| other.topic.covers(&route.topic)) {
                let message = format!(
                    "`{}` can never match: route `{}` stands before it and takes every topic of it; put it before",
                    route.topic, first.name
                );
                self.wrong(None, &format!("{path}.topic"), message);
            } else if let Some(first) = routes.iter().find(|other| other.topic.overlaps(&route.topic)) {
                self.warnings.push(format!(
                    "{path}.topic: some topics match route `{}` too, which stands first and takes them; a broker may \
                     deliver them once for each subscription",
                    first.name
                ));
            }
            routes.push(route);
        }
        routes
    }

    pub(super) fn route(
        &mut self,
        index: usize,
        written: &written::Route,
        incoming: &str,
        plugins: &[&str],
    ) -> Option<Route> {
        let path = format!("routes[{index}]");
        let own = &written.own;
        for key in ["name", "topic", "handlers"] {
            if !own.contains_key(key) {
                self.wrong(
                    written.place.clone(),
                    &format!("{path}.{key}"),
                    "is missing; a route needs name, topic and handlers",
                );
            }
        }
        let name = self.word(own, "routes", "name", &path, 64);
        let kind = self.word(own, "routes", "type", &path, 64);
        let topic = self.find(own, "routes", "topic", &path);
        let topic = topic.and_then(|found| {
            let pattern = TopicPattern::parse(found.texts.first()?);
            let problem = match &pattern {
                Err(error) => Some(error.to_string()),
                // What is subscribed to with such a prefix comes on topics without it, so nothing would match; and it would
                // spread one machine's messages over several gateways, out of order.
                Ok(pattern) if SHARED.iter().any(|prefix| pattern.as_str().starts_with(prefix)) => Some(
                    "must not be a shared subscription: it would spread a machine's messages over gateways, out of order; \
                     leave out what stands before the topic itself"
                        .to_owned(),
                ),
                Ok(pattern) if !pattern.captures().any(|name| name == crate::route::SERIAL_NO) => {
                    Some("must hold `{serial_no}` as a level: it says which machine a message is from".to_owned())
                }
                Ok(_) => None,
            };
            match problem {
                Some(problem) => {
                    self.misread(&found, problem);
                    None
                }
                None => pattern.ok(),
            }
        });
        let handlers = self.find(own, "routes", "handlers", &path).map(|found| {
            for handler in &found.texts {
                self.known(handler, plugins, &found);
            }
            found.texts
        });
        let queue = self.word(own, "routes", "queue", &path, 256);
        let qos = self.integer(own, "routes", "qos", &path);
        let attempts = self.integer(own, "routes", "attempts", &path);
        let on_failure = self.choice(
            own,
            "on_failure",
            &path,
            &[
                ("dead-letter", OnFailure::DeadLetter),
                ("drop", OnFailure::Drop),
                ("block", OnFailure::Block),
                ("pass-through", OnFailure::PassThrough),
            ],
        );
        let dedupe = self.duration(own, "routes", "dedupe", &path);
        let priority = self.choice(own, "priority", &path, &[("normal", Priority::Normal), ("low", Priority::Low)]);
        let when_behind =
            self.choice(own, "when_behind", &path, &[("all", WhenBehind::All), ("latest", WhenBehind::Latest)]);
        let name = name?;
        let mut left_out = |key: &str, text: &str, why: &str| {
            if !own.contains_key(key) {
                self.effective.push(Effective::derived(&format!("{path}.{key}"), text, why));
            }
        };
        left_out("type", &name, "the route's name");
        left_out("queue", incoming, "queues.incoming");
        Some(Route {
            kind: kind.unwrap_or_else(|| name.clone()),
            name,
            topic: topic?,
            handlers: handlers?,
            queue: queue.unwrap_or_else(|| incoming.to_owned()),
            qos: u8::try_from(qos?).ok()?,
            attempts: u32::try_from(attempts?).ok()?,
            on_failure: on_failure?,
            dedupe,
            priority: priority?,
            when_behind: when_behind?,
        })
    }
}
