//! Redis's edge.
//!
//! - [`connect`]: how a connection is made, and what an error means.
//! - `line`: a connection of one part; `script`: scripts, sent where they are not known.
//! - [`lists`]: which keys a list has; jobs moved, settled, taken over.
//! - [`lease`]: who may take what stands in a processing list.
//! - [`lengths`]: how long lists are.
//! - [`letters`]: dead letters read, put back, dropped.
//! - [`push`]: dead letters and commands.
//! - [`auth`]: machines' tokens, for the broker.

pub mod auth;
pub mod connect;
pub mod lease;
pub mod lengths;
pub mod letters;
mod line;
pub mod lists;
pub mod push;
mod script;
