//! One file through all steps. It takes as long as compiling takes, so it is not for a thread that polls.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use sluicegate_core::digest::Digest;

use super::Wanted;
use crate::sandbox::inspect::{self, MAX_FILE_BYTES};
use crate::sandbox::{Generation, Problem, Refusal, Sandbox, Step, rehearse};

/// A file, read once, whole.
pub struct File {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Of all of them.
    pub digest: Digest,
}

/// Reads a plugin's file. What is no regular file is not opened: a FIFO would wait for ever.
///
/// # Errors
/// [`Refusal`] at `found`.
pub fn read(path: &Path) -> Result<File, Refusal> {
    let wrong = |reason: String| {
        Refusal { step: Step::Found, problem: Problem::File { path: path.display().to_string(), reason } }
    };
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => wrong("no such file; check the plugin's path".to_owned()),
        _ => wrong(error.to_string()),
    };
    let metadata = fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(wrong("not a regular file".to_owned()));
    }
    let too_large = |size| Refusal { step: Step::Found, problem: Problem::TooLarge { size, max: MAX_FILE_BYTES } };
    if metadata.len() > MAX_FILE_BYTES {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    // It may have grown since: one byte more than is allowed tells.
    fs::File::open(path).map_err(cannot)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    let digest = inspect::digest(&bytes);
    Ok(File { bytes, digest })
}

/// Verifies, compiles, checks and rehearses a build.
///
/// # Errors
/// [`Refusal`] names the step and what is wrong.
pub fn load(sandbox: &Sandbox, wanted: &Wanted, file: &File, number: u64) -> Result<Generation, Refusal> {
    let plugin = &wanted.plugin;
    let generation = sandbox.compile(&file.bytes, plugin.settings.clone(), plugin.limits, &wanted.name, number)?;
    if let Some(world) = wanted.world
        && world != generation.world()
    {
        let problem = Problem::Role { found: generation.world().to_string(), wanted: world.to_string() };
        return Err(Refusal { step: Step::Checked, problem });
    }
    // Guests run on a thread of their own, never on one that polls sockets: this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Refusal { step: Step::Rehearsed, problem: Problem::Engine(error.to_string()) })?;
    runtime.block_on(rehearse(&generation))?;
    Ok(generation)
}
