//! The broker's edge: two connections, since acknowledgements share the channel that a full publish window closes.
//!
//! - [`connect`]: how a connection is made.
//! - [`consume`]: the uplink connection; takes publishes, acknowledges them in order.
//! - [`publish`]: the downlink connection; publishes and waits for the broker's PUBACK.

pub mod connect;
pub mod consume;
pub mod publish;
mod session;
