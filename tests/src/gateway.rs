//! The gateway, as a person would start it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::compiled;
use crate::eventually;
use crate::servers::{end, signal};

/// The plugins that each gateway has beside it.
pub(crate) const STOCK: [&str; 5] = ["heartbeat", "error", "transaction", "command-validation", "acme-transform"];

/// The repository's root.
///
/// # Panics
/// Never: this crate lies in it.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the root")
}

/// The gateway that was built before the tests.
///
/// # Panics
/// Where it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("SLUICEGATE_BIN").map_or_else(|| program("sluicegate"), PathBuf::from)
}

/// A program that was built before the tests, by the same profile.
///
/// # Panics
/// Where it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // target/PROFILE/deps/gateway-… where this is a test, target/PROFILE/… where it is a program.
    let this = std::env::current_exe().expect("this program's path");
    let folder = this.parent().expect("a folder");
    let folder = if folder.ends_with("deps") { folder.parent().expect("a folder") } else { folder };
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is missing; `cargo build --workspace` builds it, `cargo xtask test` does all",
        program.display()
    );
    program
}

/// A built plugin.
///
/// # Panics
/// Where it was not built.
#[must_use]
pub fn component(name: &str) -> Vec<u8> {
    let path = root().join("config/plugins").join(format!("{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask plugins` builds it", path.display()))
}

/// The same plugin as another build: one more custom section, which nobody reads.
#[must_use]
pub fn another_build(name: &str, mark: u8) -> Vec<u8> {
    let mut bytes = component(name);
    bytes.extend_from_slice(&[0, 4, 2, b'x', b'x', mark]);
    bytes
}

/// Writes a file by an atomic rename, so that it is whole for whoever reads it meanwhile, in another process too.
///
/// # Panics
/// Where it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&beside, bytes).expect("written");
    fs::rename(beside, path).expect("renamed");
}

/// Settings of built-in plugins, where [`Gateway::with`] puts their files.
#[must_use]
pub fn plugins(names: &[&str]) -> String {
    names.iter().map(|name| format!("[plugins.{name}]\npath = \"plugins/{name}.wasm\"\n")).collect()
}

/// A built-in route, with the plugin of its name; `more` is what it has beside.
#[must_use]
pub fn route(name: &str, more: &str) -> String {
    format!(
        "[[routes]]\nname = \"{name}\"\ntopic = \"machine/{{serial_no}}/{name}\"\nhandlers = [\"{name}\"]\n{more}\n"
    )
}

/// A running gateway.
pub struct Gateway {
    folder: TempDir,
    child: Option<Child>,
    admin: u16,
    settings: bool,
    environment: Vec<(String, String)>,
    /// A folder of its own that is a disk of its own, and its size.
    disk: Option<(String, String)>,
    /// Arguments of `strace`, which runs it.
    strace: Option<Vec<String>>,
    /// The child is `strace`, in a process group of its own: killed alone, it would leave the gateway behind.
    group: bool,
    /// Without root's right to read and write whatever it wants.
    powerless: bool,
    /// How often it was started.
    starts: usize,
    /// Where its logs are kept when it is dropped, and under which name.
    keep: Option<(PathBuf, String)>,
}

impl Gateway {
    /// With the stock plugins in a folder of its own, and `settings` (TOML) beside them; not started yet.
    ///
    /// # Panics
    /// Where the plugins are not built.
    #[must_use]
    pub fn with(settings: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        fs::create_dir(folder.path().join("plugins")).expect("a folder");
        for name in STOCK {
            fs::write(folder.path().join("plugins").join(format!("{name}.wasm")), component(name)).expect("copied");
        }
        fs::write(folder.path().join("sluicegate.toml"), settings).expect("settings written");
        compiled::put(&folder.path().join("state"));
        Self {
            folder,
            child: None,
            admin: 0,
            settings: true,
            environment: Vec::new(),
            disk: None,
            strace: None,
            group: false,
            powerless: false,
            starts: 0,
            keep: None,
        }
    }

    /// The built-in plugins and routes, on these servers.
    pub async fn start(mqtt: u16, redis: u16) -> Self {
        let mut gateway = Self::with(&Self::settings(mqtt, redis, ""));
        gateway.run().await;
        gateway
    }

    /// Settings for these servers; `more` goes behind them.
    #[must_use]
    pub fn settings(mqtt: u16, redis: u16, more: &str) -> String {
        format!(
            "[mqtt]\nurl = \"mqtt://127.0.0.1:{mqtt}\"\nname = \"EMQX\"\n[redis]\nurl = \"redis://127.0.0.1:{redis}\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n{more}"
        )
    }

    /// No settings file: the environment alone.
    #[must_use]
    pub fn without_settings(environment: &[(&str, &str)]) -> Self {
        let mut gateway = Self::with("");
        fs::remove_file(gateway.folder.path().join("sluicegate.toml")).expect("removed");
        gateway.settings = false;
        gateway.environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        gateway
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a folder that is a disk of its own, of this size (as `mount` has it). What stands there goes with the process.
    #[must_use]
    pub fn on_a_small_disk(mut self, folder: &str, size: &str) -> Self {
        self.disk = Some((folder.to_owned(), size.to_owned()));
        self
    }

    /// Under `strace` with these arguments, from the next start on; what it saw stands in the file `trace`.
    #[must_use]
    pub fn traced(mut self, arguments: &[&str]) -> Self {
        self.strace = Some(arguments.iter().map(|argument| (*argument).to_owned()).collect());
        self
    }

    /// Keeps its logs in this folder when it is dropped, `NAME-1.log` of its first start and so on, and its last status.
    #[must_use]
    pub fn keeping_logs(mut self, folder: PathBuf, name: &str) -> Self {
        self.keep = Some((folder, name.to_owned()));
        self
    }

    /// No more under `strace`, from the next start on.
    pub fn untraced(&mut self) {
        self.strace = None;
    }

    /// From the next start on without root's right to override permissions, where it is started by root.
    pub fn without_override(&mut self, powerless: bool) {
        self.powerless = powerless;
    }

    /// Whether it was started, and not ended from here.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// Where it does not get ready.
    pub async fn run(&mut self) {
        self.spawn().await;
        self.ready().await;
    }

    /// Waits until all its connections stand and its plugins are live.
    ///
    /// # Panics
    /// Where it does not get ready.
    pub async fn ready(&self) {
        eventually(&format!("the gateway is ready; its log:\n{}", self.log()), async || {
            (self.get("/readyz").await?["ready"] == true).then_some(())
        })
        .await;
    }

    /// Starts it and waits until its admin server listens.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn spawn(&mut self) {
        self.launch();
        self.admin = eventually("the admin server listens", async || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains("admin listening"))?;
            line.rsplit(':').next()?.trim().parse().ok()
        })
        .await;
    }

    /// Starts it, and waits for nothing.
    ///
    /// # Panics
    /// Where there is no such program.
    pub fn launch(&mut self) {
        self.starts += 1;
        let log = fs::File::create(self.log_path(self.starts)).expect("a log file");
        let mut command = match (&self.disk, &self.strace) {
            (None, None) if self.powerless => {
                let drop = "--bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search";
                let run = format!("test $(id -u) != 0 && exec \"$0\" \"$@\"; exec setpriv {drop} \"$0\" \"$@\"");
                let mut command = Command::new("sh");
                command.args(["-c", &run]).arg(binary());
                command
            }
            (None, None) => Command::new(binary()),
            (_, Some(arguments)) => {
                let mut command = Command::new("strace");
                command.args(["-f", "-qq", "-o", "trace"]).args(arguments).arg(binary());
                command
            }
            // A mount of its own, which nobody else sees and which needs no rights.
            (Some((folder, size)), None) => {
                fs::create_dir_all(self.folder.path().join(folder)).expect("a folder");
                let mount = format!("mount -t tmpfs -o size={size} tmpfs {folder} && exec \"$0\" \"$@\"");
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]).arg(binary());
                command
            }
        };
        command.arg("run").current_dir(self.folder.path()).env("RUST_LOG", "info").env("NO_COLOR", "1");
        self.group = self.strace.is_some();
        if self.group {
            command.process_group(0);
        }
        if self.settings {
            command.args(["--config", "sluicegate.toml"]);
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        self.child =
            Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("the gateway starts"));
    }

    fn log_path(&self, start: usize) -> PathBuf {
        self.folder.path().join(format!("{start}.log"))
    }

    /// Its log since it was started last.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path(self.starts)).unwrap_or_default()
    }

    /// How much it has logged, in bytes: to see that it said something without asking it.
    #[must_use]
    pub fn log_length(&self) -> u64 {
        fs::metadata(self.log_path(self.starts)).map_or(0, |file| file.len())
    }

    /// Puts a component into its plugins, by an atomic rename.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn install(&self, name: &str, component: &[u8]) {
        replace(&self.path("plugins").join(format!("{name}.wasm")), component);
    }

    /// A file in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What its admin server answers, as JSON; none while it does not.
    pub async fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.text(path).await?).ok()
    }

    /// What its admin server answers, as text.
    pub async fn text(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    }

    /// Where its admin server listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.admin)
    }

    /// What its admin server answers to JSON, with status and headers.
    ///
    /// # Panics
    /// Where it does not answer.
    pub async fn post(&self, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).await.expect("the admin server listens");
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    /// Waits until its messages are where they are expected to be, and says that each is in one place.
    ///
    /// # Panics
    /// Where they do not get there, or the count does not balance at any look.
    pub async fn counts(&self, expected: &[(&str, u64)]) {
        eventually(&format!("the messages are {expected:?}"), async || {
            let messages = self.messages().await?;
            expected.iter().all(|(place, count)| messages[*place] == *count).then_some(())
        })
        .await;
    }

    /// Where its messages are: each in one place.
    ///
    /// # Panics
    /// Where the count does not balance.
    pub async fn messages(&self) -> Option<Value> {
        let messages = self.get("/api/status").await?["messages"].clone();
        let count = |place: &str| messages[place].as_u64().unwrap_or_else(|| panic!("{place} in {messages}"));
        let places = ["pushed", "suppressed", "dead", "dropped", "spooled", "in_flight", "returned"];
        assert_eq!(count("received"), places.into_iter().map(count).sum::<u64>(), "{messages}");
        Some(messages)
    }

    /// Waits for a reason for which it is not ready.
    ///
    /// # Panics
    /// Where it never says so.
    pub async fn says(&self, text: &str) {
        eventually(&format!("/readyz says: {text}"), async || {
            self.text("/readyz").await.filter(|reasons| reasons.contains(text))
        })
        .await;
    }

    /// One plugin of its status.
    pub async fn plugin(&self, name: &str) -> Option<Value> {
        let status = self.get("/api/status").await?;
        status["plugins"].as_array()?.iter().find(|plugin| plugin["name"] == name).cloned()
    }

    /// The digest of a plugin's build that was refused last.
    pub async fn last_refused(&self, name: &str) -> Option<String> {
        self.plugin(name).await?["last_refusal"]["digest"].as_str().map(str::to_owned)
    }

    /// The generation of a plugin that is live.
    pub async fn generation(&self, name: &str) -> Option<u64> {
        self.plugin(name).await?["live"]["generation"].as_u64()
    }

    /// Since when a plugin's live build is live.
    ///
    /// # Panics
    /// Where none is.
    pub async fn live_since(&self, name: &str) -> SystemTime {
        let plugin = self.plugin(name).await.expect("its status");
        let since: Timestamp = plugin["live"]["since"].as_str().and_then(|at| at.parse().ok()).expect("a time");
        SystemTime::UNIX_EPOCH + Duration::try_from(since.duration_since(Timestamp::UNIX_EPOCH)).expect("after 1970")
    }

    /// Its status, asked for without a runtime.
    fn status_now(&self) -> String {
        use std::io::{Read as _, Write as _};
        let asked = || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.admin))?;
            stream.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
            stream.write_all(b"GET /api/status HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        asked().unwrap_or_else(|error| error.to_string())
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("a running gateway"), name);
    }

    /// Its process.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.as_ref().expect("a running gateway").id()
    }

    /// Its memory, in bytes, of `/proc/PID/status`: `VmRSS:` is what it holds, `VmHWM:` the most that it ever held.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn memory(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).expect("a process");
        let line = status.lines().find(|line| line.starts_with(what)).expect("a line");
        let number = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number");
        number << 10
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running gateway");
        eventually("the gateway ends", async || child.try_wait().expect("its status")).await
    }

    /// Ends it at once (kill -9).
    pub fn kill(&mut self) {
        if let Some(child) = self.child.as_ref().filter(|_| self.group) {
            // Of a group whose processes are gone there is nothing to kill.
            drop(Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).stderr(Stdio::null()).status());
        }
        end(&mut self.child);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some((folder, name)) = &self.keep {
            for start in 1..=self.starts {
                drop(fs::copy(self.log_path(start), folder.join(format!("{name}-{start}.log"))));
            }
            if self.child.is_some() {
                drop(fs::write(folder.join(format!("{name}-status.txt")), self.status_now()));
            }
        } else if std::thread::panicking() {
            eprintln!("the gateway's log:\n{}\nits status:\n{}", self.log(), self.status_now());
        }
        self.kill();
    }
}
