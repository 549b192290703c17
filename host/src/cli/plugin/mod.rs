//! `sluicegate plugin …`
//!
//! - [`file`]: what a component file is, by itself.
//! - [`compile`]: compiled as the gateway does it.
//! - [`diff`]: what two builds make of the same messages.
//! - [`sign`]: whose it is.
//! - [`ask`]: what a running gateway says of its plugins, and the way back.
//! - [`put`]: a file into its place, and what becomes of it there.

mod ask;
mod compile;
mod diff;
mod file;
mod put;
mod sign;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::client::Client;
use super::output::{Code, Failure, Output};
use crate::registry::load::{self, File};
use crate::sandbox::refusal::Step;
use crate::sandbox::{Problem, Refusal};

pub(super) use compile::sandbox;
pub(super) use file::inspected;

#[derive(Subcommand)]
pub(super) enum PluginCommand {
    /// What a component file says of itself.
    Inspect {
        /// The component.
        file: PathBuf,
    },
    /// Compiles a component file for the gateway of these settings, so that a swap to it finds it compiled.
    Compile {
        /// The component.
        file: PathBuf,
    },
    /// Runs the samples inside a component file.
    Test {
        /// The component.
        file: PathBuf,
    },
    /// What a build makes of the same messages otherwise than another one, and what is different about the files. Exit code 0: both make the
    /// same of all, and import the same; 1: they differ.
    Diff(diff::Diff),
    /// Signs a component file with a minisign key without a password: into FILE.minisig, which `minisign` makes and reads, too.
    Sign(sign::Sign),
    /// Says whose a component file is, and whether the settings (or these keys) let it be taken.
    Verify(sign::Verify),
    /// The plugins of a running gateway: what is live, on its way, refused last, kept.
    List {
        #[command(flatten)]
        gateway: Gateway,
    },
    /// The last 100 builds that went live or were refused, the newest first.
    History {
        /// Of this plugin alone.
        name: Option<String>,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Makes a canary, which serves some machines, live for all of them before its time is over.
    Promote {
        /// The plugin.
        name: String,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Withdraws the canary, or where there is none makes the build before live again. What served is not tried again until the file holds
    /// another build.
    Rollback {
        /// The plugin.
        name: String,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Puts a component file (and FILE.minisig) into the place where the gateway looks for it, on a disk that both have.
    Load {
        /// The plugin.
        name: String,
        /// The component.
        file: PathBuf,
        /// Waits until it is live or refused, with a line for each step.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// What each plugin used since the gateway started: calls, faults, time, memory.
    Top {
        #[command(flatten)]
        gateway: Gateway,
    },
}

/// Which gateway is asked.
#[derive(Args)]
pub(super) struct Gateway {
    /// Where its admin server listens; the settings' admin.listen, unless given.
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,
}

pub(super) fn run(command: &PluginCommand, config: Option<&Path>, output: &Output) -> Result<Code, Failure> {
    // What it answers may have to be compiled before.
    let client = |gateway: &Gateway| Ok(Client::find(config, gateway.address)?.patient());
    match command {
        PluginCommand::Inspect { file } => file::inspect(file, output),
        PluginCommand::Compile { file } => compile::compile(file, config, output),
        PluginCommand::Test { file } => file::test(file, output),
        PluginCommand::Diff(diff) => diff::diff(diff, config, output),
        PluginCommand::Sign(sign) => sign::sign(sign, output),
        PluginCommand::Verify(verify) => sign::verify(verify, config, output),
        PluginCommand::List { gateway } => ask::list(&client(gateway)?, output),
        PluginCommand::History { name, gateway } => ask::history(&client(gateway)?, name.as_deref(), output),
        PluginCommand::Promote { name, gateway } => ask::promote(&client(gateway)?, name, output),
        PluginCommand::Rollback { name, gateway } => ask::roll_back(&client(gateway)?, name, output),
        PluginCommand::Load { name, file, wait, gateway } => put::put(&client(gateway)?, name, file, *wait, output),
        PluginCommand::Top { gateway } => ask::top(&client(gateway)?, output),
    }
}

fn read(file: &Path) -> Result<File, Failure> {
    load::read(file).map_err(|refusal| wrong(&refusal))
}

fn wrong(refusal: &Refusal) -> Failure {
    Failure::new(Code::Wrong, refusal.to_string(), next(refusal))
}

/// What to do about it, wherever the file is from.
pub(super) fn next(refusal: &Refusal) -> &'static str {
    if matches!(refusal.problem, Problem::CompileTime { .. } | Problem::CompileMemory { .. }) {
        return "raise that limit where the plugin is worth it; `sluicegate plugin compile FILE` tries it beforehand";
    }
    if matches!(refusal.problem, Problem::Host(_) | Problem::CompileWait { .. }) {
        return "try it again once this machine is well: it says nothing of the plugin, and a gateway tries again by itself";
    }
    if matches!(refusal.problem, Problem::Untrusted(_)) {
        return "sluicegate plugin verify FILE (whose a build is, and whether it is taken)";
    }
    match refusal.step {
        Step::Found => "check the path (in the source tree `cargo xtask plugins` builds those of plugins/)",
        Step::Verified | Step::Compiled | Step::Checked => {
            "have the plugin built as wit/plugin.wit says, on the interface of this version of sluicegate"
        }
        Step::Rehearsed | Step::Canary | Step::Live | Step::Probation | Step::Fallback => {
            "mend the plugin, or what its sample promises; its settings count, too"
        }
    }
}
