//! Compiled code on the disk, by the file's digest and by the engine's version and settings.
//!
//! What stands here is run as it is read, so two things guard it. The folder is this user's alone (0700): who can write there can do whatever
//! the gateway can anyway. And each file carries a MAC by a key that only this folder has: what is damaged, cut short, under another file's
//! name, of another version or from another machine is not run but compiled anew.

use std::cmp::Reverse;
use std::fs::{DirBuilder, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};
use sluicegate_core::digest::Digest;
use wasmtime::Engine;

use super::child::MAX_ARTEFACT_BYTES;
use super::precompiled::Artefact;

/// Within the folder of the state.
const FOLDER: &str = "compiled";
/// The key's file, within it.
const KEY: &str = "key";
/// Files that are kept, and bytes; beyond them the one that was not used for longest goes.
const MAX_FILES: usize = 64;
const MAX_BYTES: u64 = 1 << 30;
const MAC_BYTES: usize = 32;
/// The largest file that is read.
const MAX_FILE_BYTES: u64 = MAX_ARTEFACT_BYTES + MAC_BYTES as u64;

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be made or read.
    #[error("{path}: {source}")]
    Io {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may write or read it: what stands there would be theirs to choose.
    #[error(
        "{path} is not this user's alone ({found}); what stands there would run as the gateway: `chown` it and `chmod 700` it, or remove it"
    )]
    NotOurs {
        /// Which.
        path: PathBuf,
        /// Owner and mode.
        found: String,
    },
}

/// A folder of compiled code.
pub struct Cache {
    folder: OwnedFd,
    path: PathBuf,
    key: [u8; 32],
}

impl Cache {
    /// The folder within `state`, made where it is missing.
    ///
    /// # Errors
    /// [`CacheError`], where it cannot be made or is not this user's alone.
    pub fn make(state: &Path) -> Result<Self, CacheError> {
        let path = state.join(FOLDER);
        let failed = |source: io::Error| CacheError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let gone = || failed(io::Error::other("it was removed in the moment that it was made"));
        Self::open(state)?.ok_or_else(gone)
    }

    /// The folder within `state`; none, where it is missing.
    ///
    /// # Errors
    /// [`CacheError`], where it cannot be read or is not this user's alone.
    pub fn open(state: &Path) -> Result<Option<Self>, CacheError> {
        let path = state.join(FOLDER);
        let failed = |source: io::Error| CacheError::Io { path: path.clone(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let metadata = File::from(folder.try_clone().map_err(failed)?).metadata().map_err(failed)?;
        if let Some(found) = not_ours(&metadata) {
            return Err(CacheError::NotOurs { path, found });
        }
        let key = key(&folder).map_err(failed)?;
        Ok(Some(Self { folder, path, key }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The code of a file; none: it was never compiled by this engine. It was read once, and what is given back is what was checked.
    pub(super) fn get(&self, engine: &Engine, digest: &Digest) -> io::Result<Option<Artefact>> {
        let compatibility = compatibility(engine);
        let name = name(&compatibility, digest);
        let mut file = match open(&self.folder, &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || not_ours(&metadata).is_some() {
            return Err(io::Error::other("it is not a file of this user alone"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(MAX_FILE_BYTES)).unwrap_or(0));
        (&mut file).take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        let code = bytes.split_off(MAC_BYTES.min(bytes.len()));
        self.mac(&compatibility, digest, &code)
            .verify_slice(&bytes)
            .map_err(|_| io::Error::other("it is damaged, or another program wrote it"))?;
        // What was used lately stays longest. Where that cannot be written down it goes a little earlier.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let _ = fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        Ok(Some(Artefact::authenticated(code)))
    }

    /// Keeps the code of a file, whole or not at all.
    pub(super) fn put(&self, engine: &Engine, digest: &Digest, artefact: &Artefact) -> io::Result<()> {
        let compatibility = compatibility(engine);
        let mac = self.mac(&compatibility, digest, artefact.bytes()).finalize().into_bytes();
        let beside = beside()?;
        let written = create(&self.folder, &beside).and_then(|mut file| {
            file.write_all(&mac)?;
            file.write_all(artefact.bytes())?;
            // Not synced: what a power cut leaves of it has no good MAC.
            Ok(fs::renameat(&self.folder, &beside, &self.folder, name(&compatibility, digest))?)
        });
        if written.is_err() {
            let _ = fs::unlinkat(&self.folder, &beside, AtFlags::empty());
        }
        self.evict()?;
        written
    }

    /// Takes the code of a file away.
    pub(super) fn remove(&self, engine: &Engine, digest: &Digest) {
        // Where it stays it is refused again.
        let _ = fs::unlinkat(&self.folder, name(&compatibility(engine), digest), AtFlags::empty());
    }

    fn mac(&self, compatibility: &[u8; 32], digest: &Digest, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("invariant: a key of any length fits");
        // All but the last part have one length: no two inputs look alike.
        mac.update(b"sluicegate compiled 1");
        mac.update(compatibility);
        mac.update(&digest.0);
        mac.update(code);
        mac
    }

    /// Removes what is beyond the bounds, the oldest first; what a process left half-written, too, once it is old.
    fn evict(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::Dir::read_from(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_owned();
            if name.to_bytes() == KEY.as_bytes() {
                continue;
            }
            let Ok(found) = fs::statat(&self.folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if fs::FileType::from_raw_mode(found.st_mode) == fs::FileType::RegularFile {
                files.push(((found.st_mtime, found.st_mtime_nsec), u64::try_from(found.st_size).unwrap_or(0), name));
            }
        }
        // The newest first.
        files.sort_unstable_by_key(|(time, ..)| Reverse(*time));
        let mut bytes = 0;
        for (index, (_, size, name)) in files.into_iter().enumerate() {
            bytes += size;
            if index >= MAX_FILES || bytes > MAX_BYTES {
                fs::unlinkat(&self.folder, &name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

/// Owner and mode, where another than this user may read or write it.
fn not_ours(metadata: &std::fs::Metadata) -> Option<String> {
    let ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0;
    (!ours).then(|| format!("owner {}, mode {:o}", metadata.uid(), metadata.mode() & 0o7777))
}

fn open(folder: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(fs::openat(folder, name, flags, Mode::empty())?.into())
}

fn create(folder: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// A name for what is not whole yet.
fn beside() -> io::Result<String> {
    Ok(format!(".new-{:016x}", u64::from_ne_bytes(random()?)))
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    match getrandom(&mut bytes, GetRandomFlags::empty())? {
        length if length == N => Ok(bytes),
        _ => Err(io::Error::other("the system gives no random bytes")),
    }
}

/// The folder's key: made once, by whoever comes first. One that is none, or that others may read, is made anew; what was kept by it is then
/// compiled anew.
fn key(folder: &OwnedFd) -> io::Result<[u8; 32]> {
    match open(folder, KEY) {
        Ok(file) => {
            let mut bytes = Vec::with_capacity(33);
            let metadata = file.metadata()?;
            if metadata.is_file() && not_ours(&metadata).is_none() {
                file.take(33).read_to_end(&mut bytes)?;
            }
            match bytes.try_into() {
                Ok(key) => return Ok(key),
                Err(_) => fs::unlinkat(folder, KEY, AtFlags::empty())?,
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let (beside, fresh) = (beside()?, random::<32>()?);
    let mut file = create(folder, &beside)?;
    file.write_all(&fresh)?;
    file.sync_all()?;
    // A link is made whole or not at all, and not over another one's.
    let linked = fs::linkat(folder, &beside, folder, KEY, AtFlags::empty());
    fs::unlinkat(folder, &beside, AtFlags::empty())?;
    match linked {
        Ok(()) => Ok(fresh),
        Err(rustix::io::Errno::EXIST) => {
            let mut key = [0; 32];
            open(folder, KEY)?.read_exact(&mut key)?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

/// The engine's version, its settings and the machine's features, as one digest.
fn compatibility(engine: &Engine) -> [u8; 32] {
    /// Takes what is hashed as it comes: the standard library's own hashers may change with it.
    struct Feed(Sha256);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut feed = Feed(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut feed);
    feed.0.finalize().into()
}

fn name(compatibility: &[u8; 32], digest: &Digest) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{}-{}", hex(&digest.0), hex(&compatibility[..8]))
}
