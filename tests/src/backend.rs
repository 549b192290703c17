//! The back end, as a person would start it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::gateway::program;
use crate::servers::{end, free_port};

/// The token of the API, and its hash.
pub const TOKEN: &str = "0123456789abcdef";
const TOKEN_SHA256: &str = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";

/// A running `sluicegate-backend run`.
pub struct Backend {
    child: Option<Child>,
    folder: PathBuf,
    api: u16,
}

impl Backend {
    /// Starts it on this Redis and this database, with what it keeps in `folder`; waits for nothing.
    ///
    /// # Panics
    /// Where there is no such program.
    #[must_use]
    pub fn start(folder: &Path, redis: u16, database: &str) -> Self {
        Self::with(folder, redis, database, "")
    }

    /// The same, with more settings.
    ///
    /// # Panics
    /// Where there is no such program.
    #[must_use]
    pub fn with(folder: &Path, redis: u16, database: &str, more: &str) -> Self {
        let api = free_port();
        let text = format!(
            "[redis]\nurl = \"redis://127.0.0.1:{redis}\"\n[database]\nurl = \"{database}\"\n\
             [api]\nlisten = \"127.0.0.1:{api}\"\ntokens = [{{ name = \"tests\", sha256 = \"{TOKEN_SHA256}\" }}]\n{more}"
        );
        fs::write(folder.join("backend.toml"), text).expect("settings written");
        let mut backend = Self { child: None, folder: folder.to_owned(), api };
        let log = fs::File::create(backend.log_path()).expect("a log file");
        let mut command = backend.command(&["run"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        backend.child = Some(command.spawn().expect("the back end starts"));
        backend
    }

    /// Its log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("backend.log")
    }

    /// Where its API listens.
    #[must_use]
    pub fn api(&self) -> String {
        format!("127.0.0.1:{}", self.api)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// What it has computed so far, of `/proc/PID/stat`.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let process = self.child.as_ref().expect("a running back end").id();
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
        // After the name, which stands in parentheses: the 12th and 13th are the user's and the system's time, in hundredths of a second
        // (`USER_HZ`; proc_pid_stat(5)).
        let after = stat.rsplit_once(')').expect("a name").1;
        let ticks: u64 =
            after.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Its command line, with its settings.
    ///
    /// # Panics
    /// Where there is no such program.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("the back end's command line")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("sluicegate-backend"));
        command.args(arguments).arg("--config").arg(self.folder.join("backend.toml")).env("NO_COLOR", "1");
        command
    }

    /// What its API says of it; none while it does not.
    pub async fn status(&self) -> Option<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.api)).await.ok()?;
        let request = format!(
            "GET /api/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
