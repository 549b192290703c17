//! The cases, a file per kind of harm.

mod answers;
mod calls;
mod compile;
mod features;
mod files;
mod imports;
pub mod logs;
mod memory;
mod samples;
mod state;
mod topics;

use crate::case::Case;

/// All of them.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        files::cases(),
        samples::cases(),
        imports::cases(),
        features::cases(),
        compile::cases(),
        calls::cases(),
        memory::cases(),
        answers::cases(),
        topics::cases(),
        state::cases(),
        logs::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
