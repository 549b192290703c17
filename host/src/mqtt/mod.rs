//! The broker's edge: two connections, since acknowledgements share the channel that a full publish window closes.
//!
//! - [`connect`]: how a connection is made.
//! - [`consume`]: the uplink connection; takes publishes, acknowledges them in order.
//! - [`subscribe`]: what it is subscribed to, what is wanted, what the broker has confirmed.
//! - `drops`: what the broker says that it dropped.
//! - [`publish`]: the downlink connection; publishes and waits for the broker's PUBACK.
//! - `grants`: what the broker grants less of than was asked for.
//! - [`probe`]: asks for that without running.

pub mod connect;
pub mod consume;
mod drops;
mod grants;
pub mod probe;
pub mod publish;
mod session;
pub mod subscribe;
