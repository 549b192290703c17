//! `[[routes]]`: each by itself, and against those before it.

use indexmap::IndexMap;

use super::Resolver;
use crate::settings::resolved::{OnFailure, Plugin, Priority, Route, WhenBehind};
use crate::settings::written;
use crate::topic::TopicPattern;

impl Resolver<'_> {
    pub(super) fn routes(
        &mut self,
        written: &[written::Route],
        incoming: &str,
        plugins: &IndexMap<String, Plugin>,
    ) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        let mut unread = false;
        for (index, written) in written.iter().enumerate() {
            match self.route(index, written, incoming, plugins) {
                Some(route) => {
                    let path = format!("routes[{index}]");
                    if routes.iter().any(|other| other.name == route.name) {
                        let message = format!("`{}` is the name of another route; names are unique", route.name);
                        self.wrong(written.place.clone(), &format!("{path}.name"), message);
                    }
                    if let Some(first) = routes.iter().find(|other| other.topic.covers(&route.topic)) {
                        let message = format!(
                            "`{}` can never match: route `{}` stands before it and takes every topic of it; put it before",
                            route.topic, first.name
                        );
                        self.wrong(written.place.clone(), &format!("{path}.topic"), message);
                    } else if let Some(first) = routes.iter().find(|other| other.topic.overlaps(&route.topic)) {
                        self.warnings.push(format!(
                            "{path}.topic: some topics match route `{}` too, which stands first and takes them; a broker may \
                             deliver them once for each subscription",
                            first.name
                        ));
                    }
                    routes.push(route);
                }
                None => unread = true,
            }
        }
        if routes.is_empty() && !unread {
            self.wrong(None, "routes", "there is none; write at least one `[[routes]]` with name, topic and handlers");
        }
        routes
    }

    pub(super) fn route(
        &mut self,
        index: usize,
        written: &written::Route,
        incoming: &str,
        plugins: &IndexMap<String, Plugin>,
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
                Ok(pattern) if !pattern.captures().any(|name| name == crate::route::SERIAL_NO) => {
                    Some("must hold `{serial_no}` as a level: it says which machine a message is from".to_owned())
                }
                Ok(_) => None,
            };
            match problem {
                Some(problem) => {
                    self.wrong(found.place, &found.path, problem);
                    None
                }
                None => pattern.ok(),
            }
        });
        let handlers = self.texts(own, "routes", "handlers", &path).map(|(handlers, place)| {
            for handler in &handlers {
                self.known(handler, plugins, place.clone(), &format!("{path}.handlers"));
            }
            handlers
        });
        let queue = self.word(own, "routes", "queue", &path, 256).unwrap_or_else(|| incoming.to_owned());
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
        Some(Route {
            kind: kind.unwrap_or_else(|| name.clone()),
            name,
            topic: topic?,
            handlers: handlers?,
            queue,
            qos: u8::try_from(qos?).ok()?,
            attempts: u32::try_from(attempts?).ok()?,
            on_failure: on_failure?,
            dedupe,
            priority: priority?,
            when_behind: when_behind?,
        })
    }
}
