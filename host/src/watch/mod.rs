//! When to look at files again that others write, those of plugins and that of the settings: when the system says that something changed and it then stayed as it was, and
//! every 30 seconds, since network file systems say nothing.
//!
//! - [`folders`]: which folders are watched.
//! - [`look`]: what tells one content of a file from another without reading it.

mod folders;
mod look;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until};

use folders::Folders;
use look::{Look, Sight};

/// Network file systems send no events.
const AGAIN: Duration = Duration::from_secs(30);
/// Between two looks that must be alike: what is renamed or linked into its place is whole at once.
const QUIET: Duration = Duration::from_millis(100);
/// How long a file that somebody has open for writing may stay as it is before it is taken all the same.
const WRITER_PATIENCE: Duration = Duration::from_secs(30);
/// How long a file may go on changing before it is taken as it is.
const PATIENCE: Duration = Duration::from_secs(300);
/// Events come in swarms; one look is enough for a swarm.
const SWARM: Duration = Duration::from_millis(20);

/// Looks after files.
pub struct Watch {
    files: Vec<File>,
    noticed: Arc<Noticed>,
    folders: Folders,
    again: Interval,
}

struct File {
    path: PathBuf,
    /// As it was when it was last read.
    seen: Look,
    unsettled: Option<Unsettled>,
}

struct Unsettled {
    look: Look,
    since: Instant,
    began: Instant,
}

impl Watch {
    /// Watches these files. What changes from now on is noticed.
    pub async fn new(paths: Vec<PathBuf>) -> Self {
        let noticed = Arc::new(Noticed::default());
        let mut folders = Folders::new(noticed.clone());
        let sights = look::all(&paths).await;
        folders.follow(&sights);
        let file = |(path, sight): (PathBuf, Sight)| File { path, seen: sight.look, unsettled: None };
        let files = paths.into_iter().zip(sights).map(file).collect();
        let mut again = interval_at(Instant::now() + AGAIN, AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { files, noticed, folders, again }
    }

    /// Waits until it is worth reading files again, and says which.
    ///
    /// # Cancel safety
    /// Nothing is lost: what was noticed and not told is told by the next call.
    pub async fn changed(&mut self) -> Vec<usize> {
        loop {
            let next = self.files.iter().any(|file| file.unsettled.is_some()).then(|| Instant::now() + QUIET);
            tokio::select! {
                () = self.noticed.signal.notified() => sleep(SWARM).await,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                _ = self.again.tick() => {
                    // By their content: a file's size and time may be those of the one before.
                    self.look().await;
                    return (0..self.files.len()).filter(|&index| self.files[index].unsettled.is_none()).collect();
                }
            }
            let settled = self.look().await;
            if !settled.is_empty() {
                return settled;
            }
        }
    }

    /// Looks at every file, and says which of them changed and then stayed as they are.
    async fn look(&mut self) -> Vec<usize> {
        let paths: Vec<PathBuf> = self.files.iter().map(|file| file.path.clone()).collect();
        let sights = look::all(&paths).await;
        self.folders.follow(&sights);
        let now = Instant::now();
        let mut settled = Vec::new();
        for (index, (file, sight)) in self.files.iter_mut().zip(sights).enumerate() {
            let writing = sight.target.as_deref().is_some_and(|target| self.noticed.is_written(target));
            if file.settles(sight.look, writing, now) {
                settled.push(index);
            }
        }
        settled
    }
}

impl File {
    fn settles(&mut self, look: Look, writing: bool, now: Instant) -> bool {
        let Some(unsettled) = &mut self.unsettled else {
            if look != self.seen {
                self.unsettled = Some(Unsettled { look, since: now, began: now });
            }
            return false;
        };
        if unsettled.look != look {
            unsettled.look = look;
            unsettled.since = now;
        }
        let still = now - unsettled.since;
        let settled = still >= if writing { WRITER_PATIENCE } else { QUIET };
        if !settled && now - unsettled.began < PATIENCE {
            return false;
        }
        self.unsettled = None;
        let changed = look != self.seen;
        self.seen = look;
        changed
    }
}

/// What the system said since the last look.
#[derive(Default)]
struct Noticed {
    /// One permit: a signal that waits says that something changed, and more of them say no more.
    signal: Notify,
    /// Files that somebody writes to and has not closed yet. A slow copy that stalls looks finished; only this tells.
    writing: Mutex<HashSet<PathBuf>>,
}

impl Noticed {
    /// Files that are written at once in the watched folders, beyond which they are not told apart any more.
    const MAX_WRITING: usize = 1_024;

    fn writing(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_written(&self, path: &Path) -> bool {
        self.writing().contains(path)
    }

    fn take(&self, event: notify::Result<notify::Event>) {
        // An error means that events were lost: whoever was writing may be through.
        let Ok(event) = event else {
            self.writing().clear();
            return self.signal.notify_one();
        };
        if event.need_rescan() {
            self.writing().clear();
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => self.close(&event.paths),
            // Reading is no change; the registry itself does it.
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) => self.open(&event.paths),
            EventKind::Create(CreateKind::File) => {
                // A link is whole at once, and nobody closes it.
                let file = |path: &&PathBuf| fs::symlink_metadata(path).is_ok_and(|data| is_new_file(&data));
                let files: Vec<PathBuf> = event.paths.iter().filter(file).cloned().collect();
                self.open(&files);
            }
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => self.close(&event.paths),
            _ => {}
        }
        self.signal.notify_one();
    }

    fn open(&self, paths: &[PathBuf]) {
        let mut writing = self.writing();
        for path in paths {
            if writing.len() < Self::MAX_WRITING {
                writing.insert(path.clone());
            }
        }
    }

    fn close(&self, paths: &[PathBuf]) {
        let mut writing = self.writing();
        for path in paths {
            writing.remove(path);
        }
    }
}

fn is_new_file(data: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    data.is_file() && data.nlink() == 1
}
