//! What people and machines see of the gateway: log, metrics, status; and the only reader of the wall clock.

pub mod board;
pub mod causes;

pub mod clock;
pub mod log;
pub mod metrics;
pub mod tally;
pub mod usage;
