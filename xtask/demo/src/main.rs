//! `cargo xtask run` runs this: the gateway with everything embedded, a few machines, and what flows, in a readable way.
//!
//! Its arguments: the repository's root, the folder where its programs are built, how many machines there are.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use notify::{RecursiveMode, Watcher as _};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::Packet;
use rumqttc::{AsyncClient, Broker, Event, EventLoop, MqttOptions, PublishOptions};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How often a machine reports.
const BEAT: Duration = Duration::from_secs(5);
/// How often the list is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How much of its end: more than comes between two looks, where a person is to read it.
const SHOWN: isize = 200;

/// Where the parts listen.
struct Ports {
    mqtt: SocketAddr,
    redis: SocketAddr,
    admin: SocketAddr,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, target, machines] = &arguments[..] else {
        eprintln!("error: run it by `cargo xtask run`");
        return ExitCode::FAILURE;
    };
    match run(Path::new(root), Path::new(target), machines).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(root: &Path, target: &Path, machines: &str) -> Result<()> {
    let machines = machines.parse().context("the number of machines")?;
    let ports = Ports { mqtt: port(1883)?, redis: port(6379)?, admin: port(9090)? };
    let gateway = start(root, target, &ports)?;
    show(root, &ports, machines, gateway).await
}

/// The usual port, or a free one.
fn port(usual: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", usual)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(listener.local_addr()?)
}

fn start(root: &Path, target: &Path, ports: &Ports) -> Result<Child> {
    let folder = target.join("run");
    fs::create_dir_all(&folder)?;
    let settings = folder.join("sluicegate.toml");
    let plugins = root.join("config").join("plugins");
    let mut text = format!(
        "[mqtt]\nurl = \"embedded\"\n[redis]\nurl = \"embedded\"\n[admin]\nlisten = \"{}\"\n[commands]\nvalidator = \"command-validation\"\n",
        ports.admin
    );
    for name in ["heartbeat", "error", "transaction", "command-validation"] {
        let path = plugins.join(format!("{name}.wasm"));
        text.push_str(&format!("[plugins.{name}]\npath = {:?}\n", path.display().to_string()));
    }
    for name in ["heartbeat", "error", "transaction"] {
        text.push_str(&format!(
            "[[routes]]\nname = \"{name}\"\ntopic = \"machine/{{serial_no}}/{name}\"\nhandlers = [\"{name}\"]\n"
        ));
    }
    fs::write(&settings, text)?;
    Command::new(target.join("release").join("sluicegate"))
        .args(["run", "--config"])
        .arg(&settings)
        .env("SLUICEGATE_EMBEDDED_MQTT_LISTEN", ports.mqtt.to_string())
        .env("SLUICEGATE_EMBEDDED_REDIS_LISTEN", ports.redis.to_string())
        .spawn()
        .context("starting the gateway")
}

async fn show(root: &Path, ports: &Ports, machines: u32, mut gateway: Child) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let (redis, mqtt) = (ports.redis, ports.mqtt);
    for number in 1..=machines {
        tasks.spawn(machine(format!("DEMO-{number:03}"), mqtt));
    }
    tasks.spawn(jobs(redis));
    let (root, sources) = (root.to_owned(), root.join("plugins"));
    tasks.spawn(rebuild(root, sources));
    print_hints(ports);
    let result = loop {
        tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            Some(ended) = tasks.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => break Err(error),
                Err(error) => break Err(error.into()),
            },
            status = gateway.wait() => {
                let status = status?;
                break Err(anyhow!("the gateway ended by itself ({status}); its log above says why"));
            }
        }
    };
    tasks.shutdown().await;
    // After Ctrl-C on a terminal the gateway has the signal already; one SIGTERM more would end it at once.
    let by_itself = Duration::from_secs(if result.is_ok() { 1 } else { 0 });
    if timeout(by_itself, gateway.wait()).await.is_err()
        && let Some(id) = gateway.id()
    {
        Command::new("kill").args(["-TERM", &id.to_string()]).stderr(Stdio::null()).status().await?;
    }
    match timeout(Duration::from_secs(15), gateway.wait()).await {
        Ok(status) => ensure!(status?.success(), "the gateway did not end well; its log above says why"),
        Err(_) => gateway.kill().await?,
    }
    result
}

fn print_hints(ports: &Ports) {
    let (mqtt, redis) = (ports.mqtt.port(), ports.redis.port());
    println!(
        r#"
Try, in another terminal (mosquitto_pub is in the package mosquitto-clients, redis-cli in redis-tools):

  1. publish a heartbeat
     mosquitto_pub -p {mqtt} -t machine/TEST-001/heartbeat -q 1 -m '{{"current_page":1,"temperature":25.5}}'
  2. read the list that the back end takes its jobs from
     redis-cli -p {redis} LRANGE mqtt_incoming_jobs -5 -1
  3. send a command (seen by: mosquitto_sub -p {mqtt} -t machine/TEST-001/command)
     redis-cli -p {redis} RPUSH mqtt_outgoing_commands '{{"target":"TEST-001","command":"reboot","payload":[],"message_id":"MSG_1"}}'

Then change plugins/heartbeat/src/lib.rs and save it: the next heartbeat is handled by the new build.
Status: http://{admin}/api/status   Ctrl-C ends everything.
"#,
        admin = ports.admin
    );
}

/// One machine: reports, and shows the commands that reach it.
async fn machine(serial_no: String, mqtt: SocketAddr) -> Result<()> {
    let mut options = MqttOptions::new(serial_no.clone(), Broker::tcp(mqtt.ip().to_string(), mqtt.port()));
    options.set_keep_alive(30);
    let (client, events) = AsyncClient::builder(options).capacity(16).build();
    let listen = commands(serial_no.clone(), client.clone(), events);
    let report = async {
        for count in 0_u64.. {
            let (kind, payload) = match count % 4 {
                3 => (
                    "transaction",
                    format!(r#"{{"transaction_id":"{serial_no}-{count}","slot_no":5,"amount":"35.00"}}"#),
                ),
                2 => {
                    ("error", r#"{"error_code":"E042","message":"slot jam","slot_no":7,"level":"warning"}"#.to_owned())
                }
                _ => ("heartbeat", format!(r#"{{"current_page":{count},"temperature":4.5}}"#)),
            };
            let topic = format!("machine/{serial_no}/{kind}");
            client.publish(topic, payload, PublishOptions::new(QoS::AtLeastOnce)).await?;
            tokio::time::sleep(BEAT).await;
        }
        Ok(())
    };
    tokio::select! {
        result = report => result,
        result = listen => result,
    }
}

async fn commands(serial_no: String, client: AsyncClient, mut events: EventLoop) -> Result<()> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                client.try_subscribe(format!("machine/{serial_no}/command"), QoS::AtLeastOnce)?;
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                println!("{serial_no:>12}  command  {}", String::from_utf8_lossy(&publish.payload));
            }
            Ok(_) => {}
            // The gateway's broker is starting.
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Shows what is pushed, and leaves it there.
async fn jobs(redis: SocketAddr) -> Result<()> {
    let client = redis::Client::open(format!("redis://{redis}"))?;
    let mut connection = loop {
        match client.get_multiplexed_async_connection().await {
            Ok(connection) => break connection,
            // The gateway's Redis is starting.
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    };
    let mut seen: [Vec<String>; 2] = Default::default();
    loop {
        for (list, seen) in ["mqtt_incoming_jobs", "mqtt_dead_letters"].into_iter().zip(&mut seen) {
            let end: Vec<String> =
                redis::cmd("LRANGE").arg(list).arg(-SHOWN).arg(-1).query_async(&mut connection).await?;
            for job in added(seen, &end) {
                println!("{:>12}  {job}", if list == "mqtt_incoming_jobs" { "job" } else { "dead letter" });
            }
            *seen = end;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What was appended to a list, of which the end was `before` and is `now`: others may take from its head meanwhile, so that no
/// place in it says so.
fn added<'a>(before: &[String], now: &'a [String]) -> &'a [String] {
    (0..=before.len()).find_map(|gone| now.strip_prefix(&before[gone..])).unwrap_or(now)
}

/// Rebuilds a plugin when its source is saved; the gateway reloads it by itself.
async fn rebuild(root: PathBuf, sources: PathBuf) -> Result<()> {
    // One save is a few events; what does not fit is of the same save.
    let (sender, mut changed) = mpsc::channel(64);
    let folder = sources.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if event.kind.is_access() {
            return;
        }
        for path in event.paths {
            if let Some(plugin) = path.strip_prefix(&folder).ok().and_then(|path| path.iter().next()) {
                let _ = sender.try_send(plugin.to_string_lossy().into_owned());
            }
        }
    })?;
    watcher.watch(&sources, RecursiveMode::Recursive)?;
    while let Some(first) = changed.recv().await {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut names = BTreeSet::from([first]);
        while let Ok(name) = changed.try_recv() {
            names.insert(name);
        }
        let names: Vec<String> =
            names.into_iter().filter(|name| sources.join(name).join("Cargo.toml").is_file()).collect();
        if names.is_empty() {
            continue;
        }
        println!("{:>12}  {}", "building", names.join(", "));
        // Where it is not built it says why, and the old build goes on.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Command::new(cargo).current_dir(&root).args(["xtask", "plugins"]).args(names).status().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, now: &str, expected: &str) {
        let list = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        assert_eq!(added(&list(before), &list(now)), list(expected));
    }

    #[test]
    fn what_is_new_is_shown_once_whoever_takes_from_the_list() {
        check("", "abc", "abc");
        check("abc", "abc", "");
        check("abc", "abcd", "d");
        // Two were taken, one came; all were taken; more came than is looked at.
        check("abc", "cd", "d");
        check("abc", "", "");
        check("abc", "de", "de");
        check("abc", "bcd", "d");
    }
}
