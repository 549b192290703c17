//! What is done about each plugin: its file is looked at, loaded where it is another build, the kept one where it is none, and
//! the build before where somebody asks for that. One thing after another, so that there is one order of what is live; but while a build in
//! a plugin's file is on its way, which may take minutes, orders are taken.
//!
//! - `back`: to a build that is kept.
//! - `canary`: builds that serve some machines before they serve all.
//! - `keep`: what outlives a restart.
//! - `making`: a build through every step.
//! - `order`: what other settings need.
//! - `under_way`: a build in a plugin's file, from `found` to `live`.

mod back;
mod canary;
mod keep;
mod making;
mod order;
mod under_way;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, absolute};
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::{Build, Builds, Step};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::desk::{Order, Orders};
use super::folder::{Folder, Index};
use super::history::{What, Who};
use super::load::{self, File, Loaded};
use super::{Place, Proposal, Source, Wanted};
use crate::sandbox::compiled::Urgency;
use crate::sandbox::{Generation, Refusal, Sandbox};
use crate::telemetry::board::{Board, Refused};
use crate::telemetry::clock;
use crate::watch::{self, Watch};

use canary::Canary;
use making::Maker;
use order::{Made, Ordering, Remembered};
use under_way::{Progress, UnderWay};

/// How often a build is tried that failed for what may pass; the files are looked at again every 30 s.
const TRIES: u32 = 5;
/// How long a start waits for what lies in the plugins' files, all of them together, where a build is kept that was live before: that one
/// serves then. Enough for a usual plugin: who replaced a file while the gateway was down expects that the first message meets it.
const PATIENCE: Duration = Duration::from_secs(5);

/// One plugin and what became of its file so far.
struct Watched {
    wanted: Wanted,
    /// Live in this run.
    live: Option<Seen>,
    /// The number of that.
    serves: u64,
    /// Serves some machines before it serves all.
    canary: Option<Canary>,
    /// The build that was refused last.
    refused: Option<Tried>,
    /// The last reason for which the file could not be read, so that it is said once.
    unreadable: Option<String>,
    /// The last number that was given.
    number: u64,
    /// What is kept was tried in this run, since the file held nothing good, or nothing in time.
    fell_back: bool,
    /// It is said that what serves is not what lies in the file.
    noted: bool,
}

impl Watched {
    fn new(wanted: Wanted, number: u64) -> Self {
        Self {
            wanted,
            live: None,
            serves: 0,
            canary: None,
            refused: None,
            unreadable: None,
            number,
            fell_back: false,
            noted: false,
        }
    }
}

/// What tells one file from another, and one signature of it.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    digest: Digest,
    signature: Option<Vec<u8>>,
}

impl Seen {
    fn of(file: &File) -> Self {
        Self { digest: file.digest, signature: file.signature.clone() }
    }
}

/// A build that was refused: not tried again until the file or its signature changes, or where it may do better later, a few times.
struct Tried {
    seen: Seen,
    tries: u32,
    most: u32,
}

/// Looks after the plugins' builds.
pub struct Registry {
    maker: Maker,
    plugins: Vec<Watched>,
    proposals: mpsc::Sender<Proposal>,
    board: Arc<Board>,
    orders: Orders,
    /// None: a newer program's, which is left alone.
    folder: Option<Folder>,
    index: Index,
    /// Builds that may have to be written to the folder, or go live again before they are.
    files: HashMap<Digest, Arc<File>>,
    /// The folder holds less than it should.
    unsaved: bool,
    /// The last number of plugins that the settings do not name any more: where they are named again it is counted on.
    gone: HashMap<String, u64>,
    /// Plugins whose files are to be looked at, and for whom: each at most once.
    waiting: VecDeque<(String, Who)>,
    /// The build that is on its way, and whoever takes it there; another one than the first was given up.
    under_way: Option<UnderWay>,
    tasks: JoinSet<Result<Loaded, Refusal>>,
    /// Until when what lies in a file is waited for where another build is kept that was live before the start.
    patience: Instant,
    /// Other settings that are on their way.
    ordering: Option<Ordering>,
    /// What such settings needed and was refused, by the plugin's name.
    denied: HashMap<String, Remembered>,
}

/// What came of a build.
enum Ended {
    /// It is what it was to be.
    Taken(Loaded),
    Refused(Refusal),
    /// The gateway did not take it: it comes to its end.
    NotTaken,
}

enum Event {
    Changed(Vec<usize>),
    Ordered(Order),
    Ended(under_way::Joined),
    Made(Option<Made>),
    Late,
}

impl Registry {
    /// Proposals go to `proposals`; what is refused, to the board and the log. What outlives a restart stands below `state`.
    #[must_use]
    pub fn new(
        sandbox: Sandbox,
        plugins: Vec<Wanted>,
        (state, instance): (&Path, &str),
        proposals: mpsc::Sender<Proposal>,
        orders: Orders,
        board: Arc<Board>,
    ) -> Self {
        let plugins: Vec<Watched> = plugins.into_iter().map(|wanted| Watched::new(wanted, 0)).collect();
        for Watched { wanted, .. } in &plugins {
            show_path(&board, wanted);
        }
        let maker = Maker { sandbox, rehearsal: orders.rehearsal.clone() };
        let waiting = plugins.iter().map(|plugin| (plugin.wanted.name.clone(), Who::Start)).collect();
        Self {
            maker,
            plugins,
            proposals,
            board,
            orders,
            folder: Some(Folder::new(state, instance)),
            index: Index::new(),
            files: HashMap::new(),
            unsaved: false,
            gone: HashMap::new(),
            waiting,
            under_way: None,
            tasks: JoinSet::new(),
            patience: Instant::now() + PATIENCE,
            ordering: None,
            denied: HashMap::new(),
        }
    }

    /// Loads every plugin, then each new build of it, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            // The work first: a build that the gateway has just made live is to be known as that.
            biased;
            () = self.work() => {}
            () = stop.cancelled() => {}
        }
        self.give_up();
        // What went live last may not be written down yet.
        if self.unsaved {
            self.save().await;
        }
    }

    async fn work(&mut self) {
        self.restore().await;
        // Watched first, read then: what changes in between is noticed.
        let mut watch = Watch::new(files(self.plugins.iter().map(|plugin| &plugin.wanted))).await;
        self.patience = Instant::now() + PATIENCE;
        loop {
            self.begin_next().await;
            if self.unsaved {
                self.save().await;
            }
            let late = self.late();
            let event = tokio::select! {
                // What is ready is taken, however late it is.
                biased;
                Some(ended) = self.tasks.join_next_with_id() => Event::Ended(ended),
                made = Ordering::made(&mut self.ordering) => Event::Made(made),
                Some(order) = self.orders.orders.recv() => Event::Ordered(order),
                changed = watch.changed() => Event::Changed(changed),
                () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => Event::Late,
            };
            match event {
                Event::Ended(ended) => self.ended(ended).await,
                Event::Made(made) => watch = self.obey(made).await.unwrap_or(watch),
                Event::Late => self.is_late().await,
                Event::Changed(files) => {
                    for file in files {
                        self.file_changed(file / 2).await;
                    }
                }
                Event::Ordered(Order::Rollback { plugin, because, done }) => {
                    let went = self.roll_back(&plugin, because).await;
                    self.done(&plugin, went.is_ok());
                    // Who asked may have gone away; it is done all the same.
                    let _ = done.send(went);
                }
                Event::Ordered(Order::Promote { plugin, found_good, done }) => {
                    let went = self.promote(&plugin, found_good).await;
                    self.done(&plugin, went.is_ok());
                    // The same.
                    let _ = done.send(went);
                }
                Event::Ordered(Order::Settings { wanted, answer }) => self.order(wanted, answer),
            }
        }
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.plugins.iter().position(|plugin| plugin.wanted.name == name)
    }

    fn builds(&mut self, index: usize) -> &mut Builds {
        self.index.plugins.entry(self.plugins[index].wanted.name.clone()).or_default()
    }

    /// Looks at one plugin's file, and loads it where it is a build that was not seen yet.
    async fn look(&mut self, index: usize, who: Who) {
        let path = self.plugins[index].wanted.plugin.path.clone();
        // Off the threads that poll: a file may lie on a slow disk, and compiling takes as long as it takes.
        let file = match blocking(move || load::read(&path)).await {
            Some(Ok(file)) => Arc::new(file),
            Some(Err(refusal)) => return self.unreadable(index, &refusal, who),
            None => return,
        };
        if self.builds(index).found(file.identity()) {
            self.unsaved = true;
            self.show(index);
        }
        let watched = &mut self.plugins[index];
        watched.unreadable = None;
        if watched.live.as_ref().is_some_and(|live| live.digest == file.digest) {
            watched.refused = None;
            if watched.noted {
                self.note(index, None);
            }
            self.release(index, who, "the file holds the live build again").await;
            return self.signature(index, file).await;
        }
        if watched.canary.as_ref().is_some_and(|canary| canary.file.digest == file.digest) {
            return self.signature_of_canary(index, file).await;
        }
        let seen = Seen::of(&file);
        if watched.refused.as_ref().is_some_and(|refused| refused.seen == seen && refused.tries >= refused.most) {
            return;
        }
        if self.builds(index).is_rejected(file.identity()) {
            let plugin = &self.plugins[index].wanted.name;
            tracing::debug!(plugin, digest = %file.digest, "the file holds a build that was rolled back");
            return;
        }
        self.resume(index, file.digest).await;
        self.begin(index, file, who);
    }

    /// Takes a kept build through every step, until new messages are handled with it. It has served already, and somebody waits for it.
    async fn bring_back(&mut self, index: usize, file: &Arc<File>) -> Ended {
        let watched = &self.plugins[index];
        let (wanted, number) = (watched.wanted.clone(), watched.number + 1);
        let progress = Progress::new(self.board.clone(), &wanted.name, file.digest);
        let (at, file) = (progress.clone(), file.clone());
        let order = making::Order { wanted, file, number, tried: false };
        let loaded = self.maker.make(order, Urgency::Back, move |step| at.at(step)).await;
        self.propose_if_good(loaded, Source::Fallback, Place::Live, &progress).await
    }

    async fn propose_if_good(
        &self,
        loaded: Result<Loaded, Refusal>,
        source: Source,
        place: Place,
        progress: &Progress,
    ) -> Ended {
        let ended = match loaded {
            Ok(loaded) => {
                progress.at(if place == Place::Canary { Step::Canary } else { Step::Live });
                if self.propose(&loaded, source, place).await { Ended::Taken(loaded) } else { Ended::NotTaken }
            }
            Err(refusal) => Ended::Refused(refusal),
        };
        progress.over();
        ended
    }

    /// Hands a build to the gateway, and waits until it is what it is to be. Whether it is.
    async fn propose(&self, loaded: &Loaded, source: Source, place: Place) -> bool {
        let (taken, went) = oneshot::channel();
        let Loaded { generation, signed_by } = loaded;
        let proposal = Proposal { generation: generation.clone(), place, source, signed_by: *signed_by, taken };
        // The gateway ends after the registry; without it there is nobody to tell.
        self.proposals.send(proposal).await.is_ok() && went.await.is_ok()
    }

    /// A build is live.
    fn lives(&mut self, index: usize, file: Arc<File>, generation: &Generation) {
        let watched = &mut self.plugins[index];
        // One that was a canary may have a lower number than one that was gone back to meanwhile.
        watched.number = watched.number.max(generation.number());
        watched.serves = generation.number();
        watched.wanted.before = Some(generation.manifest_name().to_owned());
        watched.live = Some(Seen::of(&file));
        self.files.insert(file.digest, file);
        self.unsaved = true;
        self.show(index);
    }

    /// The file is what is live. A signature that lies beside it now is kept with the build where it is good; mostly another one is that
    /// of the build to come, and what is kept must stay what was verified.
    async fn signature(&mut self, index: usize, file: Arc<File>) {
        let watched = &mut self.plugins[index];
        let seen = Some(Seen::of(&file));
        if watched.live == seen {
            return;
        }
        watched.live = seen;
        let (wanted, signed) = (watched.wanted.clone(), file.clone());
        if matches!(blocking(move || load::signer(&wanted, &signed)).await, Some(Ok(_))) {
            self.files.insert(file.digest, file);
            self.unsaved = true;
        }
    }

    /// A vanished file changes nothing for a live plugin: the settings name it, so it stays live.
    fn unreadable(&mut self, index: usize, refusal: &Refusal, who: Who) {
        let reason = refusal.problem.to_string();
        let watched = &mut self.plugins[index];
        if watched.unreadable.as_ref() == Some(&reason) {
            return;
        }
        watched.unreadable = Some(reason);
        if watched.live.is_some() && refusal.problem.is_absence() {
            let path = watched.wanted.plugin.path.display();
            tracing::warn!(plugin = watched.wanted.name, %path, "the plugin's file is gone; the live build goes on");
            return;
        }
        self.refused(index, None, refusal, who);
    }

    fn refused(&mut self, index: usize, file: Option<&File>, refusal: &Refusal, who: Who) {
        let digest = file.map(|file| file.digest);
        let watched = &mut self.plugins[index];
        let before = watched.refused.take().filter(|before| file.is_some_and(|file| before.seen == Seen::of(file)));
        let tries = before.map_or(0, |before| before.tries) + 1;
        let most = if refusal.problem.may_pass() { TRIES } else { 1 };
        watched.refused = file.map(|file| Tried { seen: Seen::of(file), tries, most });
        let name = &watched.wanted.name;
        let remaining = match watched.live {
            Some(_) => "the live build goes on",
            None => "no build of it is live yet, and the gateway connects to nothing until one is",
        };
        tracing::error!(
            plugin = name,
            digest = digest.map(tracing::field::display),
            step = %refusal.step,
            reason = %refusal.problem,
            path = %watched.wanted.plugin.path.display(),
            "a build was refused; {remaining}"
        );
        self.board.plugin_refused(
            name,
            Refused {
                digest: digest.map(|digest| digest.to_string()),
                step: refusal.step.name(),
                reason: refusal.problem.to_string(),
                at: clock::now(),
            },
        );
        self.changed(index, What::Load, digest, who, refusal.step, Some(&refusal.problem));
        self.unsaved = true;
    }
}

/// Of each plugin its file, then the signature beside it. Where signatures count, one of the two may follow the other.
fn files<'a>(plugins: impl Iterator<Item = &'a Wanted>) -> Vec<watch::Watched> {
    let files = |wanted: &Wanted| {
        let at_once = wanted.trust.as_ref().is_none_or(|trust| trust.keys.is_empty() && !trust.required);
        let path = &wanted.plugin.path;
        [path.clone(), load::signature_path(path)].map(|path| watch::Watched { path, at_once })
    };
    plugins.flat_map(files).collect()
}

fn show_path(board: &Board, wanted: &Wanted) {
    let path = &wanted.plugin.path;
    board.plugin_path(&wanted.name, absolute(path).unwrap_or_else(|_| path.clone()).display().to_string());
}

/// What a build is remembered by.
fn build(file: &File, generation: &Generation) -> Build {
    Build {
        digest: file.digest,
        content: Some(file.content).filter(|content| *content != file.digest),
        name: generation.manifest_name().to_owned(),
        version: generation.version().to_owned(),
    }
}

/// Does what blocks off the threads that poll; nothing, where it panicked.
#[expect(clippy::disallowed_methods, reason = "it is awaited here")]
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.inspect_err(|error| tracing::error!(%error, "the plugin registry's work panicked")).ok()
}
