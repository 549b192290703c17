//! A new build is tried on the last real messages of its routes, or the last commands, before it is live: in shadow, nothing is sent, and what it
//! would have made of them is compared with what the live build makes of them. `sluicegate plugin diff` does the same with any two builds.
//!
//! - [`shadow`]: both builds, one after another, on the same messages.
//! - [`samples`]: both builds, on a sample of one of them.
//! - [`report`]: what differed, for people and for scripts.
//! - `text`: what a build made of a message, as lines for people.

pub mod report;
pub mod samples;
pub mod shadow;
mod text;

pub use report::{Gathered, Report};
pub use shadow::{inputs, rehearse};
