//! The HTTP server: who may ask, and what is answered to what is wrong.

use serde_json::json;

use crate::stage::{JOBS, Stage, TOKEN};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_without_a_token() {
    let backend = Stage::sqlite().await;
    let backend = backend.start("b1");
    for (method, path) in [
        ("GET", "/api/status"),
        ("POST", "/api/machines/M-001/commands"),
        ("GET", "/api/commands/x"),
        ("POST", "/api/machines/M-001/token"),
        ("PUT", "/api/machines/M-001/token"),
        ("DELETE", "/api/machines/M-001/token"),
    ] {
        for token in [None, Some(""), Some("wrong"), Some(&TOKEN[1..])] {
            let (status, answer) = backend.ask(method, path, token, "{}").await;
            assert_eq!(status, 401, "{method} {path} {token:?}: {answer}");
        }
    }
    assert_eq!(backend.ask("GET", "/healthz", None, "").await.0, 200);
    assert_eq!(backend.ask("GET", "/api/openapi.json", None, "").await.1["openapi"], "3.1.0");
    assert_eq!(backend.ask("GET", "/api/status", Some(TOKEN), "").await.1["committed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_answered_with_what_is_allowed() {
    let mut stage = Stage::sqlite().await;
    stage.machine("M-001", 0, 0).await;
    let backend = stage.start("b1");
    let path = "/api/machines/M-001/commands";
    for (path, body, status, part) in [
        (path, "{", 400, "EOF"),
        (path, "{}", 422, "missing field `command`"),
        (path, r#"{"command":"x","paylod":1}"#, 422, "unknown field `paylod`"),
        (path, r#"{"command":""}"#, 422, "`command` must be 1 to 128"),
        (path, r#"{"command":"x","expires_in":-1}"#, 422, "`expires_in` must be a number"),
        (path, r#"{"command":"x","expires_in":0}"#, 422, "`expires_in` must be more than nothing"),
        (path, r#"{"command":"x","payload":"\ud800"}"#, 422, "`payload` is not JSON"),
        (path, r#"["x",{},5]"#, 422, "the body must be an object"),
        ("/api/machines/%FF/commands", r#"{"command":"x"}"#, 400, "UTF-8"),
        ("/api/machines/%FF/token", "", 400, "UTF-8"),
        ("/api/machines/M-404/commands", r#"{"command":"x"}"#, 404, "no machine has the serial number `M-404`"),
        ("/api/machines/a%2Fb/token", "{}", 422, "`serial_no` holds /"),
        ("/api/machines/%23/token", "{}", 422, "`serial_no` holds #"),
        ("/api/machines", "{}", 404, "there is no such path"),
        ("/healthz", "{}", 405, "this path has other methods"),
    ] {
        let (found, answer) = backend.ask("POST", path, Some(TOKEN), body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(found == status && error.contains(part), "{path} {body}: {found} {answer}");
    }
    for token in [None, Some(TOKEN)] {
        assert_eq!(backend.ask("GET", path, token, "").await.0, 405);
    }
    assert_eq!(backend.ask("GET", "/api/commands/x", Some(TOKEN), "").await.0, 404);
    for (method, path) in
        [("GET", "/api/commands/%FF"), ("PUT", "/api/machines/%FF/token"), ("DELETE", "/api/machines/%FF/token")]
    {
        let (status, answer) = backend.ask(method, path, Some(TOKEN), "").await;
        assert!(status == 400 && answer["error"].as_str().is_some_and(|error| error.contains("UTF-8")), "{answer}");
    }
    assert_eq!(stage.count("machine_commands").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_work_stands_in_the_status() {
    let mut stage = Stage::sqlite().await;
    let backend = stage.start("b1");
    backend.logged("the listener takes jobs").await;
    stage.redis.kill();
    sluicegate_tests::eventually("the status says so", async || {
        let (_, answer) = backend.ask("GET", "/api/status", Some(TOKEN), "").await;
        // Which part notices first is chance.
        answer["troubles"].as_object().filter(|troubles| !troubles.is_empty()).map(drop)
    })
    .await;
    stage.redis.restart().await;
    sluicegate_tests::eventually("all is well", async || {
        let (_, answer) = backend.ask("GET", "/api/status", Some(TOKEN), "").await;
        (answer["troubles"] == json!({})).then_some(())
    })
    .await;
}

#[tokio::test]
async fn health_says_whether_the_process_lives_whatever_is_away() {
    let mut stage = Stage::sqlite().await;
    stage.redis.kill();
    let mut backend = stage.start("b1");
    backend.ask("GET", "/healthz", None, "").await;
    let settings = stage.path("b1.toml");
    let health = || {
        let program = env!("CARGO_BIN_EXE_sluicegate-backend");
        std::process::Command::new(program).args(["health", "--config"]).arg(&settings).output().expect("it runs")
    };
    let good = health();
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    backend.kill();
    let bad = health();
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(bad.status.code() == Some(4) && said.contains("/healthz: "), "{said}");
}

/// Both lists are taken from by the same parts: that one works says nothing of the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_list_does_not_do_is_told_although_the_other_works() {
    let mut stage = Stage::sqlite().await;
    stage.machine("M-001", 0, 0).await;
    stage.redis.command(&format!("SET {JOBS} x")).await;
    let backend = stage.start("b1");
    let trouble = format!("taking jobs from Redis ({JOBS})");
    backend.logged(&trouble).await;
    // The other list's part works, again and again.
    for _ in 0..3 {
        let id = stage.ask(&["command", "send", "M-001", "reboot"]).1["data"]["message_id"].clone();
        let told = json!({ "message_id": id, "target": "M-001", "status": "sent", "at": "2026-04-14T09:00:01+08:00" });
        stage.redis.push("mqtt_command_results", &[told.to_string()]).await;
        let sent =
            format!("SELECT state FROM machine_commands WHERE message_id = {}", id.to_string().replace('"', "'"));
        stage.has(&sent, &["sent"]).await;
        let (_, status) = backend.ask("GET", "/api/status", Some(TOKEN), "").await;
        assert!(status["troubles"][&trouble].as_str().is_some_and(|why| why.contains("WRONGTYPE")), "{status}");
        assert_eq!(backend.ask("GET", "/readyz", None, "").await.0, 503);
    }
    assert!(!backend.log().contains("it works again"), "{}", backend.log());
}
