//! What a test stands on: Redis, a database, and back ends in between.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use sluicegate_backend::database::Database;
use sluicegate_backend::database::session::{Statement, Value as Bound};
use sluicegate_backend::redis::connect::Connector;
use sluicegate_backend::redis::lists::ListKeys;
use sluicegate_backend::settings::{self, Resolved};
use sluicegate_tests::eventually::within;
use sluicegate_tests::servers::free_port;
use sluicegate_tests::{MariaDb, RedisServer, eventually};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The token of the API, and its hash.
pub(crate) const TOKEN: &str = "0123456789abcdef";
const TOKEN_SHA256: &str = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
pub(crate) const JOBS: &str = "mqtt_incoming_jobs";
pub(crate) const LETTERS: &str = "mqtt_job_dead_letters";

/// Redis, a database, and the settings that lead to both.
pub(crate) struct Stage {
    pub(crate) redis: RedisServer,
    pub(crate) mariadb: Option<MariaDb>,
    folder: TempDir,
    more: String,
    database: Option<Database>,
}

/// A running back end.
pub(crate) struct Backend {
    child: Option<Child>,
    log: PathBuf,
    pub(crate) api: u16,
}

impl Stage {
    pub(crate) async fn sqlite() -> Self {
        Self::on(None).await
    }

    pub(crate) async fn mariadb() -> Self {
        Self::on(Some(MariaDb::start().await)).await
    }

    async fn on(mariadb: Option<MariaDb>) -> Self {
        let (redis, folder) = (RedisServer::start().await, TempDir::new().expect("a folder"));
        Self { redis, mariadb, folder, more: String::new(), database: None }
    }

    /// With more settings; a section that is written here is left out of the others.
    pub(crate) fn with(mut self, more: &str) -> Self {
        self.more.push_str(more);
        self.more.push('\n');
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self, instance: &str, api: u16) -> PathBuf {
        self.settings_in(instance, instance, api)
    }

    fn settings_in(&self, file: &str, instance: &str, api: u16) -> PathBuf {
        let url = self.mariadb.as_ref().map_or_else(|| "sqlite:backend.db".to_owned(), MariaDb::url);
        let sections = [
            ("redis", format!("url = \"redis://127.0.0.1:{}\"", self.redis.port)),
            ("database", format!("url = \"{url}\"")),
            ("listener", format!("instance = \"{instance}\"")),
            (
                "api",
                format!("listen = \"127.0.0.1:{api}\"\ntokens = [{{ name = \"test\", sha256 = \"{TOKEN_SHA256}\" }}]"),
            ),
        ];
        let mut text = String::new();
        let mut more = self.more.clone();
        for (name, keys) in sections {
            // What a test says of a section stands beside what leads to the servers.
            let own = format!("[{name}]\n");
            // Its own address wins.
            let keys = if more.contains(&format!("{own}url = ")) { String::new() } else { keys };
            let head = format!("[{name}]\n{keys}\n");
            if more.contains(&own) {
                more = more.replacen(&own, &head, 1);
            } else {
                text.push_str(&head);
            }
        }
        let path = self.path(&format!("{file}.toml"));
        fs::write(&path, text + &more).expect("settings written");
        path
    }

    /// The tables, made before the first back end is there.
    pub(crate) async fn database(&mut self) -> Database {
        if self.database.is_none() {
            let Resolved { settings, .. } = settings::load(Some(&self.settings("test", 1))).expect("good settings");
            let database = Database::new(&settings.database).expect("a client");
            eventually("the tables are made", async || database.migrate().await.ok()).await;
            self.database = Some(database);
        }
        self.database.clone().expect("it was made")
    }

    /// Starts `sluicegate-backend run` and does not wait for it.
    pub(crate) fn start(&self, instance: &str) -> Backend {
        self.start_named(instance, instance)
    }

    /// The same, with files of another name: several may have one instance's.
    pub(crate) fn start_named(&self, file: &str, instance: &str) -> Backend {
        let api = free_port();
        let settings = self.settings_in(file, instance, api);
        let log = self.path(&format!("{file}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_sluicegate-backend"))
            .args(["run", "--config"])
            .arg(settings)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the back end starts");
        Backend { child: Some(child), log, api }
    }

    /// Runs the command line to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_sluicegate-backend"))
            .args(arguments)
            .arg("--config")
            .arg(self.settings("cli", 1))
            .output()
            .expect("it runs")
    }

    /// Runs the command line with `--json`: the exit code, and what it answers.
    pub(crate) fn ask(&self, arguments: &[&str]) -> (i32, Value) {
        let done = self.run(&[arguments, &["--json"]].concat());
        let text = String::from_utf8_lossy(&done.stdout);
        let answer = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&done.stderr)));
        (done.status.code().expect("a code"), answer)
    }

    /// The list of jobs, for whoever takes from it without a back end.
    pub(crate) fn list(&self) -> (Connector, ListKeys) {
        let Resolved { settings, .. } = settings::load(Some(&self.settings("list", 1))).expect("good settings");
        (Connector::new(&settings.redis).expect("a client"), ListKeys::new(JOBS.to_owned()))
    }

    pub(crate) async fn push(&self, jobs: &[String]) {
        self.redis.push(JOBS, jobs).await;
    }

    /// Does something to the database, whatever it is called there.
    pub(crate) async fn execute(&mut self, sql: &str) {
        let database = self.database().await;
        let mut session = database.begin().await.expect("a transaction");
        session
            .execute(&Statement { sql: sql.to_owned(), values: Vec::new() })
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        session.commit().await.expect("committed");
    }

    /// The rows of a query whose columns are texts, each as one line.
    pub(crate) async fn rows(&mut self, sql: &str) -> Vec<String> {
        let database = self.database().await;
        let statement = Statement { sql: sql.to_owned(), values: Vec::<Bound>::new() };
        let read = async || {
            let mut session = database.read().await.ok()?;
            let rows = session.rows(&statement).await.ok()?;
            session.commit().await.ok()?;
            Some(rows.iter().map(|row| row.text(0).expect("a text").unwrap_or_else(|| "null".to_owned())).collect())
        };
        eventually(sql, read).await
    }

    pub(crate) async fn count(&mut self, table: &str) -> u64 {
        self.rows(&format!("SELECT CAST(COUNT(*) AS CHAR) FROM {table}")).await[0].parse().expect("a number")
    }

    /// Waits until a query has these rows. What it has meanwhile is printed.
    pub(crate) async fn has(&mut self, sql: &str, rows: &[&str]) {
        let mut last = Vec::new();
        eventually(&format!("{sql}: {rows:?}"), async || {
            let found = self.rows(sql).await;
            if found != last {
                println!("{sql}: {found:?}");
                last.clone_from(&found);
            }
            (found == rows).then_some(())
        })
        .await;
    }

    /// Waits until the list and every processing list are empty.
    pub(crate) async fn all_taken(&self) {
        // Each batch is synced, and the disk may be everybody's.
        within(Duration::from_secs(180), "every job is taken off", async || {
            let mut length: u64 = self.redis.ask(&format!("LLEN {JOBS}")).await.ok()?;
            for key in self.redis.ask::<Vec<String>>("KEYS *:processing:*").await.ok()? {
                length += self.redis.ask::<u64>(&format!("LLEN {key}")).await.ok()?;
            }
            (length == 0).then_some(())
        })
        .await;
    }

    /// A machine with slots 1 to `slots`, each with so many.
    pub(crate) async fn machine(&mut self, serial_no: &str, slots: u32, stock: u32) {
        self.execute(&format!("INSERT INTO machines (serial_no) VALUES ('{serial_no}')")).await;
        for slot in 1..=slots {
            self.execute(&format!(
                "INSERT INTO machine_slots (machine_id, slot_no, stock) SELECT id, {slot}, {stock} FROM machines WHERE serial_no = '{serial_no}'"
            ))
            .await;
        }
    }

    pub(crate) fn is_mariadb(&self) -> bool {
        self.mariadb.is_some()
    }
}

impl Backend {
    fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill").success());
    }

    /// Ends it at once (kill -9).
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it in its tracks. The signal reaches one thread, which stops the others when its turn comes: until then they go on.
    pub(crate) async fn freeze(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.child.as_ref().expect("it runs").id());
        eventually("every thread stands", async || {
            let mut threads = fs::read_dir(&tasks).expect("its threads").flatten();
            let stands = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
            threads.all(|thread| fs::read_to_string(thread.path().join("stat")).is_ok_and(stands)).then_some(())
        })
        .await;
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// The most memory that it has had, in MiB.
    pub(crate) fn memory_peak(&self) -> u64 {
        let id = self.child.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).expect("its state");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1_024
    }

    /// Has it read its settings again.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Ends it as a person would, and waits for it.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let mut child = self.child.take().expect("it runs");
        eventually("the back end ends", async || child.try_wait().expect("its state")).await
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it logged something.
    pub(crate) async fn logged(&self, part: &str) {
        eventually(&format!("`{part}` in the log"), async || self.log().contains(part).then_some(())).await;
    }

    /// Asks the API: the status, and the answer's body.
    pub(crate) async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
        let mut stream =
            eventually("the API listens", async || TcpStream::connect(("127.0.0.1", self.api)).await.ok()).await;
        let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// A job as the gateway writes it, `second` seconds after nine o'clock.
pub(crate) fn job(kind: &str, serial_no: &str, second: u32, payload: &str) -> String {
    let (hour, minute, second) = (9 + second / 3_600, second / 60 % 60, second % 60);
    format!(
        r#"{{"type":"{kind}","serial_no":"{serial_no}","payload":{payload},"received_at":"2026-04-14T{hour:02}:{minute:02}:{second:02}+08:00"}}"#
    )
}

pub(crate) fn sale(serial_no: &str, id: &str, slot: u32, amount: &str) -> String {
    job("transaction", serial_no, 0, &format!(r#"{{"transaction_id":"{id}","slot_no":{slot},"amount":{amount}}}"#))
}
