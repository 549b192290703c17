//! What a stranger may put into a plugin's place, and what must become of each.
//!
//! - [`corpus`]: the cases, a file per kind of harm.
//! - [`case`]: what a case is.
//! - [`alone`]: one case through the steps of a plugin's life and a few calls, in this process.
//! - [`laws`]: what must hold of any bytes.
//! - [`table`]: what is printed of all of them.

pub mod alone;
pub mod case;
pub mod corpus;
pub mod laws;
pub mod table;
