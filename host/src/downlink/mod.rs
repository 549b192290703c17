//! From Redis to the machines: a command's life, in the order of these files.
//!
//! - [`lease`]: who may send them.
//! - [`take`]: commands move into this instance's processing list.
//! - [`work`]: each is parsed, validated in the sandbox, published; one machine's in order.
//! - [`settle`]: what became of it is written down, and it leaves the processing list.

pub mod lease;
pub mod settle;
pub mod take;
pub mod work;
