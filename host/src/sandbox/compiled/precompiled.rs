//! Compiled code: bytes that are run as they are read. The engine checks that they are of its own version and settings; that they are what a
//! compiler wrote, nobody checks: altered ones may do whatever this process may.
//!
//! So an [`Artefact`] is made in three ways only, each of which says why its bytes are the compiler's.
#![expect(
    unsafe_code,
    reason = "the engine cannot know who wrote compiled code; this module does, and is the only one"
)]

use std::fs::File;
use std::io::{self, Read as _, Seek as _};

use wasmtime::Engine;
use wasmtime::component::Component;

/// Code that this program's compiler wrote, whole, and nobody altered.
pub(super) struct Artefact(Vec<u8>);

impl Artefact {
    /// Compiles in this process: the bytes never leave it.
    pub(super) fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        engine.precompile_component(bytes).map(Self)
    }

    /// What the compiling process left in the file that was its standard output, after it ended well. The file has no name: it was made by this
    /// process, and the only other one that ever had it is this program too. What was read is used, whatever happens to the file later.
    pub(super) fn left_by_the_child(mut output: File) -> io::Result<Self> {
        output.rewind()?;
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// What stood in the cache. The caller checked the MAC over exactly these bytes in memory, and with it that a gateway which knows the
    /// folder's key wrote them for this digest, this version and these settings of the engine.
    pub(super) fn authenticated(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes it runnable.
    pub(super) fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes came from `precompile_component` of this program, by one of the three ways above, and are in this process's own memory,
        // where nobody alters them between that check and this use. The engine itself refuses those of another version or of other settings.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}
