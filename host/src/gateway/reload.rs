//! Other settings, while traffic flows: what the file says is compared with what is in force, the plugins that it needs are loaded, and
//! then all of it is put in force at once; or nothing is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sluicegate_core::lifecycle::Step;
use sluicegate_core::settings::difference::{Change, difference};
use sluicegate_core::settings::{Resolved, Settings};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::knobs::Knobs;
use super::{Gateway, Plugins, route_status};
use crate::access::{self, rules::Rules};
use crate::live::{Current, Live};
use crate::mqtt::connect;
use crate::mqtt::subscribe::Confirmed;
use crate::recent::Recent;
use crate::registry::desk::{Desk, Ordered};
use crate::registry::{Place, Proposal as Build};
use crate::settings::desk::{Answer, By, InForce, Refused};
use crate::settings::propose::Proposal;
use crate::telemetry::board::{Board, RefusedEdit, SettingsStatus};
use crate::telemetry::causes::with_causes;
use crate::telemetry::clock;

/// How long who asked waits for the broker to confirm subscriptions.
const CONFIRMED: Duration = Duration::from_secs(5);
/// How often it is looked whether anything is left of routes that leave.
const LOOK: Duration = Duration::from_millis(500);
/// How long nothing may have come for a route that leaves before it is let go: a broker may still send what it had queued for an old
/// subscription.
const QUIET: Duration = Duration::from_secs(5);

/// The settings in force, and the edit that is on its way.
pub(super) struct Force {
    pub settings: Arc<Settings>,
    in_force: Arc<ArcSwap<InForce>>,
    status: SettingsStatus,
    board: Arc<Board>,
    /// Who may log in and do what.
    rules: access::rules::Current,
    plugins: Desk,
    pending: Option<Pending>,
    /// Of routes that leave: how many messages they had received, and since when.
    quiet: HashMap<String, (u64, Instant)>,
    look: Instant,
}

/// An edit on its way. One at a time: the next one takes its place.
enum Pending {
    /// Its plugins are being loaded.
    Loading { edit: Box<Edit>, ordered: oneshot::Receiver<Ordered> },
    /// It is in force, and who asked waits for the broker.
    Confirming {
        number: u64,
        answer: Answer,
        to: oneshot::Sender<Answer>,
        confirmed: watch::Receiver<Confirmed>,
        until: Instant,
    },
}

struct Edit {
    by: By,
    file: Option<String>,
    resolved: Resolved,
    changes: Vec<Change>,
    answer: oneshot::Sender<Answer>,
}

/// What goes on with an edit by itself.
pub(super) enum Progress {
    /// The registry answered.
    Ordered(Ordered),
    /// The broker confirmed, or was waited for long enough.
    Confirmed(Option<String>),
    /// It is time to look at the routes that leave.
    Look,
}

/// Of a running gateway.
pub(super) struct Running {
    pub current: Current,
    pub knobs: Knobs,
    pub recent: Arc<Recent>,
}

impl Running {
    /// New messages are handled with this snapshot.
    fn swap(&self, next: Arc<Live>) {
        let before = self.current.swap(next.clone());
        before.serving().filter(|build| !next.serves(build)).for_each(|build| build.retire());
        self.recent.retain(|route| next.route_named(route));
    }
}

impl Force {
    pub(super) fn new(
        settings: Arc<Settings>,
        in_force: Arc<ArcSwap<InForce>>,
        plugins: Desk,
        board: Arc<Board>,
        rules: access::rules::Current,
    ) -> Self {
        let InForce { number, since, file, .. } = InForce::clone(&in_force.load());
        let status = SettingsStatus { number, since, file, leaving: Vec::new(), refused: None };
        board.set_settings(status.clone());
        let (pending, quiet, look) = (None, HashMap::new(), Instant::now());
        Self { settings, in_force, status, board, rules, plugins, pending, quiet, look }
    }

    /// # Cancel safety
    /// Dropped, nothing is lost.
    pub(super) async fn progress(&mut self) -> Progress {
        let leaving = !self.status.leaving.is_empty();
        let look = self.look;
        tokio::select! {
            progress = progress(&mut self.pending) => progress,
            () = sleep_until(look), if leaving => Progress::Look,
        }
    }

    /// The file says something.
    pub(super) fn propose(&mut self, proposal: Proposal) {
        let Proposal { by, resolved, file, answer } = proposal;
        // The file says something else by now: what it said before is not wanted any more.
        self.pending = None;
        let resolved = match *resolved {
            Ok(resolved) => resolved,
            Err(errors) => {
                let reasons = errors.0.iter().map(ToString::to_string).collect();
                return self.refuse(answer, Refused::because(reasons));
            }
        };
        let changes = difference(&self.in_force.load().keys, &resolved.effective);
        if changes.is_empty() {
            self.mended();
            if by != By::File {
                tracing::info!("the settings were read again, and are as they were");
            }
            drop(answer.send(Answer::Unchanged { number: self.status.number }));
            return;
        }
        if let Some(refused) = Refused::restart(&changes) {
            return self.refuse(answer, refused);
        }
        if resolved.settings.mqtt != self.settings.mqtt
            && let Err(error) = connect::check(&resolved.settings.mqtt)
        {
            return self.refuse(answer, Refused::because(vec![with_causes(&error)]));
        }
        let ordered = match self.plugins.order(&resolved.settings) {
            Ok(ordered) => ordered,
            Err(error) => return self.refuse(answer, Refused::because(vec![error.to_string()])),
        };
        let file = file.map(|file: std::path::PathBuf| shown(&file));
        let edit = Box::new(Edit { by, file, resolved, changes, answer });
        self.pending = Some(Pending::Loading { edit, ordered });
    }

    /// Its plugins are loaded, or one was refused. Gives the builds to announce.
    pub(super) fn ordered(&mut self, ordered: Ordered, running: Option<&Running>, plugins: &mut Plugins) -> Vec<Build> {
        let Some(Pending::Loading { edit, .. }) = self.pending.take() else { return Vec::new() };
        let Edit { by, file, resolved, changes, answer } = *edit;
        let ready = match ordered {
            Ok(ready) => ready,
            Err(reasons) => {
                self.refuse(answer, Refused::because(reasons));
                return Vec::new();
            }
        };
        let settings = Arc::new(resolved.settings);
        let mut confirming = None;
        if let Some(running) = running {
            let next =
                match running.current.load().next(settings.clone(), ready.builds.iter().map(|build| &build.generation))
                {
                    Ok(next) => Arc::new(next),
                    Err(missing) => {
                        let reason = format!("these plugins are missing: {}", missing.join(", "));
                        self.refuse(answer, Refused::because(vec![reason]));
                        return Vec::new();
                    }
                };
            // Counted before anything can come for them.
            self.board.set_routes(route_status(&settings), settings.plugins.keys().cloned());
            self.status.leaving = next.leaving();
            // Before the broker asks whether the gateway may subscribe to what is new.
            self.rules.store(Arc::new(Rules::new(&settings)));
            running.swap(next.clone());
            let knobs = &running.knobs;
            confirming = knobs.turn(&next).map(|number| (number, knobs.confirmed.subscribe()));
        } else {
            self.rules.store(Arc::new(Rules::new(&settings)));
            self.board.set_routes(route_status(&settings), settings.plugins.keys().cloned());
        }
        let builds = ready.taken();
        plugins.live.retain(|name, _| settings.plugins.contains_key(name));
        plugins.canaries.retain(|name, _| settings.plugins.contains_key(name));
        for Build { generation, .. } in &builds {
            plugins.canaries.shift_remove(generation.name());
            plugins.live.insert(generation.name().to_owned(), generation.clone());
        }
        self.settings = settings;
        self.status.number += 1;
        self.status.since = clock::now();
        self.status.file.clone_from(&file);
        self.status.refused = None;
        let (number, since) = (self.status.number, self.status.since);
        self.in_force.store(Arc::new(InForce { number, since, by, file, keys: resolved.effective }));
        self.board.set_settings(self.status.clone());
        let keys: Vec<&str> = changes.iter().map(|change| &*change.key).collect();
        tracing::info!(number, by = ?by, changed = keys.join(", "), "other settings are in force");
        for warning in &resolved.warnings {
            tracing::warn!("{warning}");
        }
        let applied = Answer::Applied { number, changes, unconfirmed: None };
        match confirming {
            Some((number, confirmed)) => {
                let until = Instant::now() + CONFIRMED;
                self.pending = Some(Pending::Confirming { number, answer: applied, to: answer, confirmed, until });
            }
            None => drop(answer.send(applied)),
        }
        builds
    }

    /// The broker confirmed, or did not.
    pub(super) fn confirmed(&mut self, why_not: Option<String>) {
        let Some(Pending::Confirming { answer, to, .. }) = self.pending.take() else { return };
        let answer = match answer {
            Answer::Applied { number, changes, .. } => Answer::Applied { number, changes, unconfirmed: why_not },
            other => other,
        };
        // Who asked may be gone.
        drop(to.send(answer));
    }

    /// Lets the routes go that the settings do not name any more and of which nothing is left: the broker has no subscription of theirs,
    /// nothing is in memory or in the spool, and nothing came for a while.
    pub(super) fn look(&mut self, running: &Running) {
        let now = Instant::now();
        self.look = now + LOOK;
        let confirmed = running.knobs.confirmed.borrow().number >= running.knobs.wanted.borrow().number;
        let tally = self.board.tally();
        let leaving = std::mem::take(&mut self.status.leaving);
        self.quiet.retain(|name, _| leaving.contains(name));
        let (gone, leaving): (Vec<String>, Vec<String>) = leaving.into_iter().partition(|name| {
            let counts = tally.at(tally.place(Some(name)));
            let quiet = self.quiet.entry(name.clone()).or_insert((counts.received, now));
            if quiet.0 != counts.received || counts.in_flight + counts.spooled > 0 || !confirmed {
                *quiet = (counts.received, now);
            }
            now - quiet.1 >= QUIET
        });
        self.status.leaving = leaving;
        if gone.is_empty() {
            return;
        }
        if let Some(next) = running.current.load().without(&gone) {
            running.swap(Arc::new(next));
        }
        tracing::info!(routes = gone.join(", "), "nothing is left of routes that the settings do not name any more");
        self.board.set_settings(self.status.clone());
    }

    fn mended(&mut self) {
        if self.status.refused.take().is_some() {
            tracing::info!("the settings file says again what is in force");
            self.board.set_settings(self.status.clone());
        }
    }

    fn refuse(&mut self, answer: oneshot::Sender<Answer>, refused: Refused) {
        let Refused { reasons, restart } = refused.clone();
        let same = self.status.refused.as_ref().is_some_and(|before| before.reasons == reasons);
        // The file is read again every 30 seconds.
        if !same {
            for reason in &reasons {
                tracing::error!(%reason, "the settings file is refused; the settings of before stay in force");
            }
            self.status.refused = Some(RefusedEdit { at: clock::now(), reasons, restart });
            self.board.set_settings(self.status.clone());
        }
        // Who asked may be gone.
        drop(answer.send(Answer::Refused(refused)));
    }
}

async fn progress(pending: &mut Option<Pending>) -> Progress {
    match pending {
        None => std::future::pending().await,
        Some(Pending::Loading { ordered, .. }) => Progress::Ordered(match ordered.await {
            Ok(ordered) => ordered,
            Err(_) => Err(vec!["the gateway is shutting down".to_owned()]),
        }),
        Some(Pending::Confirming { number, confirmed, until, .. }) => {
            let number = *number;
            let has = tokio::time::timeout_at(*until, confirmed.wait_for(|confirmed| confirmed.number >= number)).await;
            Progress::Confirmed(match has {
                Ok(Ok(confirmed)) => confirmed.refused.clone(),
                _ => Some("the broker has not answered yet; it is asked again with each connection".to_owned()),
            })
        }
    }
}

/// As the status shows a path.
pub(super) fn shown(file: &Path) -> String {
    file.display().to_string()
}

impl Gateway {
    /// A build passed every step: it takes the place of the one before, for all machines or for some, or gives it up. Where the settings do
    /// not name its plugin any more, or something newer is there, nothing is done: the registry sees that it was not taken.
    pub(super) fn put(&self, build: Build, force: &Force, running: Option<&Running>, plugins: &mut Plugins) {
        let generation = &build.generation;
        let name = generation.name();
        if !force.settings.plugins.contains_key(name) {
            return;
        }
        let live = plugins.live.get(name);
        match build.place {
            Place::Live => {
                let canary = running.map_or_else(
                    || plugins.canaries.get(name).is_some_and(|canary| canary.number() == generation.number()),
                    |running| running.current.load().is_canary(generation),
                );
                // One of older settings may have been on its way when others came in force. A canary may be older than what was gone back to.
                if !canary && live.is_some_and(|live| live.number() >= generation.number()) {
                    return;
                }
                if canary {
                    plugins.canaries.shift_remove(name);
                }
                plugins.live.insert(name.to_owned(), generation.clone());
                if let Some(running) = running {
                    running.swap(Arc::new(running.current.load().with(generation)));
                }
                self.announce(build);
            }
            Place::Canary => {
                if live.is_none_or(|live| live.number() >= generation.number()) {
                    return;
                }
                match running {
                    Some(running) => running.swap(Arc::new(running.current.load().with_canary(generation))),
                    None => drop(plugins.canaries.insert(name.to_owned(), generation.clone())),
                }
                tracing::info!(
                    plugin = name,
                    version = generation.version(),
                    digest = %generation.digest(),
                    generation = generation.number(),
                    step = %Step::Canary,
                    "a build is a canary: it handles the messages of some machines"
                );
                build.is_taken();
            }
            Place::Withdrawn => {
                plugins.canaries.shift_remove(name);
                if let Some(running) = running.filter(|running| running.current.load().is_canary(generation)) {
                    running.swap(Arc::new(running.current.load().without_canary(name)));
                }
                build.is_taken();
            }
        }
    }
}
