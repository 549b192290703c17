//! What people are told: signed, again until it was taken, once in a window.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use sluicegate_backend::alerts::webhook::signature;
use sluicegate_tests::eventually;
use sluicegate_tests::servers::free_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::on_both;
use crate::stage::{Stage, job};

on_both!(
    an_alert_is_signed_and_sent_until_it_is_taken,
    what_a_machine_wrote_forges_no_line_of_the_log,
    of_one_machine_and_code_one_is_told_in_a_window,
    a_machine_that_falls_silent_is_offline_and_recovers,
    one_that_falls_silent_again_within_the_window_is_told_after_it,
);

const SECRET: &str = "a shared secret";

/// A webhook's other side: what came, and how many it refuses first.
struct Hook {
    port: u16,
    came: Arc<Mutex<Vec<(String, String)>>>,
    _serving: JoinSet<()>,
}

impl Hook {
    async fn start(mut refuse: usize) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let came: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let mut serving = JoinSet::new();
        let noted = came.clone();
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut text, mut buffer) = (String::new(), [0; 4_096]);
                loop {
                    let read = stream.read(&mut buffer).await.expect("a request");
                    text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let header = |name: &str| {
                        let line = head.lines().find(|line| line.to_lowercase().starts_with(name)).expect("the header");
                        line.split_once(": ").expect("a value").1.to_owned()
                    };
                    if body.len() < header("content-length").parse().expect("a length") {
                        continue;
                    }
                    let answer = if refuse > 0 { "503 Service Unavailable" } else { "204 No Content" };
                    if refuse == 0 {
                        noted.lock().expect("unpoisoned").push((header("x-sluicegate-signature"), body.to_owned()));
                    }
                    refuse = refuse.saturating_sub(1);
                    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.expect("answered");
                    break;
                }
            }
        });
        Self { port, came, _serving: serving }
    }

    fn settings(&self, more: &str) -> String {
        format!("[alerts]\nwebhook = \"http://127.0.0.1:{}/hook\"\nsecret = \"{SECRET}\"\n{more}", self.port)
    }

    fn came(&self) -> Vec<(String, Value)> {
        let came = self.came.lock().expect("unpoisoned");
        came.iter().map(|(signature, body)| (signature.clone(), serde_json::from_str(body).expect("JSON"))).collect()
    }

    async fn told(&self, count: usize) -> Vec<(String, Value)> {
        eventually(&format!("{count} alerts came"), async || Some(self.came()).filter(|came| came.len() >= count)).await
    }
}

async fn an_alert_is_signed_and_sent_until_it_is_taken(stage: Stage) {
    let hook = Hook::start(2).await;
    let mut stage = stage.with(&hook.settings("timeout = \"1s\""));
    let mut backend = stage.start("b1");
    stage.push(&[job("error", "M-001", 0, r#"{"error_code":"E07","message":"jam","level":"critical"}"#)]).await;
    backend.logged("the webhook did not take an alert").await;
    // It is a row: the process that took the job need not live.
    backend.kill();
    let _second = stage.start("b2");
    let (found, alert) = hook.told(1).await.remove(0);
    let body = hook.came.lock().expect("unpoisoned")[0].1.clone();
    let at = found.strip_prefix("t=").and_then(|rest| rest.split_once(',')).expect("a time").0;
    let at = jiff::Timestamp::from_second(at.parse().expect("seconds")).expect("a time");
    assert_eq!(found, signature(SECRET.as_bytes(), at, &body));
    let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        ["serial_no", "kind", "code", "level", "message"].map(text),
        ["M-001", "error", "E07", "critical", "jam"]
    );
    assert_eq!(alert["details"]["error_code"], "E07");
    stage.has("SELECT state FROM machine_alerts", &["told"]).await;
}

async fn what_a_machine_wrote_forges_no_line_of_the_log(stage: Stage) {
    let backend = stage.start("b1");
    let message = format!("x\\nforged INFO token issued \\u001b[2J{}", "y".repeat(5_000));
    let payload = format!(r#"{{"error_code":"E1\nforged","message":"{message}"}}"#);
    stage.push(&[job("error", "M-001", 0, &payload)]).await;
    backend.logged("WARN alert ").await;
    let log = backend.log();
    let line = log.lines().find(|line| line.contains("WARN alert ")).expect("it is told");
    assert!(line.contains("forged INFO token issued") && line.len() < 1_500, "{line}");
    assert!(!log.contains("\nforged") && !log.contains('\u{1b}'), "{log}");
}

async fn of_one_machine_and_code_one_is_told_in_a_window(stage: Stage) {
    let hook = Hook::start(0).await;
    let mut stage = stage.with(&hook.settings("window = \"1h\""));
    let _backend = stage.start("b1");
    let error = |machine: &str, code: &str| job("error", machine, 0, &format!(r#"{{"error_code":"{code}"}}"#));
    stage.push(&[error("M-001", "E1"), error("M-001", "E1"), error("M-001", "E2"), error("M-002", "E1")]).await;
    hook.told(3).await;
    stage.push(&[error("M-001", "E1"), error("M-001", "E3")]).await;
    let came = hook.told(4).await;
    let mut codes: Vec<String> = came
        .iter()
        .map(|(_, alert)| {
            format!("{} {}", alert["serial_no"].as_str().expect("a text"), alert["code"].as_str().expect("a text"))
        })
        .collect();
    codes.sort();
    assert_eq!(codes, ["M-001 E1", "M-001 E2", "M-001 E3", "M-002 E1"]);
    let times = "SELECT CAST(occurrences AS CHAR) FROM machine_alerts WHERE serial_no = 'M-001' AND code = 'E1'";
    assert_eq!(stage.rows(times).await, ["3"], "the others are counted");
    // The window begins when people were told, however long the webhook was away before.
    stage.execute("UPDATE machine_alerts SET raised_at = '2026-04-14 01:00:00.000'").await;
    stage.push(&[error("M-001", "E1"), error("M-003", "E1")]).await;
    hook.told(5).await;
    stage.has(times, &["4"]).await;
    assert_eq!(hook.came().len(), 5);
    // What was counted in one is told with the next.
    stage.execute("UPDATE machine_alerts SET told_at = '2026-04-14 01:00:00.000'").await;
    stage.push(&[error("M-001", "E1")]).await;
    assert_eq!(hook.told(6).await[5].1["occurrences"], 5);
}

async fn a_machine_that_falls_silent_is_offline_and_recovers(stage: Stage) {
    let hook = Hook::start(0).await;
    let mut stage = stage.with(&hook.settings("window = \"0s\"\noffline_after = \"1h\"\noffline_every = \"100ms\""));
    let _backend = stage.start("b1");
    // The contract's day is long over; that of the other is now.
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let beat = |machine: &str| {
        format!(r#"{{"type":"heartbeat","serial_no":"{machine}","payload":{{}},"received_at":"{now}"}}"#)
    };
    stage.push(&[job("heartbeat", "M-001", 0, "{}"), beat("M-002")]).await;
    let kinds = |came: &[(String, Value)]| -> Vec<String> {
        came.iter()
            .map(|(_, alert)| {
                format!("{} {}", alert["serial_no"].as_str().expect("a text"), alert["kind"].as_str().expect("a text"))
            })
            .collect()
    };
    assert_eq!(kinds(&hook.told(1).await), ["M-001 offline"]);
    assert_eq!(hook.came()[0].1["details"]["last_heard_at"], "2026-04-14T01:00:00Z");
    stage.push(&[beat("M-001")]).await;
    assert_eq!(kinds(&hook.told(2).await), ["M-001 offline", "M-001 recovered"]);
    assert_eq!(stage.rows("SELECT serial_no FROM machines WHERE offline_at IS NOT NULL").await, [] as [&str; 0]);
}

/// The last word that people have is what is so, although one alert of a kind goes out in a window.
async fn one_that_falls_silent_again_within_the_window_is_told_after_it(stage: Stage) {
    let hook = Hook::start(0).await;
    let mut stage = stage.with(&hook.settings("window = \"15m\"\noffline_after = \"1h\"\noffline_every = \"100ms\""));
    let _backend = stage.start("b1");
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let beat = format!(r#"{{"type":"heartbeat","serial_no":"M-001","payload":{{}},"received_at":"{now}"}}"#);
    stage.push(&[job("heartbeat", "M-001", 0, "{}")]).await;
    hook.told(1).await;
    stage.push(&[beat]).await;
    hook.told(2).await;
    // It is silent again; a second machine shows that there was a look meanwhile.
    let silent = "UPDATE machines SET last_heard_at = '2026-04-14 02:00:00.000'";
    stage.execute(silent).await;
    stage.push(&[job("heartbeat", "M-002", 0, "{}")]).await;
    hook.told(3).await;
    let of = |kind: &str| {
        format!("SELECT CAST(occurrences AS CHAR) FROM machine_alerts WHERE serial_no = 'M-001' AND kind = '{kind}'")
    };
    assert_eq!(stage.rows(&of("offline")).await, ["1"], "looks are not counted");
    assert_eq!(hook.came().len(), 3, "one goes out in a window");
    // The window is over.
    stage
        .execute("UPDATE machine_alerts SET raised_at = '2026-04-14 02:00:00.000', told_at = '2026-04-14 02:00:00.000'")
        .await;
    let came = hook.told(4).await;
    assert_eq!([&came[3].1["serial_no"], &came[3].1["kind"]], ["M-001", "offline"]);
}
