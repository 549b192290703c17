//! Redis behind TLS with a certificate authority of one's own, and behind a user who may do no more than docs/redis.md says.

use std::fs;

use sluicegate_backend::redis::lease::Leases;
use sluicegate_backend::redis::lists::{Taken, Taker};
use sluicegate_core::lease::Answer;
use sluicegate_tests::gateway::root;
use sluicegate_tests::{RedisServer, eventually};

use crate::stage::{LETTERS, Stage, TOKEN, job, sale};

async fn stage(wants_a_certificate: bool, more: impl FnOnce(&RedisServer) -> String) -> Stage {
    let mut stage = Stage::sqlite().await;
    stage.redis = RedisServer::start_with_tls(wants_a_certificate).await;
    let more = more(&stage.redis);
    stage.with(&more)
}

/// The user that docs/redis.md makes.
fn documented() -> String {
    let text = fs::read_to_string(root().join("docs/redis.md")).expect("the page");
    let line = text.lines().map(str::trim).find(|line| line.starts_with("ACL SETUSER backend "));
    line.expect("docs/redis.md makes a user").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_goes_over_tls_as_a_user_who_may_do_little() {
    let mut stage = stage(true, |redis| {
        let file = |name: &str| redis.path(name).display().to_string();
        format!(
            "[redis]\nurl = \"rediss://backend:PASSWORD@localhost:{}\"\nca_file = \"{}\"\nclient_cert_file = \"{}\"\nclient_key_file = \"{}\"",
            redis.tls_port(),
            file("ca.pem"),
            file("client.pem"),
            file("client.key"),
        )
    })
    .await;
    stage.redis.command(&documented()).await;
    stage.machine("M-001", 1, 10).await;
    assert_eq!(stage.ask(&["check", "--connect"]).0, 0);
    let backend = stage.start("b1");
    stage.push(&[job("heartbeat", "M-001", 0, "{}"), sale("M-001", "T1", 1, "1"), "no job".to_owned()]).await;
    stage.has("SELECT transaction_id FROM transactions", &["T1"]).await;
    stage.all_taken().await;
    let clients: String = stage.redis.ask("CLIENT LIST").await.expect("a list");
    assert!(clients.lines().filter(|line| line.contains("user=backend")).count() > 2, "{clients}");
    // Commands, tokens, the doctor's look through all keys, dead letters.
    let command = r#"{"command":"reboot"}"#;
    assert_eq!(backend.ask("POST", "/api/machines/M-001/commands", Some(TOKEN), command).await.0, 202);
    assert_eq!(stage.redis.list_of("mqtt_outgoing_commands", 1).await.len(), 1);
    assert_eq!(stage.ask(&["token", "issue", "M-001"]).0, 0);
    assert_eq!(stage.ask(&["auth", "doctor"]).0, 0);
    stage.redis.list_of(LETTERS, 1).await;
    assert_eq!(stage.ask(&["dead-letters", "replay", "--all"]).0, 0);
    stage.redis.list_of(LETTERS, 1).await;
    let (_, status) = backend.ask("GET", "/api/status", Some(TOKEN), "").await;
    assert_eq!(status["troubles"], serde_json::json!({}));
    assert!(!backend.log().contains("NOPERM"), "{}", backend.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_said_with_what_to_do() {
    let file = |redis: &RedisServer, name: &str| redis.path(name).display().to_string();
    for (wants, url, more, code, part) in [
        (false, "rediss://localhost", "", 4, "redis.ca_file must hold the certificate that signed its own"),
        (true, "rediss://localhost", "ca", 4, "ertificate"),
        (false, "rediss://nobody:x@localhost", "ca", 4, "user or password in redis.url"),
        (false, "rediss://localhost", "missing", 1, "(redis.ca_file): No such file"),
    ] {
        let stage = stage(wants, |redis| {
            let more = match more {
                "ca" => format!("ca_file = \"{}\"", file(redis, "ca.pem")),
                "missing" => "ca_file = \"missing.pem\"".to_owned(),
                _ => String::new(),
            };
            format!("[redis]\nurl = \"{url}:{}\"\n{more}", redis.tls_port())
        })
        .await;
        let (found, answer) = stage.ask(&["check", "--connect"]);
        let said = answer["errors"][0]["message"].as_str().unwrap_or_default();
        assert!(found == code && said.contains(part), "{url} {more}: {found} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_done_next_is_never_what_was_just_done() {
    let mut stage = Stage::sqlite().await;
    let next = |stage: &Stage, arguments: &[&str]| {
        let (code, answer) = stage.ask(arguments);
        assert_ne!(code, 0, "{answer}");
        answer["errors"][0]["hint"].as_str().expect("a hint").to_owned()
    };
    assert_eq!(next(&stage, &["check", "--connect"]), "sluicegate-backend database migrate", "there are no tables");
    stage.database().await;
    assert_eq!(stage.ask(&["check", "--connect"]).0, 0);
    stage.redis.kill();
    assert_eq!(next(&stage, &["auth", "doctor"]), "sluicegate-backend check --connect");
    assert!(next(&stage, &["check", "--connect"]).starts_with("[redis] and queues.incoming"));
    stage.redis.restart().await;
    let stage = stage.with("[database]\nurl = \"sqlite:nowhere/backend.db\"");
    assert!(next(&stage, &["check", "--connect"]).starts_with("database.url in the settings"));
}

/// Whatever an older process of the name, or this one before a fault, has on its way to Redis moves nothing once the lease has another number.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_moved_under_an_older_number_of_the_lease() {
    let stage = Stage::sqlite().await;
    let (connector, keys) = stage.list();
    let mut first = Leases::new(connector.clone(), keys.clone(), "b1");
    let taker = |leases: &Leases| Taker::new(connector.clone(), &keys, "b1", leases.number().expect("it has one"));
    first.renew().await.expect("a lease");
    let mut older = taker(&first);
    stage.push(&["1".to_owned(), "2".to_owned(), "3".to_owned()]).await;
    assert_eq!(older.take(1).await, Ok(Taken::Jobs(vec!["1".into()])));
    assert_eq!(first.anew().await, Ok(Answer::Held));
    assert_eq!(older.take(1).await, Ok(Taken::NotHeld));
    let mut newer = taker(&first);
    assert_eq!(newer.take(1).await, Ok(Taken::Jobs(vec!["2".into()])));
    let mut second = Leases::new(connector.clone(), keys.clone(), "b1");
    second.renew().await.expect("a lease");
    assert_eq!(newer.take(1).await, Ok(Taken::NotHeld));
    assert_eq!(first.anew().await, Ok(Answer::Superseded), "it is not taken back");
    assert_eq!(taker(&second).take(9).await, Ok(Taken::Jobs(vec!["3".into()])));
    second.release().await.expect("an answer");
    assert_eq!(taker(&second).take(9).await, Ok(Taken::NotHeld));
}

/// Whoever waits for work takes none: what nobody hears of is not moved, and others are woken as well.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_work_leaves_the_list_as_it_is() {
    let stage = Stage::sqlite().await;
    let (connector, keys) = stage.list();
    let mut leases = Leases::new(connector.clone(), keys.clone(), "b1");
    leases.renew().await.expect("a lease");
    let mut takers = [(); 2].map(|()| Taker::new(connector.clone(), &keys, "b1", leases.number().expect("one")));
    let [one, other] = &mut takers;
    let pushing = async {
        eventually("both wait", async || {
            let clients: String = stage.redis.ask("CLIENT LIST").await.ok()?;
            (clients.matches("cmd=blmove").count() == 2).then_some(())
        })
        .await;
        stage.push(&["1".to_owned(), "2".to_owned()]).await;
    };
    let (one, other, ()) = tokio::join!(one.take(1), other.take(1), pushing);
    let mut taken = Vec::new();
    for came in [one, other] {
        match came.expect("an answer") {
            Taken::Jobs(jobs) => taken.extend(jobs),
            Taken::NotHeld => panic!("the lease is held"),
        }
    }
    taken.sort();
    assert_eq!(taken, ["1", "2"]);
}

/// A batch has so many bytes, not only so many jobs; and what stood in the list at a start comes in such batches, too.
#[tokio::test(flavor = "multi_thread")]
async fn large_jobs_come_in_small_batches() {
    let mut stage = Stage::sqlite().await.with("[listener]\nbatch = 1000");
    let large = |number: u32| job("heartbeat", "M-001", number, &format!(r#"{{"more":"{}"}}"#, "x".repeat(1 << 20)));
    let (connector, keys) = stage.list();
    let mut leases = Leases::new(connector.clone(), keys.clone(), "other");
    leases.renew().await.expect("a lease");
    stage.push(&(0..8).map(large).collect::<Vec<_>>()).await;
    let mut taker = Taker::new(connector.clone(), &keys, "other", leases.number().expect("one"));
    let Ok(Taken::Jobs(jobs)) = taker.take(1_000).await else { panic!("jobs were there") };
    assert_eq!(jobs.len(), 4, "each is a little larger than a fourth of what is enough");
    leases.release().await.expect("an answer");
    // What an older version has left.
    for part in 0..10 {
        stage
            .redis
            .push("{mqtt_incoming_jobs}:processing:b1", &(0..12).map(|n| large(12 * part + n)).collect::<Vec<_>>())
            .await;
        stage.push(&(0..12).map(|n| large(1_000 + 12 * part + n)).collect::<Vec<_>>()).await;
    }
    let backend = stage.start("b1");
    stage.all_taken().await;
    let peak = backend.memory_peak();
    println!("{peak} MiB at the most");
    assert!(peak < 150, "{peak} MiB, of 248 that stood there");
    stage.has("SELECT CAST(COUNT(last_heard_at) AS CHAR) FROM machines", &["1"]).await;
}

/// Jobs and dead letters leave a server that is over its limit: nothing else makes room there.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_over_its_limit_is_emptied() {
    let mut stage = Stage::sqlite().await.with("[listener]\nbatch = 10");
    stage.machine("M-001", 1, 100).await;
    let sales = |from: usize| -> Vec<String> {
        let sold = (from..from + 50).map(|number| sale("M-001", &format!("T{number:03}"), 1, "1"));
        sold.chain(["no job".to_owned()]).collect()
    };
    // One that died: what the database has of its batch is taken off at the next start.
    let mut first = stage.start("b1");
    stage.push(&sales(0)).await;
    stage.all_taken().await;
    first.kill();
    stage.push(&sales(50)).await;
    stage.redis.command("CONFIG SET maxmemory 1").await;
    assert!(stage.redis.ask::<u64>("RPUSH other x").await.is_err(), "it takes nothing");
    let backend = stage.start("b1");
    stage.all_taken().await;
    assert_eq!(stage.count("transactions").await, 100);
    assert_eq!(stage.redis.list_of(LETTERS, 2).await.len(), 2);
    // It goes on: what comes once there is room is taken, too.
    stage.redis.command("CONFIG SET maxmemory 0").await;
    stage.push(&[sale("M-001", "T999", 1, "1")]).await;
    stage.all_taken().await;
    assert_eq!(stage.count("transactions").await, 101);
    assert!(!backend.log().contains("OOM"), "{}", backend.log());
}
