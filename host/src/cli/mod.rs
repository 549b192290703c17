//! The command line: arguments, exit codes, text.
//!
//! - [`output`]: what is asked for goes to standard output, in one shape where it is JSON; the rest to standard error.
//! - [`client`]: what is asked of a running gateway.
//! - [`run`], [`check`] with [`plan`], [`config`], [`dead_letters`], [`plugin`], [`spool`], [`trial`]: a file a command.

mod check;
mod client;
mod config;
mod dead_letters;
mod output;
mod plan;
mod plugin;
mod run;
mod spool;
mod trial;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::sandbox::compiled::{child, launcher};
use crate::telemetry::log::{self, Format};
use client::Client;
use dead_letters::DeadLettersCommand;
use output::{Code, Failure, Output};
use plugin::PluginCommand;

const AFTER_HELP: &str = "\
Environment, beside what options and settings name:
  RUST_LOG                          what is logged
  NO_COLOR                          no colours
  SLUICEGATE_EMBEDDED_MQTT_LISTEN   where the broker of mqtt.url = \"embedded\" listens [127.0.0.1:1883]
  SLUICEGATE_EMBEDDED_REDIS_LISTEN  where the Redis of redis.url = \"embedded\" listens [127.0.0.1:6379]

Exit codes:
  0  good
  1  checked, and wrong; or stopped by a fault
  2  a mistake on the command line
  3  refused by the gateway
  4  not reachable";

/// A gateway between MQTT and Redis whose handlers are WebAssembly components.
#[derive(Parser)]
#[command(name = "sluicegate", version, after_help = AFTER_HELP)]
struct Arguments {
    /// The settings file; ./sluicegate.toml where it exists, else the built-in settings and the environment.
    #[arg(long, global = true, value_name = "FILE", env = "SLUICEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace or `module=level,…`; wins over RUST_LOG.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How it is logged.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", env = "SLUICEGATE_LOG_FORMAT")]
    log_format: Format,
    /// Print one JSON object: {"ok", "data", "errors"}.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway until SIGTERM or Ctrl-C; a second one ends it at once.
    Run,
    /// Checks settings and plugins: everything short of connecting.
    Check {
        /// Also connect: whether broker and Redis answer, and what the broker grants less of than the settings ask for. A
        /// gateway that runs is not disturbed.
        #[arg(long)]
        connect: bool,
        /// Say what these settings would change on the gateway whose admin server is there, and how: live, by another connection to the
        /// broker, or by a restart.
        #[arg(long, value_name = "ADDRESS:PORT")]
        against: Option<String>,
    },
    /// The settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Plugins: a component file by itself, its signature, and what a running gateway makes of it.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// What Redis did not take yet, and what is to be handled again.
    #[command(subcommand)]
    Spool(SpoolCommand),
    /// Messages and commands that no attempt could process: looked at, handled again, dropped. A running gateway is asked.
    DeadLetters {
        /// Where its admin server listens; the settings' admin.listen, unless given.
        #[arg(long, global = true, value_name = "ADDRESS:PORT")]
        address: Option<SocketAddr>,
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Shows what would become of a message; nothing is sent.
    Try {
        /// Its topic; without one, lines of `TOPIC PAYLOAD` are read from standard input.
        topic: Option<String>,
        /// Its payload; standard input without the newline at its end, where it is left out.
        payload: Option<String>,
    },
    /// Asks a running gateway whether it is ready.
    Health {
        /// Ask only whether it lives: good while broker or Redis are away, too. For whoever restarts what is not well.
        #[arg(long)]
        live: bool,
        /// Where its admin server listens; the settings' admin.listen, unless given.
        #[arg(long, value_name = "ADDRESS:PORT")]
        address: Option<SocketAddr>,
    },
    /// Compiles standard input to standard output, within limits: what the gateway starts for each file.
    #[command(hide = true)]
    InternalCompile {
        /// Who started it.
        parent: u32,
        /// Bytes of memory.
        memory: u64,
        /// Seconds of the processor.
        seconds: u64,
        /// It has a low priority already.
        #[arg(long)]
        gave_way: bool,
    },
    /// Starts what compiles, at a low priority: what the gateway asks for it.
    #[command(hide = true)]
    InternalLaunch,
    /// Prints completions for a shell.
    Completions {
        /// Which.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Every setting in force and where it came from; secrets are masked.
    Show,
    /// Tells a running gateway to read its settings again, and says what changed.
    Reload {
        /// Where its admin server listens; the settings' admin.listen, unless given.
        #[arg(long, value_name = "ADDRESS:PORT")]
        address: Option<SocketAddr>,
    },
    /// The JSON schema of the settings file (draft-07).
    Schema,
}

#[derive(Subcommand)]
enum SpoolCommand {
    /// How much stands in the spool, and since when; of a running gateway, or of one that does not run.
    Status,
}

/// Reads the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return unread(&error),
    };
    // Before anything else is done: its first acts are its limits.
    match arguments.command {
        Command::InternalCompile { parent, memory, seconds, gave_way } => {
            return child::main(parent, memory, seconds, gave_way);
        }
        Command::InternalLaunch => return launcher::main(),
        _ => {}
    }
    let output = Output::new(arguments.json);
    let result = log::init(arguments.log_level.as_deref(), arguments.log_format)
        .map_err(|error| Failure::new(Code::Usage, error.to_string(), "sluicegate --help"))
        .and_then(|()| dispatch(&arguments, &output));
    match result {
        Ok(code) => code.into(),
        Err(failure) => output.fail(&failure).into(),
    }
}

/// Help and version, or a mistake of usage; a script that wants JSON gets it here, too.
fn unread(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || !std::env::args_os().any(|argument| argument == "--json") {
        error.exit();
    }
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    Output::new(true).fail(&Failure::new(Code::Usage, message, "sluicegate --help")).into()
}

fn dispatch(arguments: &Arguments, output: &Output) -> Result<Code, Failure> {
    let config = arguments.config.as_deref();
    match &arguments.command {
        Command::Run => run::run(config),
        Command::Check { connect, against } => check::check(config, against.as_deref(), *connect, output),
        Command::Config(ConfigCommand::Show) => config::show(config, output),
        Command::Config(ConfigCommand::Reload { address }) => config::reload(Client::find(config, *address)?, output),
        Command::Config(ConfigCommand::Schema) => Ok(output.text(&sluicegate_core::settings::schema::schema())),
        Command::Plugin(command) => plugin::run(command, config, output),
        Command::Spool(SpoolCommand::Status) => spool::status(config, output),
        Command::Try { topic, payload } => trial::run(config, topic.as_deref(), payload.as_deref(), output),
        Command::DeadLetters { address, command } => {
            dead_letters::run(command, config, Client::find(config, *address)?, output)
        }
        Command::Health { live: true, address } => check::live(Client::find(config, *address)?, output),
        Command::Health { live: false, address } => check::health(Client::find(config, *address)?, output),
        Command::InternalCompile { .. } | Command::InternalLaunch => unreachable!("`main` did it"),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "sluicegate", &mut script);
            Ok(output.text(&String::from_utf8_lossy(&script)))
        }
    }
}
