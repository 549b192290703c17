//! The settings are edited while jobs come: in force as a whole or not at all, and no job is lost or done twice.

use std::fs;

use sluicegate_tests::eventually;

use crate::on_both;
use crate::stage::{Backend, LETTERS, Stage, TOKEN, job, sale};

on_both!(an_edit_is_in_force_without_a_restart_and_loses_nothing, what_needs_a_restart_is_refused_as_a_whole);

fn edit(stage: &Stage, from: &str, to: &str) {
    let path = stage.path("b1.toml");
    let text = fs::read_to_string(&path).expect("settings");
    assert!(text.contains(from), "{text}");
    let new = path.with_extension("new");
    fs::write(&new, text.replace(from, to)).expect("written");
    fs::rename(new, path).expect("renamed");
}

async fn an_edit_is_in_force_without_a_restart_and_loses_nothing(stage: Stage) {
    let before = "batch = 20\nunknown_types = \"dead-letter\"\nalert_levels = []";
    let mut stage = stage.with(&format!("[listener]\n{before}"));
    stage.machine("M-001", 1, 100_000).await;
    let backend = stage.start("b1");
    stage.push(&[job("dance", "M-001", 0, "{}")]).await;
    assert_eq!(stage.redis.list_of(LETTERS, 1).await.len(), 1);
    let sales = |from: usize| -> Vec<String> {
        (from..from + 400).map(|id| sale("M-001", &format!("T{id:05}"), 1, "1")).collect()
    };
    // Edited again and again while jobs are under way.
    for round in 0..4 {
        stage.push(&sales(round * 400)).await;
        let (from, to) = if round % 2 == 0 { ("20", "50") } else { ("50", "20") };
        edit(&stage, &format!("batch = {from}"), &format!("batch = {to}"));
        backend.hang_up();
        let taken = format!("batch={to}");
        eventually("it goes on with the new settings", async || {
            let log = backend.log();
            let starts = log.lines().filter(|line| line.contains("the listener takes jobs"));
            // It began with 20.
            (starts.filter(|line| line.contains(&taken)).count() > round.div_ceil(2)).then_some(())
        })
        .await;
    }
    edit(&stage, "unknown_types = \"dead-letter\"", "unknown_types = \"create\"");
    backend.hang_up();
    eventually("a type that nobody knows is a row in the log now", async || {
        stage.push(&[job("dance", "M-001", 1, "{}")]).await;
        (stage.count("machine_logs").await > 0).then_some(())
    })
    .await;
    stage.all_taken().await;
    assert_eq!(stage.count("transactions").await, 1_600);
    assert_eq!(stage.rows("SELECT CAST(stock AS CHAR) FROM machine_slots").await, ["98400"]);
    let order = stage.rows("SELECT transaction_id FROM transactions ORDER BY id").await;
    assert!(order.is_sorted(), "one machine's jobs are rows in their order");
}

async fn refused(backend: &Backend) -> serde_json::Value {
    backend.ask("GET", "/api/status", Some(TOKEN), "").await.1["refused_settings"].clone()
}

async fn what_needs_a_restart_is_refused_as_a_whole(stage: Stage) {
    let mut stage =
        stage.with("[listener]\nunknown_types = \"dead-letter\"\n[queues]\nincoming = \"mqtt_incoming_jobs\"");
    stage.database().await;
    let backend = stage.start("b1");
    backend.logged("the listener takes jobs").await;
    assert!(refused(&backend).await.is_null());
    edit(&stage, "unknown_types = \"dead-letter\"", "unknown_types = \"create\"");
    edit(&stage, "incoming = \"mqtt_incoming_jobs\"", "incoming = \"others\"");
    backend.hang_up();
    backend.logged("[queues] needs a restart; nothing of the edit is in force").await;
    assert_eq!(refused(&backend).await["restart"], serde_json::json!(["[queues]"]));
    stage.push(&[job("dance", "M-001", 0, "{}")]).await;
    stage.redis.list_of(LETTERS, 1).await;
    // What is wrong is refused with its place; no signal is needed.
    edit(&stage, "incoming = \"others\"", "incomming = \"others\"");
    backend.logged("unknown field `incomming`").await;
    edit(&stage, "incomming = \"others\"", "incoming = \"mqtt_incoming_jobs\"");
    eventually("the edit is in force", async || refused(&backend).await.is_null().then_some(())).await;
    eventually("a type that nobody knows is a row in the log now", async || {
        stage.push(&[job("dance", "M-001", 1, "{}")]).await;
        (stage.count("machine_logs").await > 0).then_some(())
    })
    .await;
}
