//! The pure part of Sluicegate: what a topic, a route, a message, a command and an envelope are, in which order things may
//! happen, and what the settings say.
//!
//! Invariant: nothing here does I/O, reads a clock, draws randomness or knows a runtime; `now` and chance come in as
//! arguments. So all of it can be tested with tables, properties and fuzzers.

pub mod access;
pub mod attempt;
pub mod away;
pub mod backoff;
pub mod batch;
pub mod breaker;
pub mod canary;
pub mod command;
pub mod compared;
pub mod dead_letter;
pub mod digest;
pub mod dispatch;
pub mod envelope;
pub mod fault;
pub mod flow;
pub mod http;
pub mod json;
pub mod keys;
pub mod lease;
pub mod ledger;
pub mod lifecycle;
pub mod message;
pub mod order;
pub mod park;
pub mod publishing;
pub mod route;
pub mod settings;
pub mod spooled;
pub mod state;
pub mod text;
pub mod ticket;
pub mod topic;
pub mod tried;
pub mod trust;
