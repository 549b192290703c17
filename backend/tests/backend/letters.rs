//! Dead letters: looked at, put back, dropped; none is lost on the way, and none comes twice.

use serde_json::{Value, json};

use crate::stage::{JOBS, LETTERS, Stage, job, sale};

/// Jobs that nobody can process: one of a machine that is not told of, one that is none.
async fn died(stage: &Stage) {
    let stranger = sale("M-404", "T1", 1, "1.50");
    stage.push(&[stranger, job("heartbeat", "M-405", 0, "{}"), "no job".to_owned()]).await;
    let mut backend = stage.start("b1");
    stage.redis.list_of(LETTERS, 3).await;
    stage.all_taken().await;
    assert!(backend.stop().await.success());
}

fn ids(answer: &Value) -> Vec<String> {
    let letters = answer["data"]["letters"].as_array().expect("letters");
    letters.iter().map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_put_back_once_its_cause_is_mended_and_its_job_is_a_row() {
    let mut stage = Stage::sqlite().await.with("[listener]\nunknown_machines = \"dead-letter\"");
    stage.database().await;
    died(&stage).await;
    let (code, answer) = stage.ask(&["dead-letters", "list"]);
    assert_eq!((code, answer["data"]["total"].as_u64(), ids(&answer).len()), (0, Some(3), 3), "{answer}");
    let (_, of_one) = stage.ask(&["dead-letters", "list", "--type", "transaction", "--reason", "M-404"]);
    let one = ids(&of_one);
    assert_eq!((one.len(), &of_one["data"]["letters"][0]["serial_no"]), (1, &json!("M-404")), "{of_one}");
    let (_, shown) = stage.ask(&["dead-letters", "show", &one[0]]);
    assert_eq!(shown["data"]["job"], json!(sale("M-404", "T1", 1, "1.50")));
    let (_, counted) = stage.ask(&["dead-letters", "list", "--by", "type"]);
    assert_eq!(counted["data"]["counts"].as_array().map(Vec::len), Some(3), "{counted}");
    // Nobody changes all of them by leaving something out.
    assert_eq!(stage.ask(&["dead-letters", "replay"]).0, 2);
    assert_eq!(stage.ask(&["dead-letters", "drop", "--all", "--id", &one[0]]).0, 2);
    assert_eq!(stage.ask(&["dead-letters", "show", "0000000000000000"]).0, 3);
    let (code, tried) = stage.ask(&["dead-letters", "replay", "--all", "--dry-run"]);
    assert_eq!((code, tried["data"]["matched"].as_u64()), (0, Some(3)));
    assert!(stage.redis.list(JOBS).await.is_empty() && stage.redis.list(LETTERS).await.len() == 3, "nothing was done");
    // The machine is told of now.
    stage.machine("M-404", 1, 10).await;
    let (code, done) = stage.ask(&["dead-letters", "replay", "--machine", "M-404"]);
    assert_eq!((code, &done["data"]), (0, &json!({ "matched": 1, "replayed": 1, "left": 0, "gone": 0 })));
    assert_eq!(stage.redis.list(JOBS).await, [sale("M-404", "T1", 1, "1.50")], "byte for byte");
    assert_eq!(stage.redis.list(LETTERS).await.len(), 2);
    let _backend = stage.start("b1");
    stage.has("SELECT transaction_id FROM transactions", &["T1"]).await;
    stage.all_taken().await;
    let (code, dropped) = stage.ask(&["dead-letters", "drop", "--all"]);
    assert_eq!((code, &dropped["data"]["dropped"]), (0, &json!(2)));
    assert!(stage.redis.list(LETTERS).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_stays_while_its_job_cannot_be_put_back() {
    let mut stage = Stage::sqlite().await.with("[listener]\nunknown_machines = \"dead-letter\"");
    stage.database().await;
    died(&stage).await;
    let before = stage.redis.list(LETTERS).await;
    // The list has another type: Redis refuses the push.
    stage.redis.command(&format!("SET {JOBS} x")).await;
    let (code, answer) = stage.ask(&["dead-letters", "replay", "--all"]);
    assert_eq!(code, 3, "{answer}");
    assert!(answer["errors"][0]["message"].as_str().is_some_and(|said| said.contains("WRONGTYPE")), "{answer}");
    assert_eq!(stage.redis.list(LETTERS).await, before, "none is lost");
    // Redis has no room.
    stage.redis.command(&format!("DEL {JOBS}")).await;
    stage.redis.command("CONFIG SET maxmemory 1").await;
    assert_eq!(stage.ask(&["dead-letters", "replay", "--all"]).0, 3);
    stage.redis.command("CONFIG SET maxmemory 0").await;
    assert_eq!(stage.redis.list(LETTERS).await, before, "none is lost");
    assert!(stage.redis.list(JOBS).await.is_empty());
    // A letter of a list that is not this program's, and one that is none, are left; the others are put back.
    let foreign = r#"{"job":"x","reason":"r","attempts":1,"list":"somebody_elses","instance":"i","dead_at":"2026-04-14T01:00:00Z"}"#;
    stage.redis.push(LETTERS, &[foreign.to_owned(), "no letter".to_owned()]).await;
    let (code, done) = stage.ask(&["dead-letters", "replay", "--all", "--rate", "1000"]);
    assert_eq!((code, &done["data"]), (1, &json!({ "matched": 5, "replayed": 3, "left": 2, "gone": 0 })), "{done}");
    assert_eq!(stage.redis.list(LETTERS).await, [foreign, "no letter"]);
    assert_eq!(stage.redis.list(JOBS).await.len(), 3);
    assert!(stage.redis.list("somebody_elses").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_replay_put_each_job_back_once() {
    let mut stage = Stage::sqlite().await;
    stage.database().await;
    let letter = |number: u32| {
        json!({
            "job": job("heartbeat", "M-001", number, "{}"), "reason": "r", "attempts": 1, "list": JOBS,
            "instance": "b1", "dead_at": "2026-04-14T01:00:00Z",
        })
        .to_string()
    };
    let letters: Vec<String> = (0..500).map(letter).collect();
    stage.redis.push(LETTERS, &letters).await;
    let replay = || stage.ask(&["dead-letters", "replay", "--all", "--rate", "100000"]);
    let (one, other) = std::thread::scope(|threads| {
        let (one, other) = (threads.spawn(replay), threads.spawn(replay));
        (one.join().expect("it ran"), other.join().expect("it ran"))
    });
    let replayed = |answer: &Value| answer["data"]["replayed"].as_u64().expect("a number");
    assert_eq!(replayed(&one.1) + replayed(&other.1), 500, "{one:?} {other:?}");
    let mut jobs = stage.redis.list(JOBS).await;
    assert_eq!(jobs.len(), 500);
    jobs.sort();
    jobs.dedup();
    assert_eq!(jobs.len(), 500);
    assert!(stage.redis.list(LETTERS).await.is_empty());
}
