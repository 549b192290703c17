//! The engine's edge: other people's code, run so that it can harm nobody. No type of the engine leaves this folder.
//!
//! - [`inspect`]: what a file says of itself, read without running or compiling it.
//! - [`engine`]: the engine and its clock.
//! - [`compiled`]: from bytes to code: the compiler in a process of its own, and the cache.
//! - [`generation`]: one compiled build of a plugin.
//! - [`instance`]: one running copy of it; `guest`: what it may use; `answer`: what it is handed and what it answers.
//! - [`pool`]: the warm instances of one lane.
//! - [`share`]: how much of the processor a build may have.
//! - [`rehearse`]: the samples inside the file.
//! - [`wasi`]: WASI preview 2 with nothing behind it.
//! - [`grants`]: what is given to those alone whom the operator granted it; [`state`]: a plugin's own keys.
//! - [`http`]: WASI's HTTP, to the servers that were granted.

mod answer;
pub mod compiled;
pub mod engine;
pub mod generation;
pub mod grants;
mod guest;
mod guest_log;
mod http;
pub mod inspect;
mod instance;
mod limits;
pub mod pool;
pub mod refusal;
pub mod rehearse;
mod share;
pub mod state;
#[cfg(test)]
pub(crate) mod tests;
mod wasi;

pub use compiled::cache::Cache;
pub use compiled::{Compiler, Origin};
pub use engine::Sandbox;
pub use generation::Generation;
pub use inspect::{Inspection, Manifest, World};
pub use pool::Pool;
pub use refusal::{Problem, Refusal, Step};
pub use rehearse::{Unanswered, answer, block_on, rehearse};

mod bindings {
    pub(super) mod handler {
        wasmtime::component::bindgen!({
            path: "../wit",
            world: "topic-handler",
            imports: { "sluicegate:plugin/state": async | trappable, default: trappable },
            exports: { default: async },
        });
    }
    pub(super) mod validator {
        wasmtime::component::bindgen!({
            path: "../wit",
            world: "command-validator",
            imports: { default: trappable },
            exports: { default: async },
            with: {
                "sluicegate:plugin/host": super::handler::sluicegate::plugin::host,
                "sluicegate:plugin/state": super::handler::sluicegate::plugin::state,
                "sluicegate:plugin/types": super::handler::sluicegate::plugin::types,
            },
        });
    }
}
