//! What is decided here needs no server: what a job is, which rows follow from many of them, what a slot still holds, when an alert is
//! told, how a command stands.
//!
//! Invariant: nothing here does I/O, reads a clock or draws randomness.
//!
//! - [`decimal`]: amounts, as text.
//! - [`job`]: an entry of the list of jobs, or of the list of results.
//! - [`id`]: names for commands.
//! - [`plan`]: what a batch of jobs comes to.
//! - [`stock`]: what is taken from which slot, and what does not add up.
//! - [`alert`]: what people are told of, and when again.
//! - [`command`]: a command's states.
//! - [`lanes`]: which jobs go together, and which of them are committed already.
//! - [`letter`]: a dead letter, and which of them are meant.
//! - [`names`]: tables and columns, as this database has them.
//! - [`time`]: times as a database column holds them.

pub mod alert;
pub mod command;
pub mod decimal;
pub mod id;
pub mod job;
pub mod lanes;
pub mod letter;
pub mod names;
pub mod plan;
pub mod stock;
pub mod time;
