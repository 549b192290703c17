//! Faults made for real, again and again, each time at other moments; and after each the comparison of what was acknowledged with
//! what arrived.
//!
//! - [`seed`]: choices that can be repeated.
//! - [`load`]: machines that publish and remember what was acknowledged to them.
//! - [`listener`]: who hears commands.
//! - [`ledger`]: what they remember beside what the back end got.
//! - [`outcome`]: what that says, judged by what is promised.
//! - [`spooled`]: what stands in a spool's files.
//! - [`stage`]: broker, Redis, proxies, gateway and machines, running.
//! - [`scenarios`]: the faults, a file per subject.
//! - [`run`]: scenarios over and over, and their table.

pub mod ledger;
pub mod listener;
pub mod load;
pub mod outcome;
pub mod run;
pub mod scenarios;
pub mod seed;
pub mod spooled;
pub mod stage;
