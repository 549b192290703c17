//! `cargo xtask verify` runs this. For a deployment that runs already: `deployed`, the broker's host and port, Redis's URL, the API's host and
//! port, the list of jobs; the tokens stand in SLUICEGATE_API_TOKEN and SLUICEGATE_MACHINE_TOKEN. Else: how many machines, seconds, `sqlite` or `mariadb`, the folder for what it writes, and for
//! how many seconds nothing may change before what is missing counts as lost. The programs are those that lie beside it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use sluicegate_tests::verify::deployed::{self, Deployment};
use sluicegate_tests::verify::run::{Options, run};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(deployment) = deployment() {
        return if deployed::run(&deployment).await { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let Some(options) = options() else {
        eprintln!("error: run it by `cargo xtask verify`");
        return ExitCode::FAILURE;
    };
    let stopped = async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::io::Result::Ok(())
    };
    // Whichever way it ends, by a panic too, what was started ends with it.
    let outcome = tokio::select! {
        outcome = run(&options) => outcome,
        _ = stopped => Err("stopped before its end".to_owned()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn deployment() -> Option<Deployment> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [word, broker, redis, api, list] = &arguments[..] else { return None };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    (word == "deployed").then(|| Deployment {
        broker: broker.clone(),
        redis: redis.clone(),
        api: api.clone(),
        api_token: variable("SLUICEGATE_API_TOKEN").unwrap_or_default(),
        machine_token: variable("SLUICEGATE_MACHINE_TOKEN"),
        list: list.clone(),
    })
}

fn options() -> Option<Options> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [machines, length, database, folder, patience] = &arguments[..] else { return None };
    let seconds = |text: &str| text.parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    Some(Options {
        machines: machines.parse().ok().filter(|machines| *machines > 0)?,
        length: seconds(length)?,
        on_mariadb: match &**database {
            "sqlite" => false,
            "mariadb" => true,
            _ => return None,
        },
        folder: PathBuf::from(folder),
        patience: seconds(patience)?,
    })
}
