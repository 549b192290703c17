//! Other settings: what changes in their plugins is loaded through all steps before anything else changes. One refusal, and all stays
//! as it is.

use std::sync::Arc;

use sluicegate_core::lifecycle::Step;
use sluicegate_core::settings::Plugin;
use tokio::sync::oneshot;

use super::{Registry, Watched, blocking, build, files, show_path};
use crate::registry::Place;
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

/// What is to be done once an order of other settings is in force.
pub(super) struct Obeyed {
    /// Of the plugins' files; none: they are those of before.
    pub(super) watch: Option<Watch>,
    /// Plugins whose file holds another build than the live one: a canary to be.
    pub(super) look: Vec<usize>,
}

/// Whether what is loaded of a plugin is what these settings need, too. Which machines a canary serves is no part of a build.
fn suits(before: &Wanted, wanted: &Wanted) -> bool {
    let plugin = Plugin { canary: wanted.plugin.canary.clone(), ..before.plugin.clone() };
    (&plugin, before.world, &before.trust) == (&wanted.plugin, wanted.world, &wanted.trust)
}

impl Registry {
    /// Loads what is not loaded yet, and once the gateway has taken it, looks after these plugins and no others. None: the order was refused,
    /// or not taken.
    pub(super) async fn obey(&mut self, mut wanted: Vec<Wanted>, answer: oneshot::Sender<Ordered>) -> Option<Obeyed> {
        let (paths, before) = (files(wanted.iter()), files(self.plugins.iter().map(|plugin| &plugin.wanted)));
        // The watch of the same files goes on: it may have noticed something already. Another one watches first, and what changes while
        // this reads is noticed.
        let watch = if paths == before { None } else { Some(Watch::new(paths).await) };
        let (mut built, mut builds, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (place, wanted) in wanted.iter_mut().enumerate() {
            let before = self.plugins.iter().position(|watched| watched.wanted.name == wanted.name);
            if let Some(before) = before.map(|before| &self.plugins[before].wanted)
                && suits(before, wanted)
            {
                wanted.before.clone_from(&before.before);
                continue;
            }
            match self.load(wanted, before).await {
                Ok((file, source, Loaded { generation, signed_by })) => {
                    wanted.before = Some(generation.manifest_name().to_owned());
                    // Whether it is live is told for all of them at once.
                    let (taken, _) = oneshot::channel();
                    built.push(Built { place, file, source, generation: generation.clone() });
                    builds.push(Proposal { generation, place: Place::Live, source, signed_by, taken });
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
        let look = self.take_over(wanted, built).await;
        Some(Obeyed { watch, look })
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
        let stays = self.stays(wanted, before).await;
        let read = read(wanted).await;
        if let Some(stays) = stays.filter(|stays| self.keeps(wanted, before, stays, &read)) {
            let loaded = self.through_steps(wanted.clone(), &stays, number, false, |_| {}).await;
            match (loaded, &read) {
                (Ok(loaded), _) => return Ok((stays, Source::Fallback, loaded)),
                // What would have been a canary beside it may be what these settings want.
                (Err(_), Ok(file)) if wanted.plugin.canary.is_some() => {
                    tracing::debug!(plugin = wanted.name, digest = %file.digest, "the live build does not suit these settings")
                }
                (Err(refusal), _) => return self.instead(wanted, before, number, refusal).await,
            }
        }
        let file = Arc::new(read?);
        let tried = live != Some(file.digest);
        match self.through_steps(wanted.clone(), &file, number, tried, |_| {}).await {
            Err(refusal) if !tried => self.instead(wanted, before, number, refusal).await,
            loaded => Ok((file, Source::File, loaded?)),
        }
    }

    /// The live build was refused. One that is revoked must not serve any longer, and the edit that says so is not to fail for it: the build
    /// before goes live, where one is kept.
    async fn instead(
        &mut self,
        wanted: &Wanted,
        index: Option<usize>,
        number: u64,
        refusal: Refusal,
    ) -> Result<(Arc<File>, Source, Loaded), Refusal> {
        let before = index.filter(|_| refusal.problem.is_revoked());
        let Some(before) = before.and_then(|index| self.builds(index).fallback.as_ref()).map(|build| build.digest)
        else {
            return Err(refusal);
        };
        let file = self.kept(before).await.ok_or(refusal)??;
        let loaded = self.through_steps(wanted.clone(), &file, number, false, |_| {}).await?;
        Ok((file, Source::Fallback, loaded))
    }

    /// What is live, as it is kept.
    async fn stays(&mut self, wanted: &Wanted, before: Option<usize>) -> Option<Arc<File>> {
        let live = self.builds(before?).live.as_ref()?.digest;
        match self.kept(live).await? {
            Ok(file) => Some(file),
            Err(refusal) => {
                tracing::debug!(plugin = wanted.name, digest = %live, %refusal, "the live build is not kept");
                None
            }
        }
    }

    /// Whether what is live stays so by the new settings, and not what lies in the plugin's file: that is gone, or was rolled back, or is to be
    /// a canary first.
    fn keeps(&mut self, wanted: &Wanted, before: Option<usize>, live: &File, read: &Result<File, Refusal>) -> bool {
        match read {
            Ok(file) => {
                let other = file.digest != live.digest;
                let rejected = before.is_some_and(|before| self.builds(before).is_rejected(file.identity()));
                rejected || other && wanted.plugin.canary.is_some()
            }
            Err(refusal) => refusal.problem.is_absence(),
        }
    }

    fn number(&self, name: &str) -> u64 {
        let watched = self.plugins.iter().find(|watched| watched.wanted.name == name);
        watched.map(|watched| watched.number).or_else(|| self.gone.get(name).copied()).unwrap_or(0)
    }

    /// The settings are in force. Gives the plugins whose files are to be looked at.
    async fn take_over(&mut self, wanted: Vec<Wanted>, built: Vec<Built>) -> Vec<usize> {
        let mut look = Vec::new();
        let mut before = std::mem::take(&mut self.plugins);
        for wanted in wanted {
            let at = before.iter().position(|watched| watched.wanted.name == wanted.name);
            let number = self.gone.remove(&wanted.name).unwrap_or(0);
            let mut watched = at.map_or_else(|| Watched::new(wanted.clone(), number), |at| before.swap_remove(at));
            watched.wanted = wanted;
            self.plugins.push(watched);
        }
        self.gone.extend(before.into_iter().map(|watched| (watched.wanted.name, watched.number)));
        let named = |name: &String| self.plugins.iter().any(|plugin| plugin.wanted.name == *name);
        self.index.plugins.retain(|name, _| named(name));
        for Built { place, file, source, generation } in built {
            show_path(&self.board, &self.plugins[place].wanted);
            self.plugins[place].unreadable = None;
            // With other settings it would be compared with what it was not begun beside.
            self.forget(place, Who::Settings, "other settings of the plugin are in force");
            if self.plugins[place].wanted.plugin.canary.is_some() {
                look.push(place);
            }
            let live = self.builds(place).live.as_ref().map(|live| live.digest);
            if source == Source::Fallback && live.is_some_and(|live| live != file.digest) {
                self.changed(place, What::Rollback, Some(file.digest), Who::Settings, Step::Fallback, None);
                self.builds(place).fell_back(true);
                self.note(place, Some("what was live is revoked"));
            }
            if source == Source::File {
                self.changed(place, What::Load, Some(file.digest), Who::Settings, Step::Live, None);
                self.builds(place).found(file.identity());
                self.builds(place).took(build(&file, &generation));
                self.note(place, None);
            }
            self.lives(place, file, &generation);
        }
        self.save().await;
        look
    }
}

/// What lies in the plugin's file.
async fn read(wanted: &Wanted) -> Result<File, Refusal> {
    let path = wanted.plugin.path.clone();
    blocking(move || load::read(&path)).await.unwrap_or_else(|| {
        let problem = Problem::Host("reading it panicked; see the log".to_owned());
        Err(Refusal { step: Step::Found, problem })
    })
}
