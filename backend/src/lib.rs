//! The other side of Sluicegate's lists: jobs are worked into a relational database, commands go out and are followed, machines get their
//! tokens. The binary `sluicegate-backend` is this library's command line.
//!
//! - [`domain`]: what is decided, without a server.
//! - [`settings`]: one file; [`reload`]: edited while the program runs.
//! - [`redis`], [`database`]: the edges.
//! - [`listener`]: jobs from a list into the database, each once.
//! - [`commands`], [`machines`], [`alerts`]: what the database has, told to machines and to people.
//! - [`watch`], [`metrics`]: what is seen of both servers, and told to whoever watches.
//! - [`api`], [`cli`]: what people and programs ask for.

pub mod alerts;
pub mod api;
pub mod board;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod database;
pub mod domain;
pub mod listener;
pub mod machines;
pub mod metrics;
pub mod redis;
pub mod reload;
pub mod service;
pub mod settings;
pub mod watch;
