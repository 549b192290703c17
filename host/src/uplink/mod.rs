//! From the broker to Redis: a message's life, in the order of these files.
//!
//! - [`room`]: how many bytes may be in memory.
//! - [`intake`]: topic → route, machine → lane.
//! - [`lane`]: threads that run guests; one machine's messages in order; what needs time is parked.
//! - [`work`]: what a lane does with one message.
//! - [`attempt`]: one attempt of it, and what becomes of it when they fail.
//! - [`chain`]: the handlers of a route, one after another.
//! - [`publications`]: what handlers publish.
//! - [`letter`]: what becomes a dead letter, and what stands in it.
//! - [`sink`]: one batcher for all lanes: to Redis, or to the spool while Redis does not take.
//! - [`behind`]: which lists that are.
//! - [`ack`]: what is settled; only here is a message acknowledged.

pub mod ack;
mod attempt;
pub mod behind;
pub mod chain;
pub mod intake;
pub mod lane;
mod letter;
pub mod publications;
pub mod room;
pub mod sink;
mod work;
