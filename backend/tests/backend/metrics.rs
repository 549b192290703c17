//! What is told to whoever watches: metrics, and whether the program is ready.

use serde_json::json;
use sluicegate_tests::eventually;

use crate::on_both;
use crate::stage::{Backend, Stage, TOKEN, job, sale};

on_both!(what_was_done_is_counted_by_type, whether_the_servers_answer_is_seen_and_told);

/// The lines of `/metrics`, without what they mean.
async fn lines(backend: &Backend) -> Vec<String> {
    let (status, text) = backend.ask("GET", "/metrics", None, "").await;
    assert_eq!(status, 200, "{text}");
    text.as_str().expect("a text").lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// Waits for these lines.
async fn shows(backend: &Backend, wanted: &[&str]) {
    let mut last = Vec::new();
    eventually(&format!("/metrics has {wanted:?}"), async || {
        let found = lines(backend).await;
        let missing: Vec<_> = wanted.iter().filter(|line| !found.iter().any(|found| found == *line)).collect();
        if missing != last {
            println!("missing: {missing:?}");
            last.clone_from(&missing);
        }
        missing.is_empty().then_some(())
    })
    .await;
}

async fn what_was_done_is_counted_by_type(stage: Stage) {
    let hook = "[alerts]\nwebhook = \"http://127.0.0.1:1/\"\nsecret = \"s\"\n";
    let mut stage = stage.with(hook);
    stage.machine("M-001", 1, 10).await;
    let backend = stage.start("b1");
    stage
        .push(&[
            job("heartbeat", "M-001", 0, "{}"),
            job("heartbeat", "M-001", 1, "{}"),
            job("error", "M-001", 1, r#"{"error_code":"E1"}"#),
            job("dance", "M-001", 2, "{}"),
            sale("M-001", "T1", 1, "1.50"),
            "no job".to_owned(),
        ])
        .await;
    stage.all_taken().await;
    let body = r#"{"command":"reboot"}"#;
    assert_eq!(backend.ask("POST", "/api/machines/M-001/commands", Some(TOKEN), body).await.0, 202);
    shows(
        &backend,
        &[
            "sluicegate_backend_jobs_taken_total{type=\"heartbeat\"} 2",
            "sluicegate_backend_jobs_taken_total{type=\"unknown\"} 1",
            "sluicegate_backend_jobs_done_total{type=\"heartbeat\"} 2",
            "sluicegate_backend_jobs_done_total{type=\"error\"} 1",
            "sluicegate_backend_jobs_done_total{type=\"transaction\"} 1",
            "sluicegate_backend_jobs_dead_total{type=\"transaction\"} 0",
            "sluicegate_backend_jobs_dead_total{type=\"unknown\"} 1",
            "sluicegate_backend_jobs_dead_total{type=\"unreadable\"} 1",
            "sluicegate_backend_connection_up{connection=\"redis\"} 1",
            "sluicegate_backend_connection_up{connection=\"database\"} 1",
            "sluicegate_backend_queue_length{list=\"mqtt_incoming_jobs\"} 0",
            "sluicegate_backend_queue_length{list=\"mqtt_outgoing_commands\"} 1",
            "sluicegate_backend_queue_length{list=\"mqtt_job_dead_letters\"} 2",
            "sluicegate_backend_processing_jobs{list=\"mqtt_incoming_jobs\"} 0",
            "sluicegate_backend_commands{state=\"queued\"} 1",
            "sluicegate_backend_commands{state=\"acknowledged\"} 0",
        ],
    )
    .await;
    let found = lines(&backend).await;
    let sum = |name: &str| -> f64 {
        let line = found.iter().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {found:#?}"));
        line.rsplit_once(' ').expect("a value").1.parse().expect("a number")
    };
    assert_eq!(sum("sluicegate_backend_batch_jobs_sum"), 6.0);
    assert!(sum("sluicegate_backend_batch_seconds_sum") > 0.0);
    // Nobody listens there.
    eventually("an alert is tried again", async || {
        let retried = "sluicegate_backend_alerts_total{outcome=\"retried\"}";
        lines(&backend).await.iter().any(|line| line.starts_with(retried)).then_some(())
    })
    .await;
}

async fn whether_the_servers_answer_is_seen_and_told(mut stage: Stage) {
    let backend = stage.start("b1");
    let ready = async |wanted: u16| {
        eventually(&format!("/readyz answers {wanted}"), async || {
            let (status, answer) = backend.ask("GET", "/readyz", None, "").await;
            (status == wanted).then_some(answer)
        })
        .await
    };
    assert_eq!(ready(200).await, json!({ "ready": true, "reasons": [] }));
    stage.redis.kill();
    let answer = ready(503).await;
    assert_eq!(answer["ready"], false);
    shows(&backend, &["sluicegate_backend_connection_up{connection=\"redis\"} 0"]).await;
    assert_eq!(backend.ask("GET", "/healthz", None, "").await.0, 200, "it lives all the same");
    stage.redis.restart().await;
    ready(200).await;
    if let Some(mariadb) = stage.mariadb.as_mut() {
        mariadb.kill();
        let reasons = eventually("/readyz says that the database is away", async || {
            let (_, answer) = backend.ask("GET", "/readyz", None, "").await;
            let reasons = answer["reasons"].to_string();
            reasons.contains("the database does not answer").then_some(reasons)
        })
        .await;
        assert!(!reasons.contains("127.0.0.1"), "everybody may ask: {reasons}");
        mariadb.restart().await;
        ready(200).await;
    }
}
