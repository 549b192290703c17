//! From a component's bytes to code of this machine: compiled in a process of its own, kept on the disk.
//!
//! The engine's authors promise nothing of a compiler's time and memory: one function may take minutes and gigabytes. So it never runs in the
//! gateway.
//!
//! - [`parent`]: has the process that compiles started, and judges how it ended.
//! - [`beside`]: the same beside messages, which it gives way to.
//! - [`launcher`]: the process that starts it then.
//! - [`process`]: what a process that compiles is given.
//! - [`child`]: that process: its limits first, then the file.
//! - [`priority`]: what that process has of the processors, beside messages.
//! - [`cache`]: what was compiled before.
//! - [`turns`]: whose file is compiled next.
//! - [`precompiled`]: code that is run as it is read: the only `unsafe` of the project.

mod beside;
pub mod cache;
pub mod child;
pub mod launcher;
mod parent;
mod precompiled;
mod priority;
mod process;
#[cfg(test)]
mod tests;
mod turns;

use sluicegate_core::digest::Digest;
use sluicegate_core::settings::CompileLimits;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::generation::one_line;
use super::refusal::{Problem, Refusal, Step};
use beside::Beside;
use cache::Cache;
use precompiled::Artefact;
use turns::Turns;
pub use turns::{Claim, Urgency};

/// Where files are compiled.
#[derive(Debug, Clone, Copy)]
pub enum Compiler {
    /// In a process of this program, with limits: for every file that is a stranger's.
    Process(CompileLimits),
    /// The same, by a gateway: the process gives way to messages from its first moment, as long as the machine has time to spare.
    Beside(CompileLimits),
    /// In this process, without limits: for tests, which are another program than the one that can compile.
    Here,
}

/// Where code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was compiled before.
    Cache,
    /// It was compiled now.
    Compiler,
}

/// Compiles, one file at a time.
pub(super) struct Compiled {
    compiler: Compiler,
    /// None, where nothing gives way.
    beside: Option<Beside>,
    cache: Option<Cache>,
    /// Two at once would need twice the memory, and four threads.
    turns: Turns,
}

impl Compiled {
    pub(super) fn new(compiler: Compiler, cache: Option<Cache>) -> Self {
        let beside = match compiler {
            Compiler::Beside(_) => Beside::start(),
            Compiler::Process(_) | Compiler::Here => None,
        };
        Self { compiler, beside, cache, turns: Turns::default() }
    }

    /// The code of a file whose digest this is, unless it is given up. It takes as long as compiling takes, this one and the one before.
    pub(super) fn component(
        &self,
        engine: &Engine,
        digest: &Digest,
        bytes: &[u8],
        claim: &Claim,
    ) -> Result<(Component, Origin), Refusal> {
        // What is compiled does not wait for what is not.
        if let Some(component) = self.cached(engine, digest) {
            return Ok((component, Origin::Cache));
        }
        let refused = |problem| Refusal::new(Step::Compiled, problem);
        let _turn = self.turns.wait(claim).ok_or_else(|| refused(Problem::GivenUp))?;
        // Whoever had it before may have compiled the same.
        if let Some(component) = self.cached(engine, digest) {
            return Ok((component, Origin::Cache));
        }
        let artefact = self.compile(engine, bytes, claim).map_err(refused)?;
        let component = artefact.component(engine).map_err(|error| refused(Problem::Engine(one_line(&error))))?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put(engine, digest, &artefact)
        {
            let path = cache.path().display();
            tracing::warn!(%path, %error, "compiled code was not kept; the next start compiles it again");
        }
        Ok((component, Origin::Compiler))
    }

    fn cached(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        let cache = self.cache.as_ref()?;
        let found = cache.get(engine, digest);
        let reason = match found {
            Ok(None) => return None,
            Ok(Some(artefact)) => match artefact.component(engine) {
                Ok(component) => return Some(component),
                Err(error) => one_line(&error),
            },
            Err(error) => error.to_string(),
        };
        let path = cache.path().display();
        tracing::warn!(%path, %digest, reason, "compiled code on the disk is not used; the file is compiled anew");
        cache.remove(engine, digest);
        None
    }

    fn compile(&self, engine: &Engine, bytes: &[u8], claim: &Claim) -> Result<Artefact, Problem> {
        match self.compiler {
            Compiler::Process(limits) | Compiler::Beside(limits) => {
                parent::compile(bytes, limits, &claim.given_up, self.beside.as_ref())
            }
            Compiler::Here => Artefact::compile(engine, bytes).map_err(|error| Problem::Engine(one_line(&error))),
        }
    }
}
