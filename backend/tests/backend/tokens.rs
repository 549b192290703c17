//! Machines' tokens: what is shown, what is kept, what the broker reads.

use std::collections::BTreeSet;

use serde_json::json;
use sluicegate_backend::machines::token::{sha256, to_hex};

use sluicegate_backend::database::session::Statement;
use sluicegate_backend::machines::Machines;
use sluicegate_backend::machines::doctor::{Finding, Problem, Repair};
use sluicegate_backend::redis::auth::{Auth, End, Entry, Kept};
use sluicegate_backend::settings::AuthFormat;

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

/// A key whose name is not UTF-8.
const NO_TEXT: &str = r"EVAL return(redis.call('SET','machine_auth:\255\254','x')) 0";

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
    for wrong in ["a/b", "+", "#", "$SYS", "sluicegate", "sluicegate-commands"] {
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
    // It may be the wrong database: most who can log in could not any more.
    let (code, answer) = stage.ask(&["auth", "doctor", "--repair"]);
    assert!(code == 3 && answer.to_string().contains("would end 4 of 5 logins"), "{answer}");
    assert_eq!(key(&stage, "nobody").await.as_ref(), Some(&other));
    assert_eq!(stage.ask(&["auth", "doctor", "--repair", "--force"]).0, 0);
    assert_eq!(stage.ask(&["auth", "doctor"]).1["data"]["findings"], json!([]));
    assert_eq!(key(&stage, "nobody").await, None);
    // Half of them are no matter, and what is in upper case lets nobody in.
    for (stale, code) in [(4, 0), (5, 3)] {
        for machine in 0..stale {
            stage.redis.command(&format!("SET machine_auth:stale-{machine} {other}")).await;
        }
        let good = key(&stage, "good").await.expect("a hash");
        stage.redis.command(&format!("SET machine_auth:good {}", good.to_uppercase())).await;
        stage.redis.command("DEL machine_auth:format").await;
        let (found, answer) = stage.ask(&["auth", "doctor", "--repair"]);
        assert_eq!(found, code, "{answer}");
    }
    assert_eq!(stage.ask(&["auth", "doctor", "--repair", "--force"]).0, 0);
    // What is no login at all is left: it may be another program's.
    stage.redis.command("DEL machine_auth:good").await;
    stage.redis.command("EXPIRE machine_auth:gone 500").await;
    stage.redis.command("RPUSH machine_auth:list job").await;
    stage.redis.command(NO_TEXT).await;
    let (code, answer) = stage.ask(&["auth", "doctor", "--repair"]);
    let found = [("gone", "ends"), ("good", "missing"), ("list", "other-type"), (r"\xff\xfe", "no-text")];
    let found: Vec<_> =
        found.iter().map(|(machine, problem)| json!({ "serial_no": machine, "problem": problem })).collect();
    assert_eq!((code, &answer["data"]["findings"], &answer["data"]["no_repair"]), (1, &json!(found), &json!(2)));
    assert_eq!(stage.redis.ask::<i64>("TTL machine_auth:gone").await, Ok(-1));
    assert_eq!(stage.redis.ask::<i64>("LLEN machine_auth:list").await, Ok(1));
    let there = r"EVAL return(redis.call('EXISTS','machine_auth:\255\254')) 0";
    assert_eq!(stage.redis.ask::<i64>(there).await, Ok(1));
    let shown = stage.run(&["auth", "doctor"]).stdout;
    assert!(String::from_utf8_lossy(&shown).contains(r"machine_auth:\xff\xfe: the key's name is not UTF-8"));
}

async fn keys_are_converted_between_the_formats(mut stage: Stage) {
    stage.database().await;
    let (_, answer) = stage.ask(&["token", "issue", "M-001"]);
    let hash = to_hex(&sha256(answer["data"]["api_token"].as_str().expect("a token")));
    // Two that the application wrote, one of them as no broker reads it.
    stage.redis.command(&format!("SET machine_auth:M-002 {}", hash.to_uppercase())).await;
    stage.redis.command("EXPIRE machine_auth:M-002 500").await;
    stage.redis.command("SET machine_auth:M-003 secret").await;
    stage.redis.command(NO_TEXT).await;
    let mut stage = stage.with("[machines]\nauth_format = \"hash\"");
    assert_eq!(stage.ask(&["auth", "doctor"]).1["data"]["findings"][0]["problem"], "other-format");
    let (code, answer) = stage.ask(&["auth", "convert"]);
    assert_eq!((code, &answer["data"]), (1, &json!({ "converted": 2, "unchanged": 0, "left": 2 })));
    // What EMQX's own authenticator asks for.
    for machine in ["M-001", "M-002"] {
        let fields: Vec<Option<String>> =
            stage.redis.ask(&format!("HMGET machine_auth:{machine} password_hash is_superuser")).await.expect("a hash");
        assert_eq!(fields, [Some(hash.clone()), Some("0".to_owned())]);
    }
    let left =
        [stage.redis.ask::<i64>("TTL machine_auth:M-001").await, stage.redis.ask("TTL machine_auth:M-002").await];
    assert!(matches!(left, [Ok(-1), Ok(400..=500)]), "what was to end does: {left:?}");
    assert_eq!(stage.ask(&["auth", "convert"]).1["data"]["unchanged"], 2);
    // And one that is issued now has the format at once.
    assert_eq!(stage.ask(&["token", "rotate", "M-001"]).0, 0);
    let kind: String = stage.redis.ask("TYPE machine_auth:M-001").await.expect("a type");
    assert_eq!(kind, "hash");
    assert_eq!(stage.rows("SELECT serial_no FROM machines").await, ["M-001"]);
}

/// What the doctor reads of all machines is long over when it comes to one of them: what is revoked in between stays revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_revives_no_token_that_is_revoked_meanwhile() {
    let mut stage = Stage::mariadb().await;
    let database = stage.database().await;
    let (connector, _) = stage.list();
    let auth = || Auth::new(connector.clone(), "machine_auth:".to_owned(), AuthFormat::String);
    let machines = Machines::new(database.clone(), auth(), BTreeSet::from(["gateway".to_owned()]));
    machines.issue("M-001").await.expect("a token");
    // Somebody revokes it: Redis has it no more, and the commit is under way.
    let mut revoking = database.begin().await.expect("a transaction");
    let sql = "UPDATE machines SET api_token_hash = NULL WHERE serial_no = 'M-001'".to_owned();
    revoking.execute(&Statement { sql, values: Vec::new() }).await.expect("done");
    stage.redis.command("DEL machine_auth:M-001").await;
    let committing = async {
        // Not INNODB_TRX: who asks that again within 100 ms is told what it said before.
        let waits = "SELECT IF(VARIABLE_VALUE > 0, 'yes', 'no') FROM information_schema.GLOBAL_STATUS \
                     WHERE VARIABLE_NAME = 'INNODB_ROW_LOCK_CURRENT_WAITS'";
        stage.has(waits, &["yes"]).await;
        revoking.commit().await.expect("committed");
    };
    let (findings, ()) = tokio::join!(machines.doctor(AuthFormat::String, Some(Repair::Careful)), committing);
    assert_eq!(findings.expect("it looked"), [], "it was right when it came to it");
    assert_eq!(key(&stage, "M-001").await, None);
    // The gateway's own name, whoever gave it a token.
    stage.redis.command("SET machine_auth:gateway secret").await;
    let reserved = Finding { serial_no: "gateway".to_owned(), problem: Problem::Reserved };
    assert_eq!(machines.doctor(AuthFormat::String, Some(Repair::Careful)).await.expect("it looked"), [reserved]);
    assert_eq!(key(&stage, "gateway").await, None);
    assert_eq!(machines.doctor(AuthFormat::String, Some(Repair::Careful)).await.expect("it looked"), []);
    // Without a row nobody is waited for.
    stage.redis.command("SET machine_auth:M-404 secret").await;
    let stale = Finding { serial_no: "M-404".to_owned(), problem: Problem::Stale };
    assert_eq!(machines.doctor(AuthFormat::String, Some(Repair::Careful)).await.expect("it looked"), [stale]);
    assert_eq!(key(&stage, "M-404").await, None);
}

/// A conversion, or a repair, writes in the step in which it sees that the key is as it was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_changed_meanwhile_is_left_as_it_is() {
    let stage = Stage::sqlite().await;
    let (connector, _) = stage.list();
    let mut auth = Auth::new(connector, "machine_auth:".to_owned(), AuthFormat::Hash);
    let (first, second) = (to_hex(&sha256("first")), to_hex(&sha256("second")));
    stage.redis.command(&format!("SET machine_auth:M-001 {first}")).await;
    let read = auth.look("M-001").await.expect("an answer").entry;
    assert_eq!(read, Entry::String(first.clone()));
    let lasting = |entry: &Entry| Ok(Kept { entry: entry.clone(), ends: false });
    for (change, now) in [
        (format!("SET machine_auth:M-001 {second}"), Entry::String(second.clone())),
        ("DEL machine_auth:M-001".to_owned(), Entry::None),
        (format!("HSET machine_auth:M-001 password_hash {first}"), Entry::Hash(Some(first.clone()), false)),
    ] {
        stage.redis.command(&change).await;
        assert_eq!(
            auth.replace("M-001", &read, Some(&first), AuthFormat::Hash, End::Never).await,
            Ok(false),
            "{change}"
        );
        assert_eq!(auth.look("M-001").await, lasting(&now), "{change}");
        assert_eq!(auth.replace("M-001", &now, Some(&second), AuthFormat::Hash, End::Never).await, Ok(true));
        assert_eq!(auth.look("M-001").await, lasting(&Entry::Hash(Some(second.clone()), false)));
        stage.redis.command("DEL machine_auth:M-001").await;
    }
}

/// A table that was there before may have a collation to which `m-001` is `M-001`; to the broker it is another.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_only_the_database_takes_for_a_machines_is_refused() {
    let mut stage = Stage::mariadb().await;
    stage.machine("M-001", 0, 0).await;
    stage.execute("ALTER TABLE machines MODIFY serial_no varchar(64) COLLATE utf8mb4_unicode_ci NOT NULL").await;
    assert_eq!(stage.ask(&["token", "issue", "M-001"]).0, 0);
    let hash = key(&stage, "M-001").await.expect("a key");
    for asked in ["issue", "rotate", "revoke"] {
        let (code, answer) = stage.ask(&["token", asked, "m-001"]);
        assert!(code == 3 && answer.to_string().contains("`M-001`"), "{asked}: {answer}");
    }
    assert_eq!(key(&stage, "M-001").await, Some(hash.clone()));
    assert_eq!(key(&stage, "m-001").await, None);
    assert_eq!(stage.rows("SELECT api_token_hash FROM machines").await, [hash]);
}

/// Redis is first: where the commit fails after it, whoever asked must know that the old token is void, or the key is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_after_redis_was_written_is_told_as_such() {
    let mut stage = Stage::sqlite().await;
    stage.database().await;
    assert_eq!(stage.ask(&["token", "issue", "M-001"]).0, 0);
    let before = key(&stage, "M-001").await;
    // What is looked at only at the commit.
    stage.execute("CREATE TABLE parents (id INTEGER PRIMARY KEY)").await;
    let child = "CREATE TABLE children (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)";
    stage.execute(child).await;
    let trigger = "CREATE TRIGGER refusing AFTER UPDATE ON machines BEGIN INSERT INTO children VALUES (1); END";
    stage.execute(trigger).await;
    let (code, answer) = stage.ask(&["token", "rotate", "M-001"]);
    assert!(code != 0 && answer.to_string().contains("Redis has the change already"), "{answer}");
    assert_ne!(key(&stage, "M-001").await, before);
    stage.execute("DROP TRIGGER refusing").await;
    assert_eq!(stage.ask(&["token", "rotate", "M-001"]).0, 0);
    assert_eq!(stage.ask(&["auth", "doctor"]).0, 0);
}
