//! `cargo xtask verify`: a deployment's plan of verification, on real servers, step by step.
//!
//! - `run`: the steps.
//! - `report`: what was expected, what was seen, where to look.
//! - `stage`: broker, Redis, database, gateway, back end.
//! - `single`: what one machine does in the steps before the load.
//! - `rows`: the database, as another program sees it.
//! - `load`: machines that remember what was acknowledged to them.
//! - `figures`: what is read each second.
//! - `count`: what was acknowledged against what is there.
//! - `chart`: the figures as a drawing.
//! - [`deployed`]: the same on a deployment that runs already.

mod chart;
mod count;
pub mod deployed;
mod figures;
mod load;
mod report;
pub(crate) mod rows;
pub mod run;
mod single;
mod stage;

pub use stage::settings as gateway_settings;
