//! From Redis to the machines: a command's life, in the order of these files.
//!
//! - [`lease`]: who may send them.
//! - [`take`]: commands move into this instance's processing list.
//! - [`work`]: the thread that works them, one machine's in order; `machines`: who is at work, and which machines are away;
//!   `attempt`: each is validated in the sandbox and published.
//! - [`settle`]: what became of it is written down, and it leaves the processing list.

mod attempt;
pub mod lease;
mod machines;
pub mod settle;
pub mod take;
pub mod work;
