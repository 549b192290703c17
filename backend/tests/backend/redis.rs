//! Redis behind TLS with a certificate authority of one's own, and behind a user who may do no more than docs/redis.md says.

use std::fs;

use sluicegate_tests::RedisServer;
use sluicegate_tests::gateway::root;

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
