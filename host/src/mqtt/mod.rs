//! The broker's edge: two connections, since acknowledgements share the channel that a full publish window closes.
//!
//! - [`connect`]: how a connection is made.
//! - [`consume`]: the uplink connection; takes publishes, acknowledges them in order.
//! - [`subscribe`]: what it is subscribed to, what is wanted, what the broker has confirmed.
//! - `drops`, `grants`: what the broker says of what it dropped, and of what it grants.
//! - [`publish`]: the downlink connection; publishes and waits for the broker's PUBACK.

pub mod connect;
pub mod consume;
mod drops;
mod grants;
pub mod publish;
mod session;
pub mod subscribe;
