//! The cases, a file per kind of harm.

mod answers;
mod calls;
pub mod samples;

use crate::case::Case;

/// All of them.
#[must_use]
pub fn all() -> Vec<Case> {
    [calls::cases(), answers::cases()].into_iter().flatten().collect()
}
