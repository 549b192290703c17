//! The dead letters of a running gateway: looked at, dropped, handled again.
//!
//! - [`desk`]: what is asked of them, and answered.
//! - [`replay`]: they take the way of a message once more.

pub mod desk;
pub mod replay;
