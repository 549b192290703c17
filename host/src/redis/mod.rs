//! Redis's edge.
//!
//! - [`connect`]: how a connection is made, and what an error means.
//! - [`push`]: jobs and dead letters, many in one round trip.
//! - [`pop`]: commands, moved into this instance's processing list.

pub mod connect;
pub mod pop;
pub mod push;
