//! Files, read and written whole. What lies at a path may be anybody's doing: a FIFO, a device, a link that leads elsewhere, a file that changes
//! while it is read, a name that somebody took beforehand.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

/// Readings of a file that changes meanwhile.
const MAX_TRIES: u32 = 20;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);
/// How a name ends whose file is not whole yet.
const NEW: &str = ".new";
/// What stands before that is drawn: nobody takes the name beforehand.
const DRAWN: usize = 16;

/// Whether a path may be a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// It may: a person put it there.
    Followed,
    /// It may not: only this program writes there.
    Refused,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system's word.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A folder, a FIFO, a device, a link.
    #[error("not a regular file")]
    NotRegular,
    /// Larger than it may be.
    #[error("it has {size} bytes; {max} are the most")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// It never stayed as it is.
    #[error("it changes while it is read; copy it beside and rename it")]
    Changing,
}

impl ReadError {
    /// Whether there is no file at all.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::System(error) => error,
            other => Self::other(other),
        }
    }
}

/// A regular file's bytes, at most so many; where it changed meanwhile it is read once more. It blocks for a second at the most.
///
/// # Errors
/// [`ReadError`]
pub fn read(path: &Path, max: u64, links: Links) -> Result<Vec<u8>, ReadError> {
    for _ in 0..MAX_TRIES {
        if let Some(bytes) = read_once(path, max, links)? {
            return Ok(bytes);
        }
        std::thread::sleep(PAUSE);
    }
    Err(ReadError::Changing)
}

/// Nothing, where the file changed while it was read.
fn read_once(path: &Path, max: u64, links: Links) -> Result<Option<Vec<u8>>, ReadError> {
    // Looked at before it is opened, since opening a device may do something; and after, since it may be another now. A FIFO
    // that took the file's place in between does not hold the opening up.
    let (found, flags) = match links {
        Links::Followed => (fs::metadata(path)?, libc::O_NONBLOCK),
        Links::Refused => (fs::symlink_metadata(path)?, libc::O_NONBLOCK | libc::O_NOFOLLOW),
    };
    check(&found, max)?;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let before = file.metadata()?;
    check(&before, max)?;
    let mut bytes = Vec::with_capacity(usize::try_from(before.len()).unwrap_or(0));
    // It may have grown since: one byte more than is allowed tells.
    (&mut file).take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    check_size(bytes.len() as u64, max)?;
    let after = file.metadata()?;
    let same = after.len() == bytes.len() as u64
        && (after.mtime(), after.mtime_nsec()) == (before.mtime(), before.mtime_nsec());
    Ok(same.then_some(bytes))
}

fn check(found: &fs::Metadata, max: u64) -> Result<(), ReadError> {
    if found.is_file() { check_size(found.len(), max) } else { Err(ReadError::NotRegular) }
}

fn check_size(size: u64, max: u64) -> Result<(), ReadError> {
    if size > max { Err(ReadError::TooLarge { size, max }) } else { Ok(()) }
}

/// Puts a file into its place whole or not at all, for those who may read what was there before, or everybody.
///
/// # Errors
/// The system's word; what was there stays.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, fs::metadata(path).map_or(0o644, |there| there.mode() & 0o777))
}

/// Writes a file beside its place, in a name that nobody can guess or has taken, then renames it: whole or not at all, and on the disk, its name too,
/// when this returns.
///
/// # Errors
/// The system's word; what was there stays.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = beside(path)?;
    let written = (|| {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        // On a full disk the half of a file would take the room of what comes later.
        let _ = fs::remove_file(&new);
    }
    written?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// `.NAME.0123456789abcdef.new`, in the same folder.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut drawn = [0; DRAWN / 2];
    if getrandom(&mut drawn, GetRandomFlags::empty())? < drawn.len() {
        return Err(io::Error::other("the system gives no random bytes"));
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(format!(".{:0DRAWN$x}{NEW}", u64::from_ne_bytes(drawn)));
    Ok(path.with_file_name(name))
}

/// Of which file a name is the unfinished one, which an end in the middle left.
#[must_use]
pub fn unfinished(name: &str) -> Option<&str> {
    let (name, drawn) = name.strip_prefix('.')?.strip_suffix(NEW)?.rsplit_once('.')?;
    (drawn.len() == DRAWN && drawn.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[track_caller]
    fn refused(path: &Path, links: Links) -> String {
        read(path, 100, links).expect_err("refused").to_string()
    }

    #[test]
    fn only_a_regular_file_is_read_and_a_link_where_it_may_be_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link, fifo) = (folder.path().join("file"), folder.path().join("link"), folder.path().join("fifo"));
        fs::write(&file, b"bytes").expect("a file");
        symlink(&file, &link).expect("a link");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        for links in [Links::Followed, Links::Refused] {
            assert_eq!(read(&file, 5, links).expect("a file"), b"bytes");
            for no_file in [folder.path(), &fifo, Path::new("/dev/zero")] {
                assert_eq!(refused(no_file, links), "not a regular file");
            }
            assert!(matches!(read(&file, 4, links), Err(ReadError::TooLarge { size: 5, max: 4 })));
            assert!(read(&folder.path().join("none"), 4, links).expect_err("none").is_absence());
        }
        assert_eq!(read(&link, 5, Links::Followed).expect("a file"), b"bytes");
        assert_eq!(refused(&link, Links::Refused), "not a regular file");
    }

    #[test]
    fn what_is_written_is_whole_in_place_of_a_link_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, elsewhere) = (folder.path().join("file"), folder.path().join("elsewhere"));
        fs::write(&elsewhere, b"others'").expect("a file");
        symlink(&elsewhere, &file).expect("a link");
        write(&file, b"ours", 0o600).expect("written");
        assert_eq!(
            (fs::read(&file).expect("read"), fs::read(&elsewhere).expect("read")),
            (b"ours".into(), b"others'".into())
        );
        assert_eq!(fs::symlink_metadata(&file).expect("a file").mode() & 0o7777, 0o600);
        replace(&file, b"again").expect("written");
        assert_eq!(fs::metadata(&file).expect("a file").mode() & 0o7777, 0o600);
        replace(&folder.path().join("new"), b"for all").expect("written");
        assert_eq!(fs::metadata(folder.path().join("new")).expect("a file").mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3);
        // What cannot be put there is not left beside it.
        assert!(write(folder.path(), b"", 0o600).is_err());
        fs::create_dir(folder.path().join("folder")).expect("a folder");
        assert!(write(&folder.path().join("folder"), b"", 0o600).is_err());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 4);
    }

    #[test]
    fn what_is_unfinished_is_told_by_its_name() {
        let path = beside(Path::new("a/b.wasm")).expect("a name");
        assert_ne!(path, beside(Path::new("a/b.wasm")).expect("a name"));
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert_eq!((path.parent(), unfinished(name)), (Some(Path::new("a")), Some("b.wasm")));
        for other in ["b.wasm", ".b.wasm.new", ".b.wasm.0123456789abcde.new", ".b.wasm.0123456789abcdeg.new", ".new"] {
            assert_eq!(unfinished(other), None, "{other}");
        }
    }
}
