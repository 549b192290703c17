//! A new build is tried on the last real messages of its routes before it is live: in shadow, nothing is sent, and what it would have made of
//! them is compared with what the live build makes of them.
//!
//! - [`shadow`]: both builds, one after another, on the same messages.
//! - [`report`]: what differed, for people and for scripts.

pub mod report;
pub mod shadow;

pub use report::Report;
pub use shadow::rehearse;
