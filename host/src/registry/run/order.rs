//! Other settings: what changes in their plugins is loaded through all steps before anything else changes. One refusal, and all stays
//! as it is.

use std::sync::Arc;

use sluicegate_core::lifecycle::Step;
use tokio::sync::oneshot;

use super::{Registry, Watched, blocking, build, files, show_path};
use crate::registry::desk::{Ordered, Ready};
use crate::registry::history::{What, Who};
use crate::registry::load::{self, File, Loaded};
use crate::registry::{Proposal, Source, Wanted};
use crate::sandbox::{Generation, Problem, Refusal};
use crate::watch::Watch;

/// A build that was loaded for an order: of the plugin at this place in it.
struct Built {
    place: usize,
    file: Arc<File>,
    source: Source,
    generation: Arc<Generation>,
}

impl Registry {
    /// Loads what is not loaded yet, and once the gateway has taken it, looks after these plugins and no others. Gives the watch of their
    /// files; none: they are those of before.
    pub(super) async fn obey(&mut self, mut wanted: Vec<Wanted>, answer: oneshot::Sender<Ordered>) -> Option<Watch> {
        let (paths, before) = (files(wanted.iter()), files(self.plugins.iter().map(|plugin| &plugin.wanted)));
        // The watch of the same files goes on: it may have noticed something already. Another one watches first, and what changes while
        // this reads is noticed.
        let watch = if paths == before { None } else { Some(Watch::new(paths).await) };
        let (mut built, mut builds, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (place, wanted) in wanted.iter_mut().enumerate() {
            let before = self.plugins.iter().position(|watched| watched.wanted.name == wanted.name);
            if let Some(before) = before.map(|before| &self.plugins[before].wanted)
                && (&before.plugin, before.world, &before.trust) == (&wanted.plugin, wanted.world, &wanted.trust)
            {
                wanted.before.clone_from(&before.before);
                continue;
            }
            match self.load(wanted, before).await {
                Ok((file, source, Loaded { generation, signed_by })) => {
                    wanted.before = Some(generation.manifest_name().to_owned());
                    // Whether it is live is told for all of them at once.
                    let (live, _) = oneshot::channel();
                    builds.push(Proposal { generation: generation.clone(), source, signed_by, live });
                    built.push(Built { place, file, source, generation });
                }
                Err(refusal) => refused.push(format!("plugin {}: {refusal}", wanted.name)),
            }
        }
        if !refused.is_empty() {
            // Who asked may be gone.
            let _ = answer.send(Err(refused));
            return None;
        }
        let (taken, went) = oneshot::channel();
        let sent = answer.send(Ok(Ready { builds, taken }));
        if sent.is_err() || went.await.is_err() {
            return None;
        }
        self.take_over(wanted, built).await;
        watch
    }

    /// One plugin through every step. Another build is tried on real messages, too; the same one with other settings is not: what it does
    /// otherwise then is what somebody wants.
    async fn load(
        &mut self,
        wanted: &mut Wanted,
        before: Option<usize>,
    ) -> Result<(Arc<File>, Source, Loaded), Refusal> {
        let live = before.and_then(|before| self.plugins[before].live.as_ref()).map(|live| live.digest);
        // In another file another plugin may be meant.
        let before = before.filter(|before| self.plugins[*before].wanted.plugin.path == wanted.plugin.path);
        wanted.before = before.and_then(|before| self.plugins[before].wanted.before.clone());
        let number = self.number(&wanted.name) + 1;
        let (file, source) = self.file(wanted, before).await?;
        let tried = live != Some(file.digest);
        let loaded = self.through_steps(wanted.clone(), &file, number, tried, |_| {}).await?;
        Ok((file, source, loaded))
    }

    /// What lies in the plugin's file; or what is live, where the file is gone or holds what was rolled back.
    async fn file(&mut self, wanted: &Wanted, before: Option<usize>) -> Result<(Arc<File>, Source), Refusal> {
        let path = wanted.plugin.path.clone();
        let read = blocking(move || load::read(&path)).await.unwrap_or_else(|| {
            let problem = Problem::Host("reading it panicked; see the log".to_owned());
            Err(Refusal { step: Step::Found, problem })
        });
        let Some(before) = before else { return Ok((Arc::new(read?), Source::File)) };
        let live = self.builds(before).live.as_ref().map(|build| build.digest);
        let stays = match &read {
            Ok(file) => self.builds(before).is_rejected(file.digest),
            Err(refusal) => refusal.problem.is_absence(),
        };
        if stays
            && let Some(live) = live
            && let Some(Ok(file)) = self.kept(live).await
        {
            return Ok((file, Source::Fallback));
        }
        Ok((Arc::new(read?), Source::File))
    }

    fn number(&self, name: &str) -> u64 {
        let watched = self.plugins.iter().find(|watched| watched.wanted.name == name);
        watched.map(|watched| watched.number).or_else(|| self.gone.get(name).copied()).unwrap_or(0)
    }

    /// The settings are in force.
    async fn take_over(&mut self, wanted: Vec<Wanted>, built: Vec<Built>) {
        let mut before = std::mem::take(&mut self.plugins);
        for wanted in wanted {
            let at = before.iter().position(|watched| watched.wanted.name == wanted.name);
            let number = self.gone.remove(&wanted.name).unwrap_or(0);
            let new = || Watched { wanted: wanted.clone(), live: None, refused: None, unreadable: None, number };
            let mut watched = at.map_or_else(new, |at| before.swap_remove(at));
            watched.wanted = wanted;
            self.plugins.push(watched);
        }
        self.gone.extend(before.into_iter().map(|watched| (watched.wanted.name, watched.number)));
        let named = |name: &String| self.plugins.iter().any(|plugin| plugin.wanted.name == *name);
        self.index.plugins.retain(|name, _| named(name));
        for Built { place, file, source, generation } in built {
            show_path(&self.board, &self.plugins[place].wanted);
            self.plugins[place].unreadable = None;
            if source == Source::File {
                self.changed(place, What::Load, Some(file.digest), Who::Settings, Step::Live, None);
                self.builds(place).found(file.digest);
                self.builds(place).took(build(&generation));
                self.note(place, None);
            }
            self.lives(place, file, &generation);
        }
        self.save().await;
    }
}
