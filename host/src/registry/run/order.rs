//! Other settings: what changes in their plugins is loaded through all steps before anything else changes. One refusal, and all stays
//! as it is. They are made ready beside all else, from what is known of the plugins then; where that changes meanwhile, it is begun anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::{Builds, Step};
use sluicegate_core::settings::Plugin;
use tokio::sync::oneshot;

use super::back::kept_notice;
use super::keep::Keeper;
use super::making::{self, Maker};
use super::{Registry, Seen, TRIES, Watched, blocking, build, files, show_path};
use crate::registry::Place;
use crate::registry::desk::{Ordered, Ready};
use crate::registry::history::{Outcome, What, Who};
use crate::registry::load::{self, File, Loaded};
use crate::registry::{Proposal, Source, Wanted};
use crate::sandbox::compiled::Urgency;
use crate::sandbox::{Generation, Problem, Refusal};
use crate::watch::Watch;

/// Other settings on their way.
pub(super) struct Ordering {
    /// Every plugin that they name.
    wanted: Vec<Wanted>,
    answer: oneshot::Sender<Ordered>,
    /// Never locked: it lets other threads hold a reference to the registry.
    making: Mutex<BoxFuture<'static, Made>>,
}

/// What their plugins came to.
pub(super) struct Made {
    wanted: Vec<Wanted>,
    /// Of the plugins' files; none: they are those of before.
    watch: Option<Watch>,
    built: Vec<(Built, Loaded)>,
    refused: Vec<(String, Denied)>,
}

/// A build that was loaded for an order: of the plugin at this place in it.
struct Built {
    place: usize,
    file: Arc<File>,
    source: Source,
}

/// A build that an order needed and that was refused.
struct Denied {
    refusal: Refusal,
    /// The file that it was; none: there is none that can be read.
    seen: Option<Seen>,
}

/// What is remembered of a build that an order needed: the settings' file is read again every 30 seconds, and it is not made each time.
#[derive(Clone)]
pub(super) struct Remembered {
    wanted: Wanted,
    seen: Seen,
    refusal: Refusal,
    tries: u32,
}

/// What is known of a plugin that is looked after.
struct Known {
    wanted: Wanted,
    live: Option<Digest>,
    builds: Builds,
}

/// Makes ready what other settings need.
struct Loader {
    maker: Maker,
    keeper: Keeper,
    known: HashMap<String, Known>,
    numbers: HashMap<String, u64>,
    remembered: HashMap<String, Remembered>,
}

/// Whether what is loaded of a plugin is what these settings need, too.
fn suits(before: &Wanted, wanted: &Wanted) -> bool {
    is_said_alike(before, wanted) && before.trust == wanted.trust
}

/// Whether its section says the same. Which machines a canary serves is no part of a build.
fn is_said_alike(before: &Wanted, wanted: &Wanted) -> bool {
    let plugin = Plugin { canary: wanted.plugin.canary.clone(), ..before.plugin.clone() };
    (&plugin, before.world) == (&wanted.plugin, wanted.world)
}

impl Ordering {
    /// What their plugins came to; none: nobody waits for it any more.
    ///
    /// # Cancel safety
    /// Dropped, it goes on with the next call.
    pub(super) async fn made(ordering: &mut Option<Self>) -> Option<Made> {
        match ordering {
            Some(Self { answer, making, .. }) => tokio::select! {
                made = making.get_mut().unwrap_or_else(PoisonError::into_inner) => Some(made),
                () = answer.closed() => None,
            },
            None => std::future::pending().await,
        }
    }
}

impl Registry {
    /// Makes ready what these settings need, in the place of others that are on their way.
    pub(super) fn order(&mut self, wanted: Vec<Wanted>, answer: oneshot::Sender<Ordered>) {
        let known = self.plugins.iter().map(|watched| {
            let name = watched.wanted.name.clone();
            let builds = self.index.plugins.get(&name).cloned().unwrap_or_default();
            let live = watched.live.as_ref().map(|live| live.digest);
            (name, Known { wanted: watched.wanted.clone(), live, builds })
        });
        let known = known.collect();
        let mut numbers = self.gone.clone();
        numbers.extend(self.plugins.iter().map(|watched| (watched.wanted.name.clone(), watched.number)));
        let loader = Loader {
            maker: self.maker.clone(),
            keeper: self.keeper(),
            known,
            numbers,
            remembered: self.denied.clone(),
        };
        // The watch of the same files goes on: it may have noticed something already.
        let paths = files(wanted.iter());
        let others = paths != files(self.plugins.iter().map(|plugin| &plugin.wanted));
        let mine = wanted.clone();
        let making = async move {
            // Another one watches first, and what changes while this reads is noticed.
            let watch = if others { Some(Watch::new(paths).await) } else { None };
            loader.load(mine, watch).await
        };
        self.ordering = Some(Ordering { wanted, answer, making: Mutex::new(making.boxed()) });
    }

    /// What is known of the plugins is not what it was: what other settings need is made ready anew. What is compiled stays so.
    pub(super) fn order_anew(&mut self) {
        if let Some(Ordering { wanted, answer, .. }) = self.ordering.take() {
            self.order(wanted, answer);
        }
    }

    /// Everything that other settings need is made, or was refused. Once the gateway has taken it, these plugins are looked after and no others.
    /// Gives what watches their files, where those are others.
    pub(super) async fn obey(&mut self, made: Option<Made>) -> Option<Watch> {
        let Ordering { wanted: asked, answer, .. } = self.ordering.take()?;
        let Made { wanted, watch, built, refused } = made?;
        if refused.iter().any(|(_, denied)| denied.refusal.problem == Problem::GivenUp) {
            // Something more urgent came in between.
            self.order(asked, answer);
            return None;
        }
        if !refused.is_empty() {
            let told = refused.iter().map(|(name, denied)| format!("plugin {name}: {}", denied.refusal)).collect();
            for (name, denied) in refused {
                self.remember(&asked, name, denied);
            }
            // Who asked may be gone.
            let _ = answer.send(Err(told));
            return None;
        }
        self.denied.clear();
        let (mut builds, mut done) = (Vec::new(), Vec::new());
        for (built, Loaded { generation, signed_by }) in built {
            // Whether it is live is told for all of them at once.
            let (taken, _) = oneshot::channel();
            let proposal =
                Proposal { generation: generation.clone(), place: Place::Live, source: built.source, signed_by, taken };
            builds.push(proposal);
            done.push((built, generation));
        }
        let (taken, went) = oneshot::channel();
        let sent = answer.send(Ok(Ready { builds, taken }));
        if sent.is_err() || went.await.is_err() {
            return None;
        }
        self.take_over(wanted, done, watch.is_some()).await;
        watch
    }

    fn remember(&mut self, asked: &[Wanted], name: String, Denied { refusal, seen }: Denied) {
        let Some((seen, wanted)) = seen.zip(asked.iter().find(|wanted| wanted.name == name)) else { return };
        let before = self.denied.remove(&name).filter(|before| before.is_of(wanted, &seen));
        let tries = before.map_or(0, |before| before.tries) + 1;
        self.denied.insert(name, Remembered { wanted: wanted.clone(), seen, refusal, tries });
    }

    /// The settings are in force.
    async fn take_over(&mut self, wanted: Vec<Wanted>, built: Vec<(Built, Arc<Generation>)>, others: bool) {
        if let Some(under_way) = &self.under_way {
            let before = self.plugins.iter().map(|plugin| &plugin.wanted).find(|before| before.name == under_way.name);
            let its = wanted.iter().find(|wanted| wanted.name == under_way.name);
            // It was begun with what is not wanted any more.
            if !before.zip(its).is_some_and(|(before, wanted)| suits(before, wanted)) {
                let given_up = self.give_up();
                self.waiting.extend(given_up);
            }
        }
        let mut before = std::mem::take(&mut self.plugins);
        for wanted in wanted {
            let at = before.iter().position(|watched| watched.wanted.name == wanted.name);
            let number = self.gone.remove(&wanted.name).unwrap_or(0);
            let mut watched = at.map_or_else(|| Watched::new(wanted.clone(), number), |at| before.swap_remove(at));
            watched.wanted = wanted;
            self.plugins.push(watched);
        }
        for watched in before {
            if let Some(canary) = watched.canary {
                let (plugin, to) = (watched.wanted.name.clone(), Some(canary.file.digest));
                let reason = Some("the settings name the plugin no more".to_owned());
                self.tell(plugin, What::Load, to, Who::Settings, Outcome::Withdrawn, Step::Canary, reason);
            }
            self.board.notice(&kept_notice(&watched.wanted.name), None);
            self.gone.insert(watched.wanted.name, watched.number);
        }
        self.only_named(Who::Settings);
        if others {
            // What the watch before had noticed nobody is told any more.
            (0..self.plugins.len()).for_each(|index| self.wait(index, Who::File));
        }
        for (Built { place, file, source }, generation) in built {
            show_path(&self.board, &self.plugins[place].wanted);
            self.plugins[place].unreadable = None;
            // With other settings it would be compared with what it was not begun beside.
            self.forget(place, Who::Settings, "other settings of the plugin are in force");
            if self.plugins[place].wanted.plugin.canary.is_some() {
                self.wait(place, Who::Settings);
            }
            let live = self.builds(place).live.as_ref().map(|live| live.digest);
            if source == Source::Fallback && live.is_some_and(|live| live != file.digest) {
                self.changed(place, What::Rollback, Some(file.digest), Who::Settings, Step::Fallback, None);
                // The settings keep it from being tried again, as long as they do.
                self.builds(place).fell_back(false);
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
    }
}

impl Remembered {
    fn is_of(&self, wanted: &Wanted, seen: &Seen) -> bool {
        self.wanted == *wanted && self.seen == *seen
    }

    /// Whether the same would come of it, or it was tried often enough.
    fn stands(&self) -> bool {
        !self.refusal.problem.may_pass() || self.tries >= TRIES
    }
}

impl Loader {
    /// Loads what is not loaded yet.
    async fn load(self, mut wanted: Vec<Wanted>, watch: Option<Watch>) -> Made {
        let (mut built, mut refused) = (Vec::new(), Vec::new());
        for (place, wanted) in wanted.iter_mut().enumerate() {
            if let Some(known) = self.known.get(&wanted.name).filter(|known| suits(&known.wanted, wanted)) {
                wanted.before.clone_from(&known.wanted.before);
                continue;
            }
            match self.one(wanted).await {
                Ok((file, source, loaded)) => {
                    wanted.before = Some(loaded.generation.manifest_name().to_owned());
                    built.push((Built { place, file, source }, loaded));
                }
                Err(denied) => refused.push((wanted.name.clone(), denied)),
            }
        }
        Made { wanted, watch, built, refused }
    }

    /// One plugin through every step. Another build is tried on real messages, too; the same one with other settings is not: what it does
    /// otherwise then is what somebody wants.
    async fn one(&self, wanted: &Wanted) -> Result<(Arc<File>, Source, Loaded), Denied> {
        let asked = wanted;
        let known = self.known.get(&wanted.name);
        let live = known.and_then(|known| known.live);
        // In another file another plugin may be meant.
        let known = known.filter(|known| known.wanted.plugin.path == wanted.plugin.path);
        let wanted = Wanted { before: known.and_then(|known| known.wanted.before.clone()), ..wanted.clone() };
        let stays = match known.and_then(|known| known.builds.live.as_ref()) {
            Some(live) => self.kept(&wanted.name, live.digest).await,
            None => None,
        };
        let read = read(&wanted).await.map(Arc::new);
        let mut kept_refused = None;
        if let Some(stays) = stays.as_ref().filter(|stays| keeps(&wanted, known, stays, &read)) {
            match self.make(&wanted, stays, false).await {
                Ok(loaded) => return Ok((stays.clone(), Source::Fallback, loaded)),
                Err(refusal) => kept_refused = Some(refusal),
            }
        }
        let denied = match (kept_refused, read) {
            (Some(refusal), Err(_)) | (None, Err(refusal)) => Denied { refusal, seen: None },
            (Some(refusal), Ok(_)) if wanted.plugin.canary.is_none() => Denied { refusal, seen: None },
            // What would have been a canary beside it may be what these settings want.
            (_, Ok(file)) => {
                let seen = Seen::of(&file);
                let remembered = self.remembered.get(&wanted.name);
                let refusal = match remembered.filter(|one| one.is_of(asked, &seen) && one.stands()) {
                    Some(remembered) => remembered.refusal.clone(),
                    None => match self.make(&wanted, &file, live != Some(file.digest)).await {
                        Ok(loaded) => return Ok((file, Source::File, loaded)),
                        Err(refusal) => refusal,
                    },
                };
                Denied { refusal, seen: Some(seen) }
            }
        };
        // Only `[trust]` is another, and what lies in this file is refused: that keeps no revocation from the other plugins.
        let stays_said = stays.as_ref().filter(|_| known.is_some_and(|known| is_said_alike(&known.wanted, asked)));
        if let Some(stays) = stays_said.filter(|_| denied.refusal.problem != Problem::GivenUp) {
            match self.make(&wanted, stays, false).await {
                Ok(loaded) => {
                    let (plugin, refusal) = (&wanted.name, &denied.refusal);
                    tracing::warn!(plugin, %refusal, "the file's build is refused by the new settings; the live build stays");
                    return Ok((stays.clone(), Source::Fallback, loaded));
                }
                Err(refusal) if refusal.problem == Problem::GivenUp => return Err(Denied { refusal, seen: None }),
                Err(_) => {}
            }
        }
        self.instead(&wanted, known, stays).await.ok_or(denied)
    }

    /// A live build that is revoked must not serve any longer, and the edit that says so is not to fail for what else there is: the build before
    /// goes live, where one is kept.
    async fn instead(
        &self,
        wanted: &Wanted,
        known: Option<&Known>,
        stays: Option<Arc<File>>,
    ) -> Option<(Arc<File>, Source, Loaded)> {
        let before = known?.builds.fallback.as_ref()?.digest;
        if !wanted.revokes(stays?.identity()) {
            return None;
        }
        let file = self.kept(&wanted.name, before).await?;
        let loaded = self.make(wanted, &file, false).await.ok()?;
        Some((file, Source::Fallback, loaded))
    }

    async fn make(&self, wanted: &Wanted, file: &Arc<File>, tried: bool) -> Result<Loaded, Refusal> {
        let number = self.numbers.get(&wanted.name).copied().unwrap_or(0) + 1;
        let order = making::Order { wanted: wanted.clone(), file: file.clone(), number, tried };
        self.maker.make(order, Urgency::Settings, |_| {}).await
    }

    async fn kept(&self, plugin: &str, digest: Digest) -> Option<Arc<File>> {
        let kept = self.keeper.kept(digest).await?;
        kept.inspect_err(|refusal| tracing::debug!(plugin, %digest, %refusal, "a kept build is not there")).ok()
    }
}

/// Whether what is live stays so by the new settings, and not what lies in the plugin's file: that is gone, or was rolled back, or is
/// revoked, or is to be a canary first.
fn keeps(wanted: &Wanted, known: Option<&Known>, live: &File, read: &Result<Arc<File>, Refusal>) -> bool {
    match read {
        Ok(file) => {
            let other = file.digest != live.digest;
            let rejected = known.is_some_and(|known| known.builds.is_rejected(file.identity()));
            rejected || other && (wanted.revokes(file.identity()) || wanted.plugin.canary.is_some())
        }
        Err(refusal) => refusal.problem.is_absence(),
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
