//! Sluicegate from outside: a file per promise.

mod access;
mod broker;
mod chaos;
mod cluster;
mod command_line;
mod commands;
mod compiling;
mod dead_letters;
mod delivery;
mod embedded;
mod faults;
mod handlers;
mod leases;
mod order;
mod plugins;
mod plugins_lifecycle;
mod plugins_page;
mod plugins_trust;
mod probation;
mod reload;
mod retries;
mod spool;
mod status;
mod sync;
