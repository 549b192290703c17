//! Machines' tokens: what is shown, what is kept, what the broker reads.

use serde_json::json;
use sluicegate_backend::machines::token::{sha256, to_hex};

use crate::on_both;
use crate::stage::{Stage, TOKEN};

on_both!(
    a_token_is_shown_once_and_its_hash_is_in_both,
    a_doctor_finds_and_repairs_what_is_wrong,
    keys_are_converted_between_the_formats,
);

async fn key(stage: &Stage, serial_no: &str) -> Option<String> {
    stage.redis.ask(&format!("GET machine_auth:{serial_no}")).await.expect("a string or nothing")
}

async fn a_token_is_shown_once_and_its_hash_is_in_both(mut stage: Stage) {
    stage.database().await;
    let (code, answer) = stage.ask(&["token", "issue", "M-001"]);
    assert_eq!(code, 0, "{answer}");
    let first = answer["data"]["api_token"].as_str().expect("a token").to_owned();
    let hash = to_hex(&sha256(&first));
    assert_eq!(key(&stage, "M-001").await, Some(hash.clone()));
    let kept = "SELECT api_token_hash FROM machines WHERE serial_no = 'M-001'";
    assert_eq!(stage.rows(kept).await, [hash.as_str()]);
    assert_eq!(stage.ask(&["token", "issue", "M-001"]).0, 3, "it has one");
    // The same over HTTP.
    let backend = stage.start("b1");
    backend.logged("the listener takes jobs").await;
    let path = "/api/machines/M-001/token";
    assert_eq!(backend.ask("POST", path, Some(TOKEN), "").await.0, 409);
    let (status, answer) = backend.ask("PUT", path, Some(TOKEN), "").await;
    assert_eq!(status, 200);
    let second = answer["api_token"].as_str().expect("a token");
    assert_ne!(second, first);
    assert_eq!(key(&stage, "M-001").await, Some(to_hex(&sha256(second))));
    assert_eq!(backend.ask("DELETE", path, Some(TOKEN), "").await.0, 204);
    assert_eq!(key(&stage, "M-001").await, None);
    assert_eq!(stage.rows(kept).await, ["null"]);
    assert_eq!(backend.ask("DELETE", path, Some(TOKEN), "").await.0, 404);
    for wrong in ["a/b", "+", "#", "$SYS"] {
        assert_eq!(stage.ask(&["token", "issue", wrong]).0, 2, "{wrong}");
    }
    assert!(!backend.log().contains(second), "no secret is logged");
}

async fn a_doctor_finds_and_repairs_what_is_wrong(mut stage: Stage) {
    stage.database().await;
    for machine in ["good", "gone", "other", "format", "super"] {
        assert_eq!(stage.ask(&["token", "issue", machine]).0, 0);
    }
    assert_eq!(stage.ask(&["auth", "doctor"]).0, 0);
    let other = to_hex(&sha256("an older one"));
    for line in [
        "DEL machine_auth:gone".to_owned(),
        format!("SET machine_auth:other {other}"),
        "DEL machine_auth:format".to_owned(),
        format!("HSET machine_auth:format password_hash {other}"),
        "DEL machine_auth:super".to_owned(),
        format!("HSET machine_auth:super password_hash {other} is_superuser 1"),
        format!("SET machine_auth:nobody {other}"),
    ] {
        stage.redis.command(&line).await;
    }
    let (code, answer) = stage.ask(&["auth", "doctor"]);
    assert_eq!(code, 1);
    let found = [
        ("format", "other-format"),
        ("gone", "missing"),
        ("nobody", "stale"),
        ("other", "other-hash"),
        ("super", "superuser"),
    ];
    let found: Vec<_> =
        found.iter().map(|(machine, problem)| json!({ "serial_no": machine, "problem": problem })).collect();
    assert_eq!(answer["data"]["findings"], json!(found));
    assert_eq!(stage.ask(&["auth", "doctor", "--repair"]).0, 0);
    assert_eq!(stage.ask(&["auth", "doctor"]).1["data"]["findings"], json!([]));
    assert_eq!(key(&stage, "nobody").await, None);
}

async fn keys_are_converted_between_the_formats(mut stage: Stage) {
    stage.database().await;
    let (_, answer) = stage.ask(&["token", "issue", "M-001"]);
    let hash = to_hex(&sha256(answer["data"]["api_token"].as_str().expect("a token")));
    // Two that the application wrote, one of them as no broker reads it.
    stage.redis.command(&format!("SET machine_auth:M-002 {}", hash.to_uppercase())).await;
    stage.redis.command("SET machine_auth:M-003 secret").await;
    let mut stage = stage.with("[machines]\nauth_format = \"hash\"");
    assert_eq!(stage.ask(&["auth", "doctor"]).1["data"]["findings"][0]["problem"], "other-format");
    let (code, answer) = stage.ask(&["auth", "convert"]);
    assert_eq!((code, &answer["data"]), (1, &json!({ "converted": 2, "unchanged": 0, "left": 1 })));
    // What EMQX's own authenticator asks for.
    for machine in ["M-001", "M-002"] {
        let fields: Vec<Option<String>> =
            stage.redis.ask(&format!("HMGET machine_auth:{machine} password_hash is_superuser")).await.expect("a hash");
        assert_eq!(fields, [Some(hash.clone()), Some("0".to_owned())]);
    }
    assert_eq!(stage.ask(&["auth", "convert"]).1["data"]["unchanged"], 2);
    // And one that is issued now has the format at once.
    assert_eq!(stage.ask(&["token", "rotate", "M-001"]).0, 0);
    let kind: String = stage.redis.ask("TYPE machine_auth:M-001").await.expect("a type");
    assert_eq!(kind, "hash");
    assert_eq!(stage.rows("SELECT serial_no FROM machines").await, ["M-001"]);
}
