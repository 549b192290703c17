//! When to look at the plugins' files again: when the system says that something changed and it then stayed as it was, and
//! every 30 seconds, since network file systems say nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Network file systems send no events.
const AGAIN: Duration = Duration::from_secs(30);
/// A file is read after it stayed as it was for so long: an atomic rename is whole at once.
const QUIET: Duration = Duration::from_millis(100);
/// A file that is no whole component yet may still be being copied: it is given so much longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks after the plugins' files.
pub(super) struct Watch {
    paths: Vec<PathBuf>,
    /// One place: a signal that waits says that something changed, and more of them say no more.
    events: mpsc::Receiver<()>,
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let (signal, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = signal.try_send(());
            }
        });
        let watcher = match watcher {
            Ok(mut watcher) => {
                // The folders, not the files: a rename or a switched symlink puts another file in the place.
                let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| folder(path)).collect();
                for folder in folders {
                    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                        tracing::warn!(folder = %folder.display(), %error, "cannot watch a folder; it is looked at every {AGAIN:?}");
                    }
                }
                Some(watcher)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot watch files; they are looked at every {AGAIN:?}");
                None
            }
        };
        Self { paths, events, _watcher: watcher }
    }

    /// Waits until it is worth looking at the files again.
    ///
    /// # Cancel safety
    /// Dropped, a change that was signalled may be seen only at the next one, or after 30 seconds.
    pub(super) async fn changed(&mut self) {
        match timeout(AGAIN, self.events.recv()).await {
            Ok(Some(())) => self.settled().await,
            // No watcher: nothing will ever be signalled.
            Ok(None) => sleep(AGAIN).await,
            Err(_) => {}
        }
    }

    async fn settled(&mut self) {
        let began = Instant::now();
        let mut before = self.looks();
        loop {
            sleep(QUIET).await;
            let _ = self.events.try_recv();
            let now = self.looks();
            if now == before && (began.elapsed() >= PATIENCE || self.whole()) {
                return;
            }
            if now != before && began.elapsed() >= AGAIN {
                return;
            }
            before = now;
        }
    }

    /// What tells one content of a file from another without reading it.
    fn looks(&self) -> Vec<Option<(u64, SystemTime)>> {
        let look = |path: &PathBuf| fs::metadata(path).ok().and_then(|data| Some((data.len(), data.modified().ok()?)));
        self.paths.iter().map(look).collect()
    }

    /// Whether every file could be a whole component. Reading them costs a few milliseconds, on a change only.
    fn whole(&self) -> bool {
        self.paths.iter().all(|path| match super::load::read(path) {
            Ok(file) => wasmparser::Parser::new(0).parse_all(&file.bytes).all(|part| part.is_ok()),
            Err(_) => true,
        })
    }
}

fn folder(path: &Path) -> Option<&Path> {
    path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}
