//! `cargo xtask run` runs this: the gateway with everything embedded, the back end behind it, a few machines, and what becomes of what they
//! say, in a readable way.
//!
//! Its arguments: the repository's root, the folder of its programs, a folder for what they keep, how many machines there are.

mod machines;
mod parts;
mod rebuild;
mod rows;

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use parts::{Place, Ports};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How often a machine gets a command; the first comes sooner, while somebody looks.
const COMMAND: Duration = Duration::from_secs(20);
const FIRST_COMMAND: Duration = Duration::from_secs(3);

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, programs, folder, machines] = &arguments[..] else {
        eprintln!("error: run it by `cargo xtask run`");
        return ExitCode::FAILURE;
    };
    match run(Path::new(root), Path::new(programs), Path::new(folder), machines).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(root: &Path, programs: &Path, folder: &Path, machines: &str) -> Result<()> {
    let machines = machines.parse().context("the number of machines")?;
    let (ports, place) = (Ports::choose()?, Place::new(programs, folder)?);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    // Whoever ends it may do so at any time.
    let ended = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let (mut gateway, mut backend) = (None, None);
    let result = tokio::select! {
        () = ended => Ok(()),
        result = show(root, &place, &ports, machines, &mut gateway, &mut backend) => result,
    };
    // The back end first: it gives back in Redis what it has under way.
    let mut well = true;
    for program in [&mut backend, &mut gateway].into_iter().flatten() {
        well &= parts::end(program).await?;
    }
    result?;
    ensure!(well, "a program did not end well; the log above says why");
    Ok(())
}

/// Starts everything, and shows it until something ends.
async fn show(
    root: &Path,
    place: &Place,
    ports: &Ports,
    machines: u32,
    gateway: &mut Option<Child>,
    backend: &mut Option<Child>,
) -> Result<()> {
    let gateway = gateway.insert(place.start_gateway(root, ports).await?);
    let backend = backend.insert(place.start_backend(ports)?);
    let database = place.database();
    let pool = tokio::select! {
        pool = rows::open(&database) => pool?,
        status = backend.wait() => return Err(ended("back end", status)),
    };
    rows::fill(&pool, machines).await?;
    print_hints(place, ports);
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    tasks.spawn(rows::show(pool, ports.redis));
    for number in 1..=machines {
        tasks.spawn(machines::run(number, ports.mqtt));
    }
    tasks.spawn(rebuild::run(root.to_owned(), root.join("plugins")));
    tokio::select! {
        result = command(place, machines) => result,
        Some(result) = tasks.join_next() => result?,
        status = gateway.wait() => Err(ended("gateway", status)),
        status = backend.wait() => Err(ended("back end", status)),
    }
}

fn ended(program: &str, status: std::io::Result<std::process::ExitStatus>) -> anyhow::Error {
    match status {
        Ok(status) => anyhow!("the {program} ended by itself ({status}); its log above says why"),
        Err(error) => anyhow!(error).context(format!("the {program}")),
    }
}

/// Gives one machine after the other a command, by the back end's command line.
async fn command(place: &Place, machines: u32) -> Result<()> {
    sleep(FIRST_COMMAND).await;
    for number in (1..=machines).cycle() {
        let (program, settings) = place.backend();
        let mut send = Command::new(program);
        send.args(["command", "send", &machines::serial_no(number), "unlock", "--payload", r#"{"slot_no":5}"#]);
        send.args(["--log", "warn", "--config"]).arg(settings).stdout(Stdio::null()).kill_on_drop(true);
        // Where it is not given, it says why, and the next one may be.
        send.status().await.context("giving a command")?;
        sleep(COMMAND).await;
    }
    // Without machines there is nobody to give one to.
    std::future::pending().await
}

fn print_hints(place: &Place, ports: &Ports) {
    let (program, settings) = place.backend();
    println!(
        r#"
Try, in another terminal (mosquitto_pub is in the package mosquitto-clients, sqlite3 in sqlite3):

  1. publish a heartbeat
     mosquitto_pub -p {mqtt} -t machine/TEST-001/heartbeat -q 1 -m '{{"current_page":1,"temperature":25.5}}'
  2. read the row that the back end made of it
     sqlite3 {database} "SELECT * FROM machines WHERE serial_no = 'TEST-001'"
  3. send a command (seen by: mosquitto_sub -p {mqtt} -t machine/TEST-001/command)
     {program} command send TEST-001 reboot --config {settings}

Then change plugins/heartbeat/src/lib.rs and save it: the next heartbeat is handled by the new build.
The gateway's status: http://{admin}/api/status   The back end's: curl -H 'Authorization: Bearer demo' http://{api}/api/status
The lists in between: redis-cli -p {redis}   Ctrl-C ends everything.
"#,
        mqtt = ports.mqtt.port(),
        redis = ports.redis.port(),
        admin = ports.admin,
        api = ports.api,
        database = shown(&place.database()),
        program = shown(&program),
        settings = shown(&settings),
    );
}

/// As short as it can be typed where this was started.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
