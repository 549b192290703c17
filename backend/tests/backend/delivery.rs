//! Jobs become rows, each once.

use crate::on_both;
use crate::stage::{LETTERS, Stage, job, sale};

on_both!(
    a_heartbeat_reaches_its_machines_row,
    an_older_heartbeat_overwrites_nothing,
    many_heartbeats_are_one_statement,
    a_transaction_is_one_row_and_its_slot_has_less,
    a_slot_never_holds_less_than_nothing,
    an_amount_keeps_its_digits,
    an_error_is_a_row_of_the_log,
    a_machines_jobs_are_rows_in_their_order,
    what_the_database_refuses_is_a_dead_letter_and_holds_up_nobody,
    what_is_no_job_is_a_dead_letter_with_the_reason,
    what_nobody_knows_goes_where_the_settings_say,
    a_worker_of_the_application_takes_from_the_same_list,
    an_application_has_names_of_its_own,
);

async fn a_heartbeat_reaches_its_machines_row(mut stage: Stage) {
    let _backend = stage.start("b1");
    stage.push(&[job("heartbeat", "M-001", 0, r#"{"current_page":1,"temperature":25.5}"#)]).await;
    stage
        .has("SELECT CAST(last_heard_at AS CHAR) FROM machines WHERE serial_no = 'M-001'", &["2026-04-14 01:00:00.000"])
        .await;
    let sql = "SELECT CAST(current_page AS CHAR) FROM machines WHERE temperature = 25.5";
    assert_eq!(stage.rows(sql).await, ["1"]);
    stage.all_taken().await;
}

async fn an_older_heartbeat_overwrites_nothing(mut stage: Stage) {
    let _backend = stage.start("b1");
    let page = "SELECT CAST(current_page AS CHAR) FROM machines";
    stage.push(&[job("heartbeat", "M-001", 50, r#"{"current_page":50,"temperature":5.0}"#)]).await;
    stage.has(page, &["50"]).await;
    let beats = [
        job("heartbeat", "M-001", 49, r#"{"current_page":49}"#),
        job("heartbeat", "M-002", 1, r#"{"current_page":2}"#),
    ];
    stage.push(&beats).await;
    stage.has("SELECT CAST(current_page AS CHAR) FROM machines ORDER BY serial_no", &["50", "2"]).await;
    // In the same second the later one is the newer; and what it does not say stays.
    stage.push(&[job("heartbeat", "M-001", 50, r#"{"current_page":51}"#)]).await;
    stage.has("SELECT CAST(current_page AS CHAR) FROM machines WHERE temperature = 5", &["51"]).await;
}

async fn many_heartbeats_are_one_statement(mut stage: Stage) {
    stage.database().await;
    let beats: Vec<String> = (0..400)
        .map(|beat| job("heartbeat", &format!("M-{:03}", beat % 100), beat, &format!(r#"{{"current_page":{beat}}}"#)))
        .collect();
    stage.push(&beats).await;
    let mut stage = stage.with("[listener]\nworkers = 1\nbatch = 500");
    let _backend = stage.start("b1");
    stage.has("SELECT CAST(SUM(current_page) AS CHAR) FROM machines", &[&(300..400).sum::<u32>().to_string()]).await;
    stage.all_taken().await;
    if stage.is_mariadb() {
        let sql =
            "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'COM_UPDATE_MULTI'";
        assert_eq!(stage.rows(sql).await, ["1"], "one UPDATE … JOIN for all of them");
    }
}

async fn a_transaction_is_one_row_and_its_slot_has_less(mut stage: Stage) {
    stage.machine("M-001", 2, 10).await;
    let _backend = stage.start("b1");
    let first = sale("M-001", "T1", 1, "1.50");
    // Twice in a batch, and once more later: the machine sent it again, as another message.
    stage.push(&[first.clone(), first.clone(), sale("M-001", "T2", 1, "1.50")]).await;
    stage.has("SELECT transaction_id FROM transactions ORDER BY transaction_id", &["T1", "T2"]).await;
    stage.all_taken().await;
    let again = first.replace("09:00:00", "09:00:30");
    stage.push(&[again, sale("M-001", "T3", 2, "1"), sale("M-002", "T1", 1, "2")]).await;
    stage.has("SELECT CAST(COUNT(*) AS CHAR) FROM transactions", &["4"]).await;
    stage.all_taken().await;
    let stock = "SELECT CAST(stock AS CHAR) FROM machine_slots ORDER BY slot_no";
    assert_eq!(stage.rows(stock).await, ["8", "9"]);
    let quantity = r#"{"transaction_id":"T9","slot_no":2,"amount":1,"quantity":3,"status":"paid"}"#;
    stage.push(&[job("transaction", "M-001", 0, quantity)]).await;
    stage.has(stock, &["8", "6"]).await;
}

async fn a_slot_never_holds_less_than_nothing(mut stage: Stage) {
    stage.machine("M-001", 1, 2).await;
    let _backend = stage.start("b1");
    let sales: Vec<String> = (0..5).map(|id| sale("M-001", &format!("T{id}"), 1, "1")).collect();
    stage.push(&sales).await;
    stage.push(&[sale("M-001", "T9", 77, "1")]).await;
    stage.has("SELECT CAST(COUNT(*) AS CHAR) FROM transactions", &["6"]).await;
    stage.all_taken().await;
    assert_eq!(stage.rows("SELECT CAST(stock AS CHAR) FROM machine_slots").await, ["0"]);
    assert_eq!(
        stage.rows("SELECT code FROM machine_logs ORDER BY id").await,
        ["stock-short", "stock-short", "stock-short", "slot-unknown"]
    );
    let alerts = "SELECT code FROM machine_alerts WHERE kind = 'stock' ORDER BY code";
    assert_eq!(stage.rows(alerts).await, ["slot-unknown:77", "stock-short:1"]);
}

async fn an_amount_keeps_its_digits(mut stage: Stage) {
    let _backend = stage.start("b1");
    let amounts = ["0.10", "12345678901234.123456", "\"9007199254740993.01\"", "1e2"];
    let sales: Vec<String> =
        amounts.iter().enumerate().map(|(id, amount)| sale("M-001", &format!("T{id}"), 1, amount)).collect();
    stage.push(&sales).await;
    let sql = "SELECT CAST(amount AS CHAR) FROM transactions ORDER BY transaction_id";
    let all_fit = !stage.is_mariadb();
    let kept: &[&str] = if all_fit {
        &["0.10", "12345678901234.123456", "9007199254740993.01", "100"]
    } else {
        // The column has fourteen digits before the point: the third is not rounded, it is a dead letter.
        &["0.100000", "12345678901234.123456", "100.000000"]
    };
    stage.has(sql, kept).await;
    stage.all_taken().await;
    let letters = stage.redis.list(LETTERS).await;
    assert_eq!(letters.len(), usize::from(!all_fit));
    if let Some(letter) = letters.first() {
        assert!(letter.contains("`amount` is 9007199254740993.01; the database holds decimal(20,6)"), "{letter}");
    }
}

async fn an_error_is_a_row_of_the_log(mut stage: Stage) {
    let _backend = stage.start("b1");
    let payload = r#"{"error_code":"E07","message":"Klappe klemmt – 故障","slot_no":3,"level":"critical"}"#;
    stage.push(&[job("error", "M-001", 0, payload)]).await;
    stage
        .has(
            "SELECT message FROM machine_logs WHERE code = 'E07' AND level = 'critical' AND slot_no = 3",
            &["Klappe klemmt – 故障"],
        )
        .await;
    assert_eq!(stage.rows("SELECT payload FROM machine_logs").await, [payload]);
    assert_eq!(stage.rows("SELECT kind FROM machine_alerts WHERE code = 'E07'").await, ["error"]);
}

async fn a_machines_jobs_are_rows_in_their_order(stage: Stage) {
    let mut stage = stage.with("[listener]\nbatch = 16\nworkers = 4\nalert_levels = []");
    let _backend = stage.start("b1");
    let jobs: Vec<String> = (0..600)
        .map(|number| job("error", &format!("M-{:02}", number % 20), 0, &format!(r#"{{"error_code":"{number:04}"}}"#)))
        .collect();
    for part in jobs.chunks(50) {
        stage.push(part).await;
    }
    stage.has("SELECT CAST(COUNT(*) AS CHAR) FROM machine_logs", &["600"]).await;
    for machine in ["M-00", "M-07", "M-19"] {
        let codes = stage
            .rows(&format!(
                "SELECT code FROM machine_logs WHERE machine_id = (SELECT id FROM machines WHERE serial_no = '{machine}') ORDER BY id"
            ))
            .await;
        assert_eq!(codes.len(), 30);
        assert!(codes.is_sorted(), "{machine}: {codes:?}");
    }
}

/// A rule of the application's own, as a trigger.
async fn refuse(stage: &mut Stage, code: &str) {
    let then = if stage.is_mariadb() {
        "FOR EACH ROW IF NEW.code = 'CODE' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no such code'; END IF"
    } else {
        "WHEN NEW.code = 'CODE' BEGIN SELECT RAISE(ABORT, 'no such code'); END"
    };
    stage.execute(&format!("CREATE TRIGGER rule BEFORE INSERT ON machine_logs {}", then.replace("CODE", code))).await;
}

async fn what_the_database_refuses_is_a_dead_letter_and_holds_up_nobody(mut stage: Stage) {
    stage.database().await;
    if stage.is_mariadb() {
        // A trigger cannot be prepared there: what its column does not hold is refused as well.
        stage.execute("ALTER TABLE machine_logs ADD CONSTRAINT rule CHECK (code <> 'POISON')").await;
    } else {
        refuse(&mut stage, "POISON").await;
    }
    let mut stage = stage.with("[listener]\nattempts = 3\nworkers = 2");
    let mut jobs: Vec<String> = (0..60)
        .map(|number| job("error", &format!("M-{}", number % 7), number, &format!(r#"{{"error_code":"{number:02}"}}"#)))
        .collect();
    jobs.insert(31, job("error", "M-3", 31, r#"{"error_code":"POISON"}"#));
    stage.push(&jobs).await;
    let _backend = stage.start("b1");
    stage.has("SELECT CAST(COUNT(*) AS CHAR) FROM machine_logs", &["60"]).await;
    stage.all_taken().await;
    let letters = stage.redis.list(LETTERS).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter: serde_json::Value = serde_json::from_str(&letters[0]).expect("JSON");
    assert_eq!((&letter["attempts"], &letter["job"]), (&3.into(), &jobs[31].as_str().into()));
    let reason = letter["reason"].as_str().expect("a reason");
    assert!(reason.contains("no such code") || reason.contains("CONSTRAINT `rule` failed"), "{reason}");
}

/// MariaDB closes the connection over a statement that is larger than its `max_allowed_packet`, as it does when it goes away.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_too_large_for_the_database_is_a_dead_letter_and_holds_up_nobody() {
    let mut stage = Stage::mariadb().await.with("[listener]\nattempts = 4\nworkers = 1\nalert_levels = []");
    stage.database().await;
    // Whoever connects from now on has it.
    stage.execute("SET GLOBAL max_allowed_packet = 1048576").await;
    let error = |number: usize, size: usize| {
        let payload = format!(r#"{{"error_code":"{number:02}","details":"{}"}}"#, "x".repeat(size));
        job("error", &format!("M-{}", number % 3), 0, &payload)
    };
    // Ordinary ones, some that fit alone and not together, and one that fits nowhere.
    let size = |number: usize| match number {
        20 => 1_500_000,
        10..18 => 300_000,
        _ => 10,
    };
    let jobs: Vec<String> = (0..40).map(|number| error(number, size(number))).collect();
    stage.push(&jobs).await;
    let backend = stage.start("b1");
    stage.all_taken().await;
    let all: Vec<String> = (0..40).filter(|number| *number != 20).map(|number| format!("{number:02}")).collect();
    assert_eq!(stage.rows("SELECT code FROM machine_logs ORDER BY id").await, all);
    let letters = stage.redis.list(LETTERS).await;
    assert_eq!(letters.len(), 1, "the large one alone");
    let letter: serde_json::Value = serde_json::from_str(&letters[0]).expect("JSON");
    let reason = letter["reason"].as_str().expect("a reason");
    assert!(letter["job"] == jobs[20] && letter["attempts"] == 4 && reason.contains("max_allowed_packet"), "{reason}");
    // One that comes alone, of which the database reads the beginning at the most, leaves nothing in trouble.
    stage.push(&[error(40, 8_000_000)]).await;
    let letters = stage.redis.list_of(LETTERS, 2).await;
    assert!(letters.iter().all(|letter| letter.contains("max_allowed_packet")));
    stage.all_taken().await;
    let (_, status) = backend.ask("GET", "/api/status", Some(crate::stage::TOKEN), "").await;
    assert_eq!((&status["troubles"], &status["dead"]), (&serde_json::json!({}), &2.into()));
}

async fn what_is_no_job_is_a_dead_letter_with_the_reason(mut stage: Stage) {
    let _backend = stage.start("b1");
    let jobs = [
        "not JSON".to_owned(),
        job("heartbeat", "M-001", 0, r#"{"current_page":"x"}"#),
        job("heartbeat", "M-001", 0, "{}"),
    ];
    stage.push(&jobs).await;
    stage.has("SELECT serial_no FROM machines", &["M-001"]).await;
    let letters = stage.redis.list_of(LETTERS, 2).await.join("\n");
    assert!(letters.contains("not JSON: expected") && letters.contains("`current_page` is"), "{letters}");
    stage.all_taken().await;
}

async fn what_nobody_knows_goes_where_the_settings_say(stage: Stage) {
    let mut stage = stage.with("[listener]\nunknown_types = \"create\"\nunknown_machines = \"dead-letter\"");
    stage.machine("M-001", 0, 0).await;
    let _backend = stage.start("b1");
    let jobs = [
        job("door", "M-001", 0, r#"{"open":true}"#),
        job("heartbeat", "M-404", 0, "{}"),
        sale("M-404", "T1", 1, "1"),
        job("heartbeat", "M-001", 0, "{}"),
    ];
    stage.push(&jobs).await;
    stage.has("SELECT payload FROM machine_logs WHERE code = 'door' AND level = 'info'", &[r#"{"open":true}"#]).await;
    stage.all_taken().await;
    assert_eq!(stage.rows("SELECT serial_no FROM machines").await, ["M-001"]);
    let letters = stage.redis.list_of(LETTERS, 2).await.join("\n");
    assert!(letters.contains("no machine has the serial number `M-404`"), "{letters}");
}

async fn a_worker_of_the_application_takes_from_the_same_list(stage: Stage) {
    let mut stage = stage.with("[listener]\nbatch = 10\nalert_levels = []");
    let _backend = stage.start("b1");
    let mut worker = stage.redis.connect().await;
    let mut theirs = Vec::new();
    for round in 0..20 {
        let jobs: Vec<String> = (0..50)
            .map(|number| job("error", "M-001", 0, &format!(r#"{{"error_code":"{:04}"}}"#, round * 50 + number)))
            .collect();
        stage.push(&jobs).await;
        for _ in 0..5 {
            // What a queue worker of Laravel's does.
            let job: Option<String> =
                redis::cmd("LPOP").arg(crate::stage::JOBS).query_async(&mut worker).await.expect("an answer");
            theirs.extend(job);
        }
    }
    stage.all_taken().await;
    let mut codes = stage.rows("SELECT code FROM machine_logs").await;
    let ours = codes.len();
    codes.extend(theirs.iter().map(|job| job.split("error_code\":\"").nth(1).expect("a code")[..4].to_owned()));
    codes.sort();
    assert_eq!(codes, (0..1_000).map(|code| format!("{code:04}")).collect::<Vec<_>>(), "each went to one of the two");
    assert!(ours > 0, "the back end took none");
}

async fn an_application_has_names_of_its_own(stage: Stage) {
    let mut stage = stage;
    let database = "[database]\nmigrate = false\n[database.tables]\nmachines = \"devices\"\nmachine_logs = \"device_errors\"\n\
        [database.columns.machines]\nserial_no = \"sn\"\ncurrent_page = \"\"\n[database.columns.machine_logs]\nslot_no = \"\"\n";
    stage = stage.with(database);
    // The application's own migration is what this program would have done, with its own names.
    let schema = stage.run(&["database", "schema"]);
    let schema = String::from_utf8(schema.stdout).expect("text");
    assert!(schema.contains("`devices`") && schema.contains("`sn`") && !schema.contains("`current_page`"), "{schema}");
    let (code, answer) = stage.ask(&["database", "migrate"]);
    assert_eq!(code, 0, "{answer}");
    let _backend = stage.start("b1");
    stage
        .push(&[
            job("heartbeat", "M-001", 0, r#"{"current_page":1,"temperature":4}"#),
            job("error", "M-001", 0, r#"{"error_code":"E1","slot_no":1}"#),
        ])
        .await;
    stage.has("SELECT code FROM device_errors", &["E1"]).await;
    stage.has("SELECT sn FROM devices WHERE temperature = 4", &["M-001"]).await;
}
