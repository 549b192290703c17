//! The state folder: the builds that are or were live, which of them is which, and what changed. It outlives a restart.
//!
//! `plugins-INSTANCE/index.json` and `history.json`, `plugins-INSTANCE/builds/DIGEST.wasm` with the `.minisig` that lay beside
//! its file. What is here is no more trusted than a plugin's file: it goes through the same steps. But it says what was live and what is not tried
//! again, so nobody else may write here, and no link is followed.

use std::collections::HashSet;
use std::fs::{self, File as SystemFile, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Builds;

use super::history::Change;
use super::load::{self, File};
use crate::lock::Lock;
use crate::whole::{self, Links};

/// How the index is written; another one is another program's.
const VERSION: u32 = 1;
const INDEX: &str = "index.json";
const HISTORY: &str = "history.json";
/// The largest of the two: the index has a few lines a plugin, the history a hundred changes.
const MAX_JSON: u64 = 16 << 20;

/// Why a build is not kept, or what is kept cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    /// The system's word.
    #[error("cannot {what} {} (gateway.state, its permissions, and the room on its disk)", path.display())]
    System {
        /// What was to be done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is somebody else's, or others may write there.
    #[error(
        "{} is not this user's alone ({found}), so what is kept there would be others' to choose: `chown` it and `chmod 700` it, or remove it",
        path.display()
    )]
    NotOurs {
        /// Which folder.
        path: PathBuf,
        /// Owner and mode.
        found: String,
    },
    /// Another process writes there.
    #[error("another gateway keeps its builds in {}; give each its own gateway.instance or gateway.state", .0.display())]
    InUse(PathBuf),
    /// It cannot be understood.
    #[error("{} is damaged ({reason}); it was put aside as {aside}, and is written anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// Its new name.
        aside: String,
    },
    /// A newer program wrote it.
    #[error("{} is of version {found}, and this gateway knows version {VERSION}; give it another gateway.state", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Which builds of which plugin there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Index {
    version: u32,
    /// By the settings' name of the plugin.
    pub(super) plugins: IndexMap<String, Builds>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { version: VERSION, plugins: IndexMap::new() }
    }

    /// Every build that a plugin may need.
    pub(super) fn kept(&self) -> HashSet<Digest> {
        self.plugins.values().flat_map(Builds::kept).map(|build| build.digest).collect()
    }
}

/// The folder of one instance. It blocks: not for a thread that polls.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
    lock: Arc<Mutex<Option<Lock>>>,
}

impl Folder {
    /// Of this instance, below `state`. Nothing is touched yet.
    pub(super) fn new(state: &Path, instance: &str) -> Self {
        // The instance's name is no path: it has letters, digits, `_`, `.` and `-`, and stands behind a word.
        Self { path: state.join(format!("plugins-{instance}")), lock: Arc::default() }
    }

    /// What an earlier run left. It may be read where it cannot be written.
    ///
    /// # Errors
    /// [`FolderError`]; with [`FolderError::Damaged`] what was damaged is out of the way.
    pub(super) fn read(&self) -> Result<(Index, Vec<Change>), FolderError> {
        for folder in [&self.path, &self.builds()] {
            match ours(folder) {
                Err(FolderError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => drop(other?),
            }
        }
        let index = match self.read_json(INDEX, |index: &Index| index.version)? {
            Some(index) => index,
            None => Index::new(),
        };
        #[derive(Deserialize)]
        struct Written {
            version: u32,
            changes: Vec<Change>,
        }
        let history = self.read_json(HISTORY, |written: &Written| written.version)?;
        Ok((index, history.map(|written| written.changes).unwrap_or_default()))
    }

    fn read_json<T: for<'de> Deserialize<'de>>(
        &self,
        name: &str,
        version: impl Fn(&T) -> u32,
    ) -> Result<Option<T>, FolderError> {
        let path = self.path.join(name);
        let bytes = match whole::read(&path, MAX_JSON, Links::Refused) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absence() => return Ok(None),
            Err(error) => return Err(FolderError::System { what: "read", path, source: error.into() }),
        };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if let Ok(Versioned { version: found }) = serde_json::from_slice(&bytes)
            && found != VERSION
        {
            return Err(FolderError::Foreign { path, found });
        }
        match serde_json::from_slice::<T>(&bytes) {
            Ok(value) if version(&value) == VERSION => Ok(Some(value)),
            wrong => {
                let reason = wrong.err().map_or_else(String::new, |error| error.to_string());
                let aside = format!("{name}.damaged");
                fs::rename(&path, self.path.join(&aside)).map_err(|source| FolderError::System {
                    what: "put aside",
                    path: path.clone(),
                    source,
                })?;
                Err(FolderError::Damaged { path, reason, aside })
            }
        }
    }

    fn builds(&self) -> PathBuf {
        self.path.join("builds")
    }

    /// The file of a build that is kept.
    pub(super) fn file(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.builds().join(format!("{}.wasm", name.trim_start_matches("sha256:")))
    }

    /// Writes down what is so now, and removes the builds that nobody needs any more: first the builds, then what names them,
    /// so that an end at any point leaves an index whose builds are there.
    ///
    /// # Errors
    /// [`FolderError`]: what was written before may stand there in part, and is whole with the next call that succeeds.
    pub(super) fn save(&self, index: &Index, files: &[Arc<File>], history: &[Change]) -> Result<(), FolderError> {
        // Held until the end: a save that nobody waits for any more may still be at work.
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock(&mut held)?;
        for file in files {
            let path = self.file(file.digest);
            write_changed(&path, &file.bytes)?;
            let beside = load::signature_path(&path);
            match &file.signature {
                Some(signature) => write_changed(&beside, signature)?,
                None => remove(&beside)?,
            }
        }
        write_changed(&self.path.join(INDEX), &json(index))?;
        let history = serde_json::json!({ "version": VERSION, "changes": history });
        write_changed(&self.path.join(HISTORY), &json(&history))?;
        self.prune(&index.kept());
        Ok(())
    }

    /// Taken by the first write, kept until the end.
    fn lock(&self, held: &mut Option<Lock>) -> Result<(), FolderError> {
        let cannot = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::System { what: "use", path, source }
        };
        let builds = self.builds();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&builds).map_err(cannot(&builds))?;
        for folder in [&self.path, &builds] {
            // It may be for others to look into: it was made by hand, say.
            ours(folder)?.set_permissions(fs::Permissions::from_mode(0o700)).map_err(cannot(folder))?;
        }
        if held.is_some() {
            return Ok(());
        }
        let path = self.path.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(cannot(&path))?;
        let lock = Lock::take(file).map_err(|error| match error {
            TryLockError::WouldBlock => FolderError::InUse(self.path.clone()),
            TryLockError::Error(source) => cannot(&path)(source),
        })?;
        *held = Some(lock);
        Ok(())
    }

    /// Removes builds that are not kept, and what an end in the middle of a write left; files of other names are somebody's who put them there. What
    /// cannot be removed is tried again with the next change.
    fn prune(&self, kept: &HashSet<Digest>) {
        let names: HashSet<PathBuf> =
            kept.iter().map(|digest| self.file(*digest)).flat_map(|path| [load::signature_path(&path), path]).collect();
        let of_build = |path: &PathBuf| !names.contains(path) && name(path).is_some_and(is_of_build);
        let of_list =
            |path: &PathBuf| name(path).and_then(whole::unfinished).is_some_and(|it| [INDEX, HISTORY].contains(&it));
        let (builds, lists) = (entries(&self.builds()), entries(&self.path));
        for path in builds.filter(of_build).chain(lists.filter(of_list)) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a build that is not needed any more cannot be removed");
            }
        }
    }
}

/// A folder that nobody else may write to; no link to one.
fn ours(path: &Path) -> Result<SystemFile, FolderError> {
    let cannot = |source| FolderError::System { what: "use", path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let folder = options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path).map_err(cannot)?;
    let found = folder.metadata().map_err(cannot)?;
    if found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(folder);
    }
    let found = format!("owner {}, mode {:o}", found.uid(), found.mode() & 0o7777);
    Err(FolderError::NotOurs { path: path.to_owned(), found })
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Whether this program gives a file of a build such a name: `DIGEST.wasm`, `DIGEST.wasm.minisig`, or one of them before it is whole.
fn is_of_build(name: &str) -> bool {
    let name = whole::unfinished(name).unwrap_or(name);
    let digits = name.strip_suffix(".minisig").unwrap_or(name).strip_suffix(".wasm");
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Invariant: it is made of texts, numbers and lists.
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// What is there already is compared byte by byte: it may be damaged, or half of it.
fn write_changed(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    if whole::read(path, bytes.len() as u64, Links::Refused).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    whole::write(path, bytes, 0o600).map_err(|source| FolderError::System {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), FolderError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FolderError::System { what: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
