//! Topic → route: the first in the file that matches takes the message.

use crate::envelope::EnvelopeWriter;
use crate::message::Field;
use crate::settings::Route;

/// The capture that names the machine.
pub const SERIAL_NO: &str = "serial_no";

/// A route and what is derived from it once.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// As in the settings.
    pub route: Route,
    /// Writes its envelopes.
    pub envelope: EnvelopeWriter,
}

/// The routes, in the file's order.
#[derive(Debug, Clone)]
pub struct Routes {
    routes: Vec<Prepared>,
}

impl Routes {
    /// From the settings.
    #[must_use]
    pub fn new(routes: &[Route]) -> Self {
        let routes = routes
            .iter()
            .map(|route| Prepared { route: route.clone(), envelope: EnvelopeWriter::new(&route.kind) })
            .collect();
        Self { routes }
    }

    /// The route that takes a topic: its place in the file, and what its named levels are.
    #[must_use]
    pub fn find(&self, topic: &str) -> Option<(usize, Vec<Field>)> {
        self.routes.iter().enumerate().find_map(|(index, prepared)| Some((index, prepared.route.topic.matches(topic)?)))
    }

    /// The route at a place in the file.
    #[must_use]
    pub fn get(&self, index: usize) -> &Prepared {
        &self.routes[index]
    }

    /// All of them, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Prepared> {
        self.routes.iter()
    }
}
