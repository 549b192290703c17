//! Commands: noted, pushed, followed to their end.

use serde_json::{Value, json};

use crate::on_both;
use crate::stage::{Stage, TOKEN, job};

on_both!(
    a_command_is_pushed_and_followed_to_its_acknowledgement,
    another_machine_moves_no_command,
    what_was_sent_before_an_outage_is_not_expired_after_it,
    what_comes_late_or_in_another_order_changes_nothing,
    the_reason_of_a_state_goes_with_it,
    a_command_that_was_given_while_redis_is_away_is_pushed_when_it_is_back,
    a_command_for_nobody_is_refused,
);

const OUTGOING: &str = "mqtt_outgoing_commands";
const RESULTS: &str = "mqtt_command_results";

fn given(stage: &Stage) -> String {
    let (code, answer) =
        stage.ask(&["command", "send", "M-001", "dispense", "--payload", r#"{"slot_no":5,"amount":12.30}"#]);
    assert_eq!(code, 0, "{answer}");
    answer["data"]["message_id"].as_str().expect("an id").to_owned()
}

fn result(id: &str, status: &str) -> String {
    json!({ "message_id": id, "target": "M-001", "status": status, "reason": null, "at": "2026-04-14T09:00:01+08:00" })
        .to_string()
}

fn state(id: &str) -> String {
    format!("SELECT state FROM machine_commands WHERE message_id = '{id}'")
}

async fn a_command_is_pushed_and_followed_to_its_acknowledgement(mut stage: Stage) {
    stage.machine("M-001", 0, 0).await;
    let id = given(&stage);
    let pushed = stage.redis.list(OUTGOING).await;
    assert_eq!(pushed.len(), 1);
    assert!(pushed[0].contains(r#""payload":{"slot_no":5,"amount":12.30}"#), "byte for byte: {}", pushed[0]);
    let entry: Value = serde_json::from_str(&pushed[0]).expect("JSON");
    assert_eq!(
        (&entry["target"], &entry["command"], &entry["message_id"]),
        (&"M-001".into(), &"dispense".into(), &id.as_str().into())
    );
    let backend = stage.start("b1");
    stage.redis.push(RESULTS, &[result(&id, "waiting"), result(&id, "sent")]).await;
    stage.has(&state(&id), &["sent"]).await;
    let ack = format!(r#"{{"message_id":"{id}","status":"ok"}}"#);
    stage.push(&[job("command_ack", "M-001", 2, &ack)]).await;
    stage.has(&state(&id), &["acknowledged"]).await;
    let (status, shown) = backend.ask("GET", &format!("/api/commands/{id}"), Some(TOKEN), "").await;
    assert_eq!(status, 200);
    assert_eq!((&shown["state"], &shown["sent_at"]), (&"acknowledged".into(), &"2026-04-14T01:00:01Z".into()));
    assert_eq!(shown["payload"], json!({ "slot_no": 5, "amount": 12.30 }));
}

async fn another_machine_moves_no_command(mut stage: Stage) {
    stage.machine("M-001", 0, 0).await;
    stage.machine("M-002", 0, 0).await;
    let _backend = stage.start("b1");
    let (first, second) = (given(&stage), given(&stage));
    let ack = |machine: &str, id: &str, status: &str| {
        job("command_ack", machine, 2, &format!(r#"{{"message_id":"{id}","status":"{status}"}}"#))
    };
    stage.push(&[ack("M-002", &first, "ok"), ack("M-002", &second, "rejected"), ack("M-001", &second, "ok")]).await;
    stage.has(&state(&second), &["acknowledged"]).await;
    stage.all_taken().await;
    assert_eq!(stage.rows(&state(&first)).await, ["queued"]);
}

async fn what_was_sent_before_an_outage_is_not_expired_after_it(mut stage: Stage) {
    stage.machine("M-001", 0, 0).await;
    let (sent, told, silent) = (given(&stage), given(&stage), given(&stage));
    // Nobody was there for longer than they may live; the gateway's word waits.
    stage.execute("UPDATE machine_commands SET expires_at = '2026-04-14 01:00:00.000'").await;
    stage.redis.push(RESULTS, &[result(&sent, "sent"), result(&told, "expired")]).await;
    let backend = stage.start("b1");
    stage.has(&state(&silent), &["expired"]).await;
    let settled = format!("SELECT CAST(settled_at AS CHAR) FROM machine_commands WHERE message_id = '{sent}'");
    assert_eq!(stage.rows(&state(&sent)).await, ["sent"]);
    assert_eq!(stage.rows(&settled).await, ["null"]);
    // The gateway was away, too: what it tells later holds against a guess, and not against its own word.
    stage.redis.push(RESULTS, &[result(&silent, "sent"), result(&told, "sent")]).await;
    stage.has(&state(&silent), &["sent"]).await;
    assert_eq!(stage.rows(&state(&told)).await, ["expired"]);
    let (_, shown) = backend.ask("GET", &format!("/api/commands/{silent}"), Some(TOKEN), "").await;
    assert_eq!((&shown["reason"], &shown["settled_at"]), (&Value::Null, &Value::Null));
}

async fn what_comes_late_or_in_another_order_changes_nothing(mut stage: Stage) {
    stage.machine("M-001", 0, 0).await;
    let _backend = stage.start("b1");
    let (first, second, third) = (given(&stage), given(&stage), given(&stage));
    stage.push(&[job("command_ack", "M-001", 0, &format!(r#"{{"message_id":"{first}"}}"#))]).await;
    stage.has(&state(&first), &["acknowledged"]).await;
    let told = json!({ "message_id": second, "target": "M-001", "status": "rejected", "reason": "no such command", "at": "2026-04-14T09:00:01+08:00" });
    let results = [result(&first, "sent"), told.to_string(), result(&second, "sent"), result(&third, "no-subscriber")];
    stage.redis.push(RESULTS, &results).await;
    stage.has(&state(&third), &["expired"]).await;
    assert_eq!(stage.rows(&state(&first)).await, ["acknowledged"]);
    assert_eq!(stage.rows(&state(&second)).await, ["rejected"]);
    assert_eq!(
        stage.rows(&format!("SELECT reason FROM machine_commands WHERE message_id = '{second}'")).await,
        ["no such command"]
    );
}

/// Of a rejection that the machine then did all the same.
async fn the_reason_of_a_state_goes_with_it(mut stage: Stage) {
    stage.machine("M-001", 0, 0).await;
    let _backend = stage.start("b1");
    let id = given(&stage);
    let told = json!({ "message_id": id, "target": "M-001", "status": "rejected", "reason": "no such command", "at": "2026-04-14T09:00:01+08:00" });
    stage.redis.push(RESULTS, &[told.to_string()]).await;
    let reason = format!("SELECT COALESCE(reason, state) FROM machine_commands WHERE message_id = '{id}'");
    stage.has(&reason, &["no such command"]).await;
    stage.push(&[job("command_ack", "M-001", 0, &format!(r#"{{"message_id":"{id}"}}"#))]).await;
    stage.has(&reason, &["acknowledged"]).await;
}

async fn a_command_that_was_given_while_redis_is_away_is_pushed_when_it_is_back(mut stage: Stage) {
    stage.machine("M-001", 0, 0).await;
    let backend = stage.start("b1");
    backend.logged("the listener takes jobs").await;
    stage.redis.kill();
    let mut ids = Vec::new();
    for payload in ["", r#""payload":null,"#, r#""payload":[1.10],"#] {
        let body = format!(r#"{{"command":"reboot",{payload}"expires_in":3600}}"#);
        let (status, answer) = backend.ask("POST", "/api/machines/M-001/commands", Some(TOKEN), &body).await;
        assert_eq!((status, &answer["state"]), (202, &"queued".into()));
        ids.push(answer["message_id"].as_str().expect("an id").to_owned());
    }
    stage.redis.restart().await;
    let pushed = stage.redis.list_of(OUTGOING, 3).await;
    let order: Vec<String> = pushed
        .iter()
        .map(|entry| {
            serde_json::from_str::<Value>(entry).expect("JSON")["message_id"].as_str().expect("an id").to_owned()
        })
        .collect();
    assert_eq!(order, ids, "in the order in which they were given");
    for (entry, payload) in pushed.iter().zip(["{}", "null", "[1.10]"]) {
        assert!(entry.contains(&format!(r#""payload":{payload},"#)), "as it was given: {entry}");
    }
}

async fn a_command_for_nobody_is_refused(mut stage: Stage) {
    stage.machine("M-001", 0, 0).await;
    let refused = |arguments: &[&str]| {
        let done = stage.run(arguments);
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, text) = refused(&["command", "send", "M-404", "reboot"]);
    assert!(code == Some(3) && text.contains("no machine has the serial number `M-404`"), "{text}");
    let (code, text) = refused(&["command", "send", "M-001", "reboot", "--payload", "{"]);
    assert!(code == Some(2) && text.contains("`payload` is not JSON"), "{text}");
    let (code, text) = refused(&["command", "show", "nothing"]);
    assert!(code == Some(3) && text.contains("there is no command `nothing`"), "{text}");
    assert_eq!(stage.count("machine_commands").await, 0);
}
