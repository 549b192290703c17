//! The two programs, gateway and back end: their settings, their start, their end.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How long a program may take to end in order.
const END: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);
/// Of the word `demo`, by which a person may ask the back end's API.
const TOKEN_SHA256: &str = "2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea";
/// What the gateway does with what machines send: route, the jobs' type, the end of the topic.
const ROUTES: [(&str, &str, &str); 4] = [
    ("heartbeat", "heartbeat", "heartbeat"),
    ("error", "error", "error"),
    ("transaction", "transaction", "transaction"),
    ("command-ack", "command_ack", "command/ack"),
];

/// Where the parts listen.
pub(crate) struct Ports {
    pub(crate) mqtt: SocketAddr,
    pub(crate) redis: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) api: SocketAddr,
}

impl Ports {
    pub(crate) fn choose() -> Result<Self> {
        Ok(Self { mqtt: port(1883)?, redis: port(6379)?, admin: port(9090)?, api: port(9091)? })
    }
}

/// The usual port, or a free one.
fn port(usual: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", usual)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(listener.local_addr()?)
}

/// Where the programs lie, and where they keep what they keep.
pub(crate) struct Place {
    programs: PathBuf,
    folder: PathBuf,
}

impl Place {
    /// Begins anew: the embedded Redis knows nothing of an earlier run, and so must the database not.
    pub(crate) fn new(programs: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        for ending in ["", "-wal", "-shm"] {
            match fs::remove_file(folder.join(format!("backend.db{ending}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(Self { programs: programs.to_owned(), folder: folder.to_owned() })
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("backend.db")
    }

    /// The back end's command line, as a person would type it.
    pub(crate) fn backend(&self) -> (PathBuf, PathBuf) {
        (self.programs.join("sluicegate-backend"), self.folder.join("backend.toml"))
    }

    /// Starts the gateway, and waits until it takes what machines send.
    pub(crate) async fn start_gateway(&self, root: &Path, ports: &Ports) -> Result<Child> {
        let plugins = root.join("config").join("plugins");
        let mut text = format!(
            "[mqtt]\nurl = \"embedded\"\n[redis]\nurl = \"embedded\"\n[admin]\nlisten = \"{}\"\n\
             [commands]\nvalidator = \"command-validation\"\n[queues]\ncommand_results = \"mqtt_command_results\"\n",
            ports.admin
        );
        for name in ROUTES.iter().map(|(name, ..)| *name).chain(["command-validation"]) {
            let path = plugins.join(format!("{name}.wasm"));
            text.push_str(&format!("[plugins.{name}]\npath = {:?}\n", path.display().to_string()));
        }
        for (name, kind, topic) in ROUTES {
            text.push_str(&format!(
                "[[routes]]\nname = \"{name}\"\ntype = \"{kind}\"\ntopic = \"machine/{{serial_no}}/{topic}\"\nhandlers = [\"{name}\"]\n"
            ));
        }
        let settings = self.folder.join("sluicegate.toml");
        fs::write(&settings, text)?;
        let mut command = Command::new(self.programs.join("sluicegate"));
        command
            .args(["run", "--config"])
            .arg(&settings)
            .env("SLUICEGATE_EMBEDDED_MQTT_LISTEN", ports.mqtt.to_string())
            .env("SLUICEGATE_EMBEDDED_REDIS_LISTEN", ports.redis.to_string());
        let mut gateway = spawn(&mut command).context("starting the gateway")?;
        while !is_ready(ports.admin).await {
            if let Some(status) = gateway.try_wait()? {
                bail!("the gateway ended by itself ({status}); its log above says why");
            }
            sleep(LOOK).await;
        }
        Ok(gateway)
    }

    /// Starts the back end.
    pub(crate) fn start_backend(&self, ports: &Ports) -> Result<Child> {
        let (program, settings) = self.backend();
        // Errors are shown as rows; people need not be told as well.
        let text = format!(
            "[redis]\nurl = \"redis://{}\"\n[database]\nurl = \"sqlite:backend.db\"\n[listener]\nalert_levels = [\"critical\"]\n\
             [api]\nlisten = \"{}\"\ntokens = [{{ name = \"demo\", sha256 = \"{TOKEN_SHA256}\" }}]\n",
            ports.redis, ports.api
        );
        fs::write(&settings, text)?;
        let mut command = Command::new(program);
        // What goes well is seen by its rows.
        command.args(["run", "--log", "warn", "--config"]).arg(settings);
        spawn(&mut command).context("starting the back end")
    }
}

/// Whether the gateway says that it is ready.
async fn is_ready(admin: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(1 << 16).read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).lines().next().is_some_and(|line| line.contains(" 200 ")))
    };
    timeout(Duration::from_secs(2), ask).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// In a process group of its own: Ctrl-C reaches this program alone, which ends them one after the other, in their order.
fn spawn(command: &mut Command) -> Result<Child> {
    Ok(command.process_group(0).stdin(Stdio::null()).kill_on_drop(true).spawn()?)
}

/// Ends a program in order, or at once after a while; whether it ended well.
pub(crate) async fn end(program: &mut Child) -> Result<bool> {
    if let Some(status) = program.try_wait()? {
        return Ok(status.success());
    }
    if let Some(id) = program.id() {
        Command::new("kill").args(["-TERM", &id.to_string()]).stderr(Stdio::null()).status().await?;
    }
    match timeout(END, program.wait()).await {
        Ok(status) => Ok(status?.success()),
        Err(_) => {
            program.kill().await?;
            Ok(false)
        }
    }
}
