//! What swaps cost: a plugin's file replaced again and again under full load, among them builds that are broken; and for each
//! message whether it arrived, once, in order, and by which build.
//!
//! - [`builds`]: components that write their number into what they are given.
//! - [`load`]: machines that publish as fast as what arrives lets them.
//! - [`drain`]: takes the jobs off the list and looks at each.
//! - [`run`]: before, during and after, and the table.

pub mod builds;
pub mod drain;
pub mod load;
pub mod run;
