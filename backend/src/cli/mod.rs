//! The command line: arguments, exit codes, text.

mod ask;
mod dead_letters;
mod health;
mod log;
mod output;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::machines::doctor::Repair;
use crate::metrics::Exporter;
use crate::reload::Watched;
use crate::service::{self, ServiceError, Which};
use crate::settings::{self, Resolved, Settings};
use output::{Code, Failure, Output};

#[derive(Parser)]
#[command(
    name = "sluicegate-backend",
    version,
    about = "Jobs from Redis into a database, commands to machines, machines' tokens",
    after_help = "Exit codes: 0 good, 1 wrong, 2 usage, 3 refused, 4 not reachable"
)]
struct Arguments {
    /// The settings file; unless it is named, ./sluicegate-backend.toml where that exists.
    #[arg(long, global = true, env = "SLUICEGATE_BACKEND_CONFIG")]
    config: Option<PathBuf>,
    /// Answers as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// The log level: error, warn, info, debug, trace; RUST_LOG, else info.
    #[arg(long, global = true)]
    log: Option<String>,
    /// How the log is written.
    #[arg(long, global = true, value_enum, default_value_t = log::Format::Text)]
    log_format: log::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Takes jobs and results, tells alerts, and serves the API.
    Run,
    /// Takes jobs and results, and tells alerts, without the API.
    Listen,
    /// Serves the API alone.
    Serve,
    /// Checks the settings.
    Check {
        /// Asks Redis and the database, too.
        #[arg(long)]
        connect: bool,
    },
    /// Whether the process lives (`run` or `serve`, by its API).
    Health,
    /// The database's tables.
    #[command(subcommand)]
    Database(DatabaseCommand),
    /// Commands to machines.
    #[command(subcommand, name = "command")]
    Order(OrderCommand),
    /// Jobs that no attempt could process.
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Machines' tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Machines' keys in Redis, which the broker reads.
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Makes a token for the API, and the line for the settings.
    ApiToken {
        /// What the log calls it.
        name: String,
    },
}

#[derive(Subcommand)]
enum DatabaseCommand {
    /// Makes the tables, or changes them to this version's.
    Migrate,
    /// Prints the statements that make them, with the names of the settings.
    Schema,
}

#[derive(Subcommand)]
enum OrderCommand {
    /// Gives a machine a command.
    Send {
        /// Its serial number.
        serial_no: String,
        /// What to do.
        command: String,
        /// JSON.
        #[arg(long, default_value = "{}")]
        payload: String,
        /// Until when it may be sent, such as 30s.
        #[arg(long)]
        expires_in: Option<String>,
    },
    /// How a command stands.
    Show {
        /// Its id.
        message_id: String,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Gives a machine its first token, which is shown once.
    Issue {
        /// Its serial number.
        serial_no: String,
    },
    /// Gives a machine another token; the one before is worth nothing from then on.
    Rotate {
        /// Its serial number.
        serial_no: String,
    },
    /// Takes a machine's token away.
    Revoke {
        /// Its serial number.
        serial_no: String,
    },
}

#[derive(Subcommand)]
enum AuthCommand {
    /// Says which keys are not as the database and the settings say.
    Doctor {
        /// Writes what the database has, unless that would end more than half of all logins.
        #[arg(long)]
        repair: bool,
        /// With --repair: also where that ends more than half of all logins.
        #[arg(long, requires = "repair")]
        force: bool,
    },
    /// Gives every key the format of machines.auth_format.
    Convert,
}

/// Runs what the command line asks for.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help that was asked for is good.
            let code = if error.use_stderr() { Code::Usage } else { Code::Good };
            let _ = error.print();
            return code.into();
        }
    };
    let output = Output::new(arguments.json);
    let done = log::init(arguments.log.as_deref(), arguments.log_format)
        .map_err(|error| Failure::new(Code::Usage, error.to_string(), "sluicegate-backend --help"))
        .and_then(|()| dispatch(&arguments, &output));
    match done {
        Ok(code) => code.into(),
        Err(failure) => output.fail(&failure).into(),
    }
}

fn dispatch(arguments: &Arguments, output: &Output) -> Result<Code, Failure> {
    if let Command::ApiToken { name } = &arguments.command {
        return ask::api_token(name, output);
    }
    let Resolved { settings, warnings } = settings::load(arguments.config.as_deref())
        .map_err(|error| Failure::many(Code::Wrong, error.0, "see config/backend.toml for every key"))?;
    // Redis over TLS asks for the process's provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Wrong, format!("the system gives no threads: {error}"), ""))?;
    let done = runtime.block_on(async {
        match &arguments.command {
            Command::Run => run(arguments, settings, &warnings, Which { listen: true, serve: true }).await,
            Command::Listen => run(arguments, settings, &warnings, Which { listen: true, serve: false }).await,
            Command::Serve => run(arguments, settings, &warnings, Which { listen: false, serve: true }).await,
            Command::Check { connect } => ask::check(&settings, &warnings, *connect, output).await,
            Command::Health => health::run(&settings, output).await,
            Command::Database(DatabaseCommand::Migrate) => ask::migrate(&settings, output).await,
            Command::Database(DatabaseCommand::Schema) => ask::schema(&settings, output),
            Command::Order(OrderCommand::Send { serial_no, command, payload, expires_in }) => {
                ask::send(&settings, serial_no, command, payload, expires_in.as_deref(), output).await
            }
            Command::Order(OrderCommand::Show { message_id }) => ask::show(&settings, message_id, output).await,
            Command::DeadLetters(command) => dead_letters::run(&settings, command, output).await,
            Command::Token(TokenCommand::Issue { serial_no }) => {
                ask::token(&settings, ask::Change::Issue, serial_no, output).await
            }
            Command::Token(TokenCommand::Rotate { serial_no }) => {
                ask::token(&settings, ask::Change::Rotate, serial_no, output).await
            }
            Command::Token(TokenCommand::Revoke { serial_no }) => {
                ask::token(&settings, ask::Change::Revoke, serial_no, output).await
            }
            Command::Auth(AuthCommand::Doctor { repair, force }) => {
                let how = if *force { Repair::Forced } else { Repair::Careful };
                ask::doctor(&settings, repair.then_some(how), output).await
            }
            Command::Auth(AuthCommand::Convert) => ask::convert(&settings, output).await,
            Command::ApiToken { .. } => unreachable!("it was done before the settings were read"),
        }
    });
    // Whatever is still blocked is abandoned: the limit is over.
    runtime.shutdown_background();
    done
}

async fn run(arguments: &Arguments, settings: Settings, warnings: &[String], which: Which) -> Result<Code, Failure> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "sluicegate-backend starts");
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let exporter = if which.serve {
        let installed = Exporter::install();
        Some(installed.map_err(|error| Failure::new(Code::Wrong, format!("no metrics: {error}"), ""))?)
    } else {
        None
    };
    let stop = CancellationToken::new();
    let asked = Arc::new(Notify::new());
    let watched = Watched { file: arguments.config.clone(), asked: asked.clone() };
    let service = service::run(settings, which, exporter, Some(watched), stop.clone());
    let signals = async {
        match signalled(&asked).await {
            Ok(name) => tracing::info!(signal = name, "it ends in order"),
            Err(error) => tracing::error!(%error, "no signals can be heard"),
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = service => match ended {
            Ok(()) => Ok(Code::Good),
            Err(error @ ServiceError::Listen { .. }) => {
                Err(Failure::new(Code::Wrong, error.to_string(), "another address in api.listen, or end what listens there"))
            }
            Err(error) => Err(Failure::new(Code::Wrong, error.to_string(), "")),
        },
        () = signals => unreachable!("invariant: it waits for ever once it was signalled"),
    }
}

/// Waits for a signal to end; at SIGHUP the settings are read anew.
async fn signalled(asked: &Notify) -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok("SIGTERM"),
            _ = interrupt.recv() => return Ok("SIGINT"),
            _ = hangup.recv() => asked.notify_one(),
        }
    }
}
