//! The broker's edge: two connections, since acknowledgements share the channel that a full publish window closes.
//!
//! - [`connect`]: how a connection is made.
//! - [`consume`]: the uplink connection; takes publishes, acknowledges them in order.
//! - [`publish`]: the downlink connection; publishes and waits for the broker's PUBACK.
//! - `grants`: what the broker grants less of than was asked for.
//! - [`probe`]: asks for that without running.

pub mod connect;
pub mod consume;
mod grants;
pub mod probe;
pub mod publish;
mod session;
