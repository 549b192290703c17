//! Redis's edge.
//!
//! - [`connect`]: how a connection is made, and what an error means.
//! - `wire`: a connection, to one server or to a cluster; `cluster`: its nodes; `script`: scripts, sent where they are not known.
//! - [`jobs`]: jobs and dead letters, many in one round trip, each list with an answer of its own.
//! - `line`: a connection of one part; `cap`: a list that is kept to its newest entries.
//! - [`push`]: what became of commands, and the lengths of lists.
//! - [`pop`]: commands, moved into this instance's processing list.
//! - [`claim`]: a `message_id` is sent once.
//! - [`letters`]: the dead letters, for whoever looks at them.
//! - [`state`]: plugins' own keys.
//! - [`tokens`]: machines' tokens, and the word of their changes.
//! - [`lease`]: who may send the commands of a processing list.

pub mod cap;
pub mod claim;
mod cluster;
pub mod connect;
pub mod jobs;
pub mod lease;
pub mod letters;
mod line;
pub mod pop;
pub mod push;
mod script;
pub mod state;
pub mod tokens;
mod wire;
