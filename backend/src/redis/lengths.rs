//! How long lists are, for whoever watches them.

use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::lists::ListKeys;

/// Looks, on a connection of its own.
pub struct Lengths {
    line: Line,
    /// Names as the settings have them, and whole keys: lists, then what this instance has under way.
    lists: Vec<(String, String)>,
    processing: Vec<(String, String)>,
}

/// What there was, by the settings' names.
#[derive(Debug, Default)]
pub struct Found {
    /// Entries of lists.
    pub lists: Vec<(String, u64)>,
    /// Entries that this instance has taken and not finished.
    pub processing: Vec<(String, u64)>,
}

impl Lengths {
    /// Of lists by their names; of those in `taken` also what an instance has under way.
    #[must_use]
    pub fn new(connector: Connector, prefix: &str, lists: &[&str], taken: &[&str], instance: &str) -> Self {
        let key = |name: &str| format!("{prefix}{name}");
        let processing = |name: &&str| ((*name).to_owned(), ListKeys::new(key(name)).processing(instance));
        Self {
            line: Line::new(connector),
            lists: lists.iter().map(|name| ((*name).to_owned(), key(name))).collect(),
            processing: taken.iter().map(processing).collect(),
        }
    }

    /// All of them, in one round trip.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn look(&mut self) -> Result<Found, RedisFault> {
        let mut pipeline = redis::pipe();
        for (_, key) in self.lists.iter().chain(&self.processing) {
            pipeline.cmd("LLEN").arg(key);
        }
        let lengths = pipeline.query_async::<Vec<u64>>(self.line.get().await?).await;
        let mut lengths = self.line.heard("a list of [queues]", lengths)?.into_iter();
        let mut named = |names: &[(String, String)]| {
            names.iter().filter_map(|(name, _)| Some((name.clone(), lengths.next()?))).collect()
        };
        Ok(Found { lists: named(&self.lists), processing: named(&self.processing) })
    }
}
