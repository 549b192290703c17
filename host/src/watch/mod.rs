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

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until};

use folders::Folders;
use look::{Look, Sight};

/// Network file systems send no events.
const AGAIN: Duration = Duration::from_secs(30);
/// Between two looks that must be alike.
const QUIET: Duration = Duration::from_millis(100);
/// How long a file that somebody has open for writing may stay as it is before it is taken all the same.
const WRITER_PATIENCE: Duration = Duration::from_secs(30);
/// How long a file may go on changing before it is taken as it is.
const PATIENCE: Duration = Duration::from_secs(300);
/// Events come in swarms; one look is enough for a swarm.
const SWARM: Duration = Duration::from_millis(20);

/// A file to look after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Where it lies.
    pub path: PathBuf,
    /// What is renamed into its place is whole at once, and nothing that belongs to it follows: it is worth reading in that moment.
    pub at_once: bool,
}

/// Looks after files.
pub struct Watch {
    files: Vec<File>,
    noticed: Arc<Noticed>,
    folders: Folders,
    again: Interval,
    /// What is still to be done, where the one who waited went away in the middle of it.
    due: Due,
    /// Where files were renamed to since the last look that came to its end.
    renamed: HashSet<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    Look,
    /// Every file is to be read, whatever it looks like.
    All,
}

struct File {
    watched: Watched,
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
    pub async fn new(files: Vec<Watched>) -> Self {
        let noticed = Arc::new(Noticed::default());
        let mut folders = Folders::new(noticed.clone());
        let sights = look::all(files.iter().map(|file| file.path.clone()).collect()).await;
        folders.follow(&sights);
        let file = |(watched, sight): (Watched, Sight)| File { watched, seen: sight.look, unsettled: None };
        let files = files.into_iter().zip(sights).map(file).collect();
        let mut again = interval_at(Instant::now() + AGAIN, AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { files, noticed, folders, again, due: Due::Nothing, renamed: HashSet::new() }
    }

    /// Waits until it is worth reading files again, and says which.
    ///
    /// # Cancel safety
    /// Nothing is lost: what was noticed and not told is told by the next call.
    pub async fn changed(&mut self) -> Vec<usize> {
        loop {
            if self.due == Due::Nothing {
                self.wait().await;
            }
            let settled = self.look().await;
            if std::mem::replace(&mut self.due, Due::Nothing) == Due::All {
                // By their content: a file's size and time may be those of the one before.
                return (0..self.files.len()).filter(|&index| self.files[index].unsettled.is_none()).collect();
            }
            if !settled.is_empty() {
                return settled;
            }
        }
    }

    /// Waits until something is due.
    async fn wait(&mut self) {
        let next = self.files.iter().any(|file| file.unsettled.is_some()).then(|| Instant::now() + QUIET);
        tokio::select! {
            () = self.noticed.signal.notified() => {
                self.due = Due::Look;
                sleep(SWARM).await;
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.due = Due::Look,
            _ = self.again.tick() => self.due = Due::All,
        }
    }

    /// Looks at every file, and says which of them changed and then stayed as they are.
    async fn look(&mut self) -> Vec<usize> {
        // Before the looks: what is renamed after them is for the next ones.
        self.renamed.extend(self.noticed.take_renamed());
        let sights = look::all(self.files.iter().map(|file| file.watched.path.clone()).collect()).await;
        self.folders.follow(&sights);
        let renamed = std::mem::take(&mut self.renamed);
        let now = Instant::now();
        let mut settled = Vec::new();
        for (index, (file, sight)) in self.files.iter_mut().zip(sights).enumerate() {
            let target = sight.target.as_deref();
            let still = if target.is_some_and(|target| self.noticed.is_written(target)) {
                WRITER_PATIENCE
            } else if file.watched.at_once && target.is_some_and(|target| renamed.contains(target)) {
                Duration::ZERO
            } else {
                QUIET
            };
            if file.settles(sight.look, still, now) {
                settled.push(index);
            }
        }
        settled
    }
}

impl File {
    /// Whether it is another one than was read, and has stayed as it is for so long.
    fn settles(&mut self, look: Look, still: Duration, now: Instant) -> bool {
        if self.unsettled.is_none() && look == self.seen {
            return false;
        }
        let unsettled = self.unsettled.get_or_insert(Unsettled { look, since: now, began: now });
        if unsettled.look != look {
            unsettled.look = look;
            unsettled.since = now;
        }
        let settled = now - unsettled.since >= still;
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
    /// Where files were renamed to.
    renamed: Mutex<HashSet<PathBuf>>,
}

impl Noticed {
    /// Files that are written or renamed at once in the watched folders, beyond which they are not told apart any more.
    const MOST: usize = 1_024;

    fn writing(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renamed(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.renamed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_renamed(&self) -> HashSet<PathBuf> {
        std::mem::take(&mut *self.renamed())
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
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.close(&event.paths);
                let mut renamed = self.renamed();
                let room = Self::MOST.saturating_sub(renamed.len());
                renamed.extend(event.paths.into_iter().take(room));
            }
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => self.close(&event.paths),
            _ => {}
        }
        self.signal.notify_one();
    }

    fn open(&self, paths: &[PathBuf]) {
        let mut writing = self.writing();
        for path in paths {
            if writing.len() < Self::MOST {
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    async fn watching(folder: &TempDir, at_once: bool) -> (PathBuf, Watch) {
        let path = folder.path().canonicalize().expect("a folder").join("file");
        fs::write(&path, "before").expect("written");
        let mut watch = Watch::new(vec![Watched { path: path.clone(), at_once }]).await;
        // What was noticed of its own beginning.
        let _ = timeout(2 * QUIET, watch.changed()).await;
        (path, watch)
    }

    fn rename_to(path: &Path) {
        let beside = path.with_extension("new");
        fs::write(&beside, "after").expect("written");
        fs::rename(beside, path).expect("renamed");
    }

    #[tokio::test]
    async fn what_is_renamed_into_its_place_is_whole_where_nothing_follows() {
        let folder = TempDir::new().expect("a folder");
        for at_once in [true, false] {
            let (path, mut watch) = watching(&folder, at_once).await;
            rename_to(&path);
            let told = async {
                while !watch.noticed.renamed().contains(&path) {
                    watch.noticed.signal.notified().await;
                }
            };
            timeout(AGAIN, told).await.expect("the system says so");
            assert_eq!(watch.look().await, if at_once { vec![0] } else { Vec::new() });
            if !at_once {
                assert_eq!(timeout(AGAIN, watch.changed()).await.expect("told"), [0]);
            }
            assert!(watch.look().await.is_empty(), "told once");
        }
    }

    #[tokio::test]
    async fn what_was_noticed_by_one_who_went_away_is_told_to_the_next() {
        let folder = TempDir::new().expect("a folder");
        let (path, mut watch) = watching(&folder, true).await;
        rename_to(&path);
        let mut told = None;
        while watch.due == Due::Nothing && told.is_none() {
            // Long enough to notice, and shorter than a swarm.
            told = timeout(SWARM / 10, watch.changed()).await.ok();
        }
        let told = match told {
            Some(told) => told,
            None => timeout(AGAIN / 2, watch.changed()).await.expect("before it is looked again anyway"),
        };
        assert_eq!(told, [0]);
    }

    #[tokio::test]
    async fn what_is_written_after_it_was_renamed_is_not_whole() {
        let folder = TempDir::new().expect("a folder");
        let (path, mut watch) = watching(&folder, true).await;
        rename_to(&path);
        let mut file = fs::OpenOptions::new().append(true).open(&path).expect("opened");
        std::io::Write::write_all(&mut file, b" and").expect("written");
        let written = async {
            while !watch.noticed.is_written(&path) {
                watch.noticed.signal.notified().await;
            }
        };
        timeout(AGAIN, written).await.expect("the system says so");
        assert!(watch.look().await.is_empty());
        drop(file);
        assert_eq!(timeout(AGAIN, watch.changed()).await.expect("told"), [0]);
    }
}
