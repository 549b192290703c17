//! Other settings: what changes in their plugins is loaded through all steps before anything else changes. One refusal, and all stays
//! as it is.

use std::collections::HashMap;
use std::sync::Arc;

use sluicegate_core::settings::Settings;
use tokio::sync::oneshot;

use super::{Registry, Wanted, Watched, load, wanted};
use crate::sandbox::{Generation, Problem, Refusal, Step};
use crate::watch::Watch;

/// What became of an order: the builds that it needed, or why there are none, a sentence for each plugin.
pub type Ordered = Result<Vec<Arc<Generation>>, Vec<String>>;

/// Load what these settings name and the registry does not have.
pub struct Order {
    wanted: Vec<Wanted>,
    answer: oneshot::Sender<Ordered>,
}

impl Order {
    /// The order, and where its answer comes. Once that is good the registry looks after these plugins and no others.
    #[must_use]
    pub fn of(settings: &Settings) -> (Self, oneshot::Receiver<Ordered>) {
        let (answer, answered) = oneshot::channel();
        (Self { wanted: wanted(settings), answer }, answered)
    }
}

impl Registry {
    /// Does what was ordered. Gives the watch of the plugins that there are then; none: they are those that there were.
    pub(super) async fn obey(&mut self, Order { wanted, answer }: Order) -> Option<Watch> {
        let paths = wanted.iter().map(|wanted| &wanted.plugin.path);
        // The watch of the same files goes on: it may have noticed something already.
        let watch = if paths.clone().eq(self.plugins.iter().map(|watched| &watched.wanted.plugin.path)) {
            None
        } else {
            // Watched first, read then: what changes in between is noticed.
            Some(Watch::new(paths.cloned().collect()).await)
        };
        let (mut plugins, mut builds, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let numbers: HashMap<&str, u64> =
            self.plugins.iter().map(|watched| (&*watched.wanted.name, watched.number)).collect();
        for mut wanted in wanted {
            let before = self.plugins.iter().find(|watched| watched.wanted.name == wanted.name);
            if let Some(before) = before
                && before.wanted.plugin == wanted.plugin
                && before.wanted.world == wanted.world
            {
                plugins.push(before.carried());
                continue;
            }
            // In another file another plugin may be meant.
            wanted.before = before
                .filter(|before| before.wanted.plugin.path == wanted.plugin.path)
                .and_then(|before| before.wanted.before.clone());
            let gone = self.gone.get(&wanted.name).copied().unwrap_or(0);
            let number = numbers.get(&*wanted.name).copied().unwrap_or(gone) + 1;
            match self.load(&wanted, number).await {
                Ok((generation, digest)) => {
                    wanted.before = Some(generation.manifest_name().to_owned());
                    plugins.push(Watched { wanted, live: Some(digest), refused: None, unreadable: None, number });
                    builds.push(generation);
                }
                Err(refusal) => refused.push(format!("plugin {}: {refusal}", wanted.name)),
            }
        }
        if !refused.is_empty() {
            // Who asked has given up.
            let _ = answer.send(Err(refused));
            return None;
        }
        for watched in std::mem::replace(&mut self.plugins, plugins) {
            self.gone.insert(watched.wanted.name, watched.number);
        }
        let _ = answer.send(Ok(builds));
        watch
    }

    #[expect(clippy::disallowed_methods, reason = "it is awaited here")]
    async fn load(
        &self,
        wanted: &Wanted,
        number: u64,
    ) -> Result<(Arc<Generation>, sluicegate_core::digest::Digest), Refusal> {
        let (sandbox, wanted) = (self.sandbox.clone(), wanted.clone());
        // Off the threads that poll, as every build is loaded.
        let loaded = tokio::task::spawn_blocking(move || {
            let file = load::read(&wanted.plugin.path)?;
            load::load(&sandbox, &wanted, &file, number).map(|generation| (Arc::new(generation), file.digest))
        });
        loaded.await.unwrap_or_else(|_| {
            let problem = Problem::Host("the engine panicked; see the log".to_owned());
            Err(Refusal { step: Step::Compiled, problem })
        })
    }
}
