//! Which folders are watched: those in which a change may put another file in a plugin's place. They change themselves,
//! where a symlink on the way is switched or a folder is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::look::Sight;
use super::{AGAIN, Noticed};

/// The watched folders. The folders, not the files: a rename puts another file in the place.
pub(super) struct Folders {
    watcher: Option<RecommendedWatcher>,
    /// Each with its device and inode: another folder in its place needs a watch of its own.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    /// Those that cannot be watched, so that it is said once.
    refused: BTreeSet<PathBuf>,
}

impl Folders {
    pub(super) fn new(noticed: Arc<Noticed>) -> Self {
        let watcher = notify::recommended_watcher(move |event| noticed.take(event))
            .inspect_err(|error| tracing::warn!(%error, "cannot watch files; they are looked at every {AGAIN:?}"))
            .ok();
        Self { watcher, watched: BTreeMap::new(), refused: BTreeSet::new() }
    }

    /// Watches the folders of these files and no others.
    pub(super) fn follow(&mut self, sights: &[Sight]) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted: BTreeSet<&PathBuf> = sights.iter().flat_map(|sight| &sight.folders).collect();
        let stale = |path: &PathBuf, id: &(u64, u64)| !wanted.contains(path) || identity(path) != Some(*id);
        self.watched.retain(|path, id| {
            let stale = stale(path, id);
            if stale {
                // It is gone, or will not be asked again.
                let _ = watcher.unwatch(path);
            }
            !stale
        });
        for path in wanted {
            let Some(id) = identity(path) else {
                continue;
            };
            if self.watched.contains_key(path) {
                continue;
            }
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone(), id);
                    self.refused.remove(path);
                }
                Err(error) if self.refused.insert(path.clone()) => {
                    let folder = path.display();
                    tracing::warn!(%folder, %error, "cannot watch a folder; it is looked at every {AGAIN:?}");
                }
                Err(_) => {}
            }
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
}
