//! One file through all steps. It takes as long as compiling takes, so it is not for a thread that polls.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Identity;
use sluicegate_core::trust::{self, KeyId, MAX_SIGNATURE};

use super::Wanted;
use crate::sandbox::inspect::{self, MAX_FILE_BYTES};
use crate::sandbox::{Generation, Problem, Refusal, Sandbox, Step, block_on, rehearse};
use crate::whole::{self, Links, ReadError};

/// How often a build is loaded that fails for what may pass, and how long after one another.
const LOADS: u32 = 3;
const AGAIN: Duration = Duration::from_millis(500);

/// A file, read once, whole, with the signature that lies beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Of all of them.
    pub digest: Digest,
    /// Of all but a signature inside it.
    pub content: Digest,
    /// What `FILE.minisig` holds.
    pub signature: Option<Vec<u8>>,
}

impl File {
    /// What tells its build from others.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { file: self.digest, content: self.content }
    }
}

/// A build that passed every step.
pub struct Loaded {
    /// It.
    pub generation: Arc<Generation>,
    /// Whose signature it has.
    pub signed_by: Option<KeyId>,
}

/// Where the signature of a plugin's file lies, if it is not inside it.
#[must_use]
pub fn signature_path(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".minisig");
    beside.into()
}

/// Reads a plugin's file whole, and its signature: where it changed meanwhile, once more. What is no regular file is not read.
///
/// # Errors
/// [`Refusal`] at `found`.
pub fn read(path: &Path) -> Result<File, Refusal> {
    read_at(path, Links::Followed)
}

/// The same of a file that this program wrote, and nobody put there as a link.
///
/// # Errors
/// [`Refusal`] at `found`.
pub(super) fn read_kept(path: &Path) -> Result<File, Refusal> {
    read_at(path, Links::Refused)
}

fn read_at(path: &Path, links: Links) -> Result<File, Refusal> {
    let bytes = read_whole(path, MAX_FILE_BYTES, links)?;
    let signature = match read_whole(&signature_path(path), MAX_SIGNATURE as u64, links) {
        Ok(signature) => Some(signature),
        Err(refusal) if refusal.problem.is_absence() => None,
        Err(refusal) => return Err(refusal),
    };
    let digest = inspect::digest(&bytes);
    // What has two signatures inside it is refused as it is verified.
    let content = match trust::split(&bytes) {
        Ok(split) if split.signature.is_some() => inspect::digest(&split.content),
        _ => digest,
    };
    Ok(File { bytes, digest, content, signature })
}

fn read_whole(path: &Path, max: u64, links: Links) -> Result<Vec<u8>, Refusal> {
    whole::read(path, max, links).map_err(|error| {
        let shown = path.display().to_string();
        let problem = match error {
            ReadError::TooLarge { size, max } => Problem::TooLarge { size, max },
            error if error.is_absence() => Problem::Absent(shown),
            error => Problem::File { path: shown, reason: error.to_string() },
        };
        Refusal { step: Step::Found, problem }
    })
}

/// Who signed a build, where the settings take it.
pub(super) fn signer(wanted: &Wanted, file: &File) -> Result<Option<KeyId>, Refusal> {
    let Some(trust) = &wanted.trust else { return Ok(None) };
    trust
        .judge(&wanted.name, wanted.plugin.digest, &file.bytes, file.signature.as_deref())
        .map_err(|distrust| Refusal { step: Step::Verified, problem: distrust.into() })
}

fn load_once(
    sandbox: &Sandbox,
    wanted: &Wanted,
    file: &File,
    number: u64,
    at: &impl Fn(Step),
) -> Result<Loaded, Refusal> {
    let plugin = &wanted.plugin;
    at(Step::Verified);
    // Whose it is comes before what it is: of what nobody trusts nothing is parsed.
    let signed_by = signer(wanted, file)?;
    at(Step::Compiled);
    let (settings, limits, grants) = (plugin.settings.clone(), plugin.limits, &plugin.grants);
    let generation = sandbox.compile(&file.bytes, settings, limits, grants, &wanted.name, number)?;
    at(Step::Checked);
    if let Some(world) = wanted.world
        && world != generation.world()
    {
        let problem = Problem::Role { found: generation.world().to_string(), wanted: world.to_string() };
        return Err(Refusal { step: Step::Checked, problem });
    }
    let named = generation.manifest_name();
    // A build that is pinned is meant, whatever it calls itself.
    let before = wanted.before.as_ref().filter(|_| plugin.digest.is_none());
    if let Some(before) = before.filter(|before| *before != named) {
        let problem = Problem::Other { found: named.to_owned(), wanted: before.clone() };
        return Err(Refusal { step: Step::Checked, problem });
    }
    at(Step::Rehearsed);
    block_on(rehearse(&generation))??;
    Ok(Loaded { generation: Arc::new(generation), signed_by })
}

/// Verifies, compiles, checks and rehearses a build; again where what failed may pass: a sample has no more time than a call, and
/// the machine may be busy. `at` is told each step as it begins.
///
/// # Errors
/// [`Refusal`] names the step and what is wrong.
pub fn load(
    sandbox: &Sandbox,
    wanted: &Wanted,
    file: &File,
    number: u64,
    at: impl Fn(Step),
) -> Result<Loaded, Refusal> {
    let mut tries = 1;
    loop {
        match load_once(sandbox, wanted, file, number, &at) {
            Err(refusal) if refusal.problem.may_pass() && tries < LOADS => {
                tracing::debug!(plugin = wanted.name, %refusal, "a build is tried again");
                tries += 1;
                std::thread::sleep(AGAIN);
            }
            loaded => return loaded,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn refused(path: &Path, part: &str) {
        let refusal = read(path).expect_err("refused");
        assert_eq!(refusal.step, Step::Found);
        assert!(refusal.to_string().contains(part), "{refusal}");
    }

    #[test]
    fn what_is_no_file_of_a_plugins_size_neither_hangs_nor_fills_the_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        refused(&folder.path().join("nothing.wasm"), "no such file");
        refused(folder.path(), "not a regular file");
        let fifo = folder.path().join("fifo.wasm");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
        assert!(made.success());
        refused(&fifo, "not a regular file");
        refused(Path::new("/dev/zero"), "not a regular file");
        let sparse = folder.path().join("sparse.wasm");
        fs::File::create(&sparse).and_then(|file| file.set_len(2 << 30)).expect("a sparse file");
        refused(&sparse, "2147483648 bytes; a plugin may have 33554432");
        let empty = folder.path().join("empty.wasm");
        fs::write(&empty, b"").expect("a file");
        assert_eq!(read(&empty).expect("a file").bytes, b"");
    }
}
