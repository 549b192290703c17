//! The real mosquitto and redis-server, each on a port and in a folder of its own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{FromRedisValue, RedisResult};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::certificates::certificates;
use crate::eventually;
use crate::gateway::root;

/// Where ports are looked for: below those that the system gives to outgoing connections, which come and go. The Laravel package's tests look from
/// 32,000 on.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A port that is free, and that nobody else of this process is given; another process begins elsewhere.
///
/// # Panics
/// Where the system has none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let many = u32::from(PORTS.end - PORTS.start);
    let start = std::process::id().wrapping_mul(7_919);
    let mut ports = (0..many).map(|_| {
        let place = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % many;
        PORTS.start + u16::try_from(place).expect("within the range")
    });
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn spawn(program: &str, package: &str, arguments: &[&str], log: &Path) -> Child {
    let log = fs::File::create(log).expect("a log file");
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not start ({error}); install the package {package}"))
}

async fn listening(port: u16, what: &str) {
    eventually(what, async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
}

pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().expect("kill");
    assert!(status.success(), "kill -{name} failed");
}

pub(crate) fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A mosquitto. How it is started says whether it has its sessions again after a restart.
pub struct Broker {
    folder: TempDir,
    /// Where it listens, the same after a restart.
    pub port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Starts one that keeps nothing on its disk.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// Starts one that has its sessions again after a restart, however it ended: it writes all of them at each change, which takes its time.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn lasting() -> Self {
        Self::with("persistence true\nautosave_interval 1\nautosave_on_changes true").await
    }

    /// Starts one with more settings, in `mosquitto.conf`'s words.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn with(more: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let port = free_port();
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n\
             set_tcp_nodelay true\npersistence_location {}/\nuser root\n{more}\n",
            folder.path().display()
        );
        fs::write(folder.path().join("mosquitto.conf"), settings).expect("settings written");
        let mut broker = Self { folder, port, child: None };
        broker.restart().await;
        broker
    }

    /// Starts one with the files of `config/mosquitto`, and these users: name and password. `port` is the machines'; the second is the
    /// gateway's.
    ///
    /// # Panics
    /// Where it does not start, or the file does not say what is replaced here.
    pub async fn shipped(users: &[(&str, &str)]) -> (Self, u16) {
        let folder = TempDir::new().expect("a folder");
        let (port, gateway) = (free_port(), free_port());
        let files = root().join("config/mosquitto");
        let mut settings = fs::read_to_string(files.join("mosquitto.conf")).expect("the shipped file");
        let here = format!("{}/", folder.path().display());
        for (shipped, own) in [
            ("\nlistener 1883\n", format!("\nlistener {port} 127.0.0.1\n")),
            ("\nlistener 1884 127.0.0.1\n", format!("\nlistener {gateway} 127.0.0.1\n")),
            ("password_file /etc/mosquitto/", format!("password_file {here}")),
            ("acl_file /etc/mosquitto/", format!("acl_file {here}")),
            ("persistence_location /var/lib/mosquitto/", format!("persistence_location {here}")),
        ] {
            assert_eq!(settings.matches(shipped).count(), 1, "{shipped} in config/mosquitto/mosquitto.conf");
            settings = settings.replace(shipped, &own);
        }
        fs::write(folder.path().join("mosquitto.conf"), settings + "user root\n").expect("settings written");
        fs::copy(files.join("acl"), folder.path().join("acl")).expect("the shipped rules");
        fs::write(folder.path().join("passwords"), "").expect("no passwords yet");
        let mut broker = Self { folder, port, child: None };
        for (name, password) in users {
            broker.passwords(&["-b"], &[name, password]);
        }
        broker.restart().await;
        listening(gateway, "mosquitto listens for the gateway").await;
        (broker, gateway)
    }

    /// Takes a user away, and has it read its files again, as config/mosquitto/README.md says.
    ///
    /// # Panics
    /// Where there is no such user, or no broker.
    pub fn revoke(&self, name: &str) {
        self.passwords(&["-D"], &[name]);
        signal(self.child.as_ref().expect("a running broker"), "HUP");
    }

    fn passwords(&self, options: &[&str], rest: &[&str]) {
        let mut command = Command::new("mosquitto_passwd");
        command.args(options).arg(self.folder.path().join("passwords")).args(rest);
        assert!(command.status().expect("mosquitto_passwd").success(), "mosquitto_passwd {options:?} {rest:?}");
    }

    /// Starts it again, on the same port, with what it kept, where it keeps something.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn restart(&mut self) {
        let settings = self.folder.path().join("mosquitto.conf");
        let settings = settings.to_string_lossy();
        let log = self.folder.path().join("log");
        let program = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        self.child = Some(spawn(program, "mosquitto", &["-c", &settings], &log));
        listening(self.port, "mosquitto listens").await;
    }

    /// Ends it at once (kill -9).
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// A file in its folder; `log` is its log.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends it and takes away all that it kept.
    ///
    /// # Panics
    /// Where its file cannot be removed.
    pub fn forget(&mut self) {
        self.stop();
        fs::remove_file(self.folder.path().join("mosquitto.db")).expect("it kept something");
    }

    /// Ends it as a person would; a lasting one saves its sessions.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child, "TERM");
            let _ = child.wait();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A redis-server that syncs each write to its append-only file.
pub struct RedisServer {
    folder: TempDir,
    /// Where it listens, the same after a restart.
    pub port: u16,
    /// Where it listens for other nodes, where it is one of a cluster.
    bus: Option<u16>,
    /// Where it speaks TLS, where it does, and whether it wants a certificate there.
    tls: Option<(u16, bool)>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts a node of a cluster, which knows no other yet.
    pub(crate) async fn start_in_a_cluster() -> Self {
        Self::start_with(Some(free_port())).await
    }

    async fn start_with(bus: Option<u16>) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut server = Self { folder, port: free_port(), bus, tls: None, child: None };
        server.restart().await;
        server
    }

    /// Starts one that speaks TLS on a port beside, with certificates of its own (`ca.pem` and the like, [`Self::path`]).
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_with_tls(wants_a_certificate: bool) -> Self {
        let folder = TempDir::new().expect("a folder");
        certificates(folder.path());
        let tls = Some((free_port(), wants_a_certificate));
        let mut server = Self { folder, port: free_port(), bus: None, tls, child: None };
        server.restart().await;
        server
    }

    /// Where it speaks TLS.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.tls.expect("a server that speaks TLS").0
    }

    pub(crate) fn bus(&self) -> u16 {
        self.bus.expect("a node of a cluster")
    }

    /// Starts it again, on the same port, with what it kept.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn restart(&mut self) {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let port = self.port.to_string();
        let bus = self.bus.map(|bus| bus.to_string()).unwrap_or_default();
        let mut arguments = vec![
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--dir",
            &folder,
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        if self.bus.is_some() {
            // A node that is away for two seconds is given up by the others.
            let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus];
            arguments.extend(cluster);
        }
        let (tls_port, wants) = self
            .tls
            .map_or((String::new(), "no"), |(port, wants)| (port.to_string(), if wants { "yes" } else { "no" }));
        let files = ["ca.pem", "server.pem", "server.key"].map(|name| format!("{folder}/{name}"));
        if self.tls.is_some() {
            arguments.extend(["--tls-port", &tls_port, "--tls-auth-clients", wants, "--tls-ca-cert-file", &files[0]]);
            arguments.extend(["--tls-cert-file", &files[1], "--tls-key-file", &files[2]]);
        }
        self.child = Some(spawn("redis-server", "redis-server", &arguments, &self.folder.path().join("log")));
        listening(self.port, "redis-server listens").await;
    }

    /// Ends it at once (kill -9).
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Ends it at once and takes away all that it kept; gives back what a list was then, since with each write synced that is what
    /// it had answered for. It is not started again.
    ///
    /// # Panics
    /// Where its files cannot be removed.
    pub async fn lose(&mut self, key: &str) -> Vec<String> {
        self.kill();
        // On another port, where nobody looks for it.
        let mut rest = Self {
            folder: std::mem::replace(&mut self.folder, TempDir::new().expect("a folder")),
            port: free_port(),
            bus: None,
            tls: None,
            child: None,
        };
        rest.restart().await;
        rest.list(key).await
    }

    /// Stops it in its tracks: connections stand, nothing answers.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn freeze(&self) {
        signal(self.child.as_ref().expect("a running server"), "STOP");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn thaw(&self) {
        signal(self.child.as_ref().expect("a running server"), "CONT");
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// A file in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sends it a command, in one line.
    ///
    /// # Panics
    /// Where it does not do it.
    pub async fn command(&self, line: &str) {
        let mut connection = self.connect().await;
        command(line).exec_async(&mut connection).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    }

    /// What it answers to a command, in one line.
    ///
    /// # Errors
    /// Where it refuses it.
    pub async fn ask<T: FromRedisValue>(&self, line: &str) -> RedisResult<T> {
        command(line).query_async(&mut self.connect().await).await
    }

    /// A connection.
    ///
    /// # Panics
    /// Where it does not answer in time.
    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a client");
        // Long lists take a while.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        let connect = async || {
            let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.ok()?;
            // It takes connections before it has read its file, and answers a PING with an error where it cannot save.
            redis::cmd("DBSIZE").query_async::<u64>(&mut connection).await.ok().map(|_| connection)
        };
        eventually("Redis takes a connection", connect).await
    }

    /// A list, whole.
    ///
    /// # Panics
    /// Where Redis does not answer.
    pub async fn list(&self, key: &str) -> Vec<String> {
        let connection = self.connect().await;
        let list = async || redis::cmd("LRANGE").arg(key).arg(0).arg(-1).query_async(&mut connection.clone()).await;
        match list().await {
            Ok(list) => list,
            // Just restarted, it reads what it kept.
            Err(error) if error.code() == Some("LOADING") => {
                eventually("Redis has its data", async || list().await.ok()).await
            }
            Err(error) => panic!("{key}: {error}"),
        }
    }

    /// A list, once it has so many entries.
    pub async fn list_of(&self, key: &str, length: usize) -> Vec<String> {
        eventually(&format!("{key} has {length} entries"), async || {
            let list = self.list(key).await;
            (list.len() >= length).then_some(list)
        })
        .await
    }

    /// Appends entries to a list.
    ///
    /// # Panics
    /// Where Redis does not answer.
    pub async fn push(&self, key: &str, entries: &[String]) {
        let mut connection = self.connect().await;
        redis::cmd("RPUSH").arg(key).arg(entries).exec_async(&mut connection).await.expect("pushed");
    }
}

/// A command, from its words.
pub(crate) fn command(line: &str) -> redis::Cmd {
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().expect("a word"));
    command.arg(words.collect::<Vec<_>>());
    command
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
