//! `cargo xtask verify` holds, and fails where something is wrong: a check that cannot fail is none.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use sluicegate_tests::backend::TOKEN;
use sluicegate_tests::eventually::within;
use sluicegate_tests::gateway::component;
use sluicegate_tests::verify::gateway_settings;
use sluicegate_tests::{Backend, Broker, Gateway, RedisServer, eventually};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;

/// From its first server to its last word, where it waits for what never comes.
const LONG: Duration = Duration::from_secs(120);

/// The program, while it runs.
struct Verify {
    folder: TempDir,
    child: Child,
}

impl Verify {
    fn start(machines: u32, seconds: u32, database: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let output = fs::File::create(folder.path().join("output")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_verify"));
        command.args([&machines.to_string(), &seconds.to_string(), database]).arg(folder.path()).arg("4");
        let child = command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output).spawn();
        Self { folder, child: child.expect("it starts") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.path("output")).unwrap_or_default()
    }

    async fn ended(&mut self) -> ExitStatus {
        within(LONG, "it ends", async || self.child.try_wait().expect("its status")).await
    }

    /// Waits until the machines publish.
    async fn is_under_load(&self) {
        let what = format!("machines publish: {}", self.output());
        eventually(&what, async || self.output().contains(" jobs/s ").then_some(())).await;
    }

    fn has(&self, part: &str) {
        assert!(self.output().contains(part), "`{part}` is missing in:\n{}", self.output());
    }

    /// Changes the back end's database behind its back: one row, as soon as there is one.
    async fn change(&self, sql: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.path("backend.db")).busy_timeout(LONG);
        let pool = SqlitePool::connect_lazy_with(options);
        eventually(sql, async || {
            let done = sqlx::query(sql).execute(&pool).await.ok()?;
            (done.rows_affected() == 1).then_some(())
        })
        .await;
    }

    fn signal(&self, name: &str, process: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), process]).status().expect("kill").success());
    }

    /// The processes that it started, each with its command line.
    fn children(&self) -> Vec<(String, String)> {
        let me = self.child.id().to_string();
        let processes = fs::read_dir("/proc").expect("the processes").flatten();
        let child = |entry: fs::DirEntry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.to_owned();
            let command = fs::read_to_string(entry.path().join("cmdline")).ok()?.replace('\0', " ");
            (parent == me).then(|| (entry.file_name().to_string_lossy().into_owned(), command))
        };
        processes.filter_map(child).collect()
    }
}

impl Drop for Verify {
    fn drop(&mut self) {
        // It ends what it started.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_short_run_is_verified_on_sqlite_and_drawn() {
    let mut verify = Verify::start(20, 3, "sqlite");
    assert!(verify.ended().await.success(), "{}", verify.output());
    for step in ["connected", "heartbeat", "command", "machines", "queue", "lost", "doubled", "stock"] {
        verify.has(&format!("ok      {step}: "));
    }
    verify.has("verified: all 8 steps are good");
    let chart = fs::read_to_string(verify.path("verify.svg")).expect("the chart");
    assert!(chart.starts_with("<svg") && chart.contains("worker rate"), "{chart}");
}

#[tokio::test]
async fn a_short_run_is_verified_on_mariadb() {
    let mut verify = Verify::start(20, 3, "mariadb");
    assert!(verify.ended().await.success(), "{}", verify.output());
    verify.has("verified: all 8 steps are good");
}

#[tokio::test]
async fn a_row_that_is_taken_away_is_lost_and_one_that_is_there_twice_doubled() {
    let mut verify = Verify::start(20, 3, "sqlite");
    verify.is_under_load().await;
    verify.change("DELETE FROM transactions WHERE id = (SELECT MIN(id) FROM transactions)").await;
    verify
        .change("INSERT INTO machine_logs (machine_id, level, code, message) SELECT machine_id, level, code, message FROM machine_logs WHERE code = 'VERIFY' LIMIT 1")
        .await;
    assert_eq!(verify.ended().await.code(), Some(1), "{}", verify.output());
    for part in
        ["FAILED  lost", "lost 1: VERIFY-00", "FAILED  doubled", "doubled 1: VERIFY-00", "(2 rows)", "FAILED  stock"]
    {
        verify.has(part);
    }
    verify.has("look at   ");
    verify.has("NOT VERIFIED: 3 of 8 steps failed");
}

#[tokio::test]
async fn a_back_end_that_dies_is_seen_and_so_is_what_it_did_not_do() {
    let mut verify = Verify::start(20, 3, "sqlite");
    verify.is_under_load().await;
    let children = verify.children();
    let backend = children.iter().find(|(_, command)| command.contains("sluicegate-backend run")).expect("a back end");
    verify.signal("KILL", &backend.0);
    assert_eq!(verify.ended().await.code(), Some(1), "{}", verify.output());
    for part in ["FAILED  queue", "the back end has ended by itself", "FAILED  lost", "backend.log"] {
        verify.has(part);
    }
}

#[tokio::test]
async fn stopped_in_the_middle_it_leaves_nothing_running() {
    let mut verify = Verify::start(5, 600, "sqlite");
    verify.is_under_load().await;
    let children = verify.children();
    assert_eq!(children.len(), 4, "{children:?}");
    verify.signal("TERM", &verify.child.id().to_string());
    assert_eq!(verify.ended().await.code(), Some(1), "{}", verify.output());
    verify.has("error: stopped before its end");
    for (process, command) in children {
        let now = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default().replace('\0', " ");
        assert!(now != command, "still there: {command}");
    }
}

/// A deployment: a broker, a gateway that logs in there where it must, and a back end. The command line of what verifies it.
async fn deployed(broker: u16, gateway: u16, login: &str, tokens: &[(&str, &str)]) -> (i32, String) {
    let (folder, redis) = (TempDir::new().expect("a folder"), RedisServer::start().await);
    let backend = Backend::start(folder.path(), redis.port, "sqlite:backend.db");
    let settings =
        Gateway::settings(gateway, redis.port, &gateway_settings()).replace("[redis]", &format!("{login}[redis]"));
    let mut running = Gateway::with(&settings);
    running.install("command-ack", &component("command-ack"));
    running.run().await;
    eventually("the back end answers", async || backend.status().await).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_verify"));
    command.args(["deployed", &format!("127.0.0.1:{broker}"), &format!("redis://127.0.0.1:{}", redis.port)]);
    command.args([&backend.api(), "mqtt_incoming_jobs"]).envs(tokens.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("it starts");
    (output.status.code().expect("a code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_runs_already_is_verified_from_outside() {
    let (broker, gateway) =
        Broker::shipped(&[("sluicegate", "of the gateway"), ("VERIFY-ONE", "of the machine")]).await;
    let tokens = [("SLUICEGATE_API_TOKEN", TOKEN), ("SLUICEGATE_MACHINE_TOKEN", "of the machine")];
    let login = "username = \"sluicegate\"\npassword = \"of the gateway\"\n";
    let (code, output) = deployed(broker.port, gateway, login, &tokens).await;
    for step in ["ready", "redis", "closed", "heartbeat", "command"] {
        assert!(output.contains(&format!("ok      {step}: ")), "{step}: {output}");
    }
    assert!(code == 0 && output.contains("verified: all 5 steps are good"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_lets_everybody_in_is_not_verified() {
    let broker = Broker::start().await;
    let (code, output) = deployed(broker.port, broker.port, "", &[("SLUICEGATE_API_TOKEN", TOKEN)]).await;
    for part in ["FAILED  closed", "VERIFY-ONE was let in without one", "ok      command: ", "FAILED  revoked"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    assert_eq!(code, 1);
    let (code, output) = deployed(broker.port, broker.port, "", &[("SLUICEGATE_API_TOKEN", "wrong")]).await;
    assert!(code == 1 && output.contains("/api/status answers 401"), "{output}");
}
