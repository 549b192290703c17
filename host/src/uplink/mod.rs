//! From the broker to Redis: a message's life, in the order of these files.
//!
//! - [`intake`]: topic → route, machine → lane.
//! - [`lane`]: threads that run guests; one machine's messages in order.
//! - [`chain`]: the handlers of a route, one after another.
//! - [`letter`]: what becomes a dead letter, and what stands in it.
//! - [`sink`]: one batcher for all lanes.
//! - [`ack`]: what is settled; only here is a message acknowledged.

pub mod ack;
pub mod chain;
pub mod intake;
pub mod lane;
pub mod letter;
pub mod sink;
