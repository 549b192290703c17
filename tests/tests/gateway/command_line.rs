//! The command line: what it prints, and how it ends.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sluicegate_guests::Guest;
use sluicegate_tests::gateway::{binary, root};
use sluicegate_tests::{Broker, Gateway, RedisServer, compiled};
use tempfile::TempDir;

fn sluicegate(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    sluicegate_with(&[], arguments, input)
}

fn sluicegate_with(environment: &[(&str, &[u8])], arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(binary())
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, OsStr::from_bytes(value))))
        .current_dir(compiled::config())
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It may end without reading.
    let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    (status.code(), String::from_utf8(stdout).expect("UTF-8"), String::from_utf8(stderr).expect("UTF-8"))
}

#[test]
fn check_says_what_is_wrong_with_place_and_ends_with_1() {
    let (code, out, _) = sluicegate(&["check", "--config", "sluicegate.toml"], "");
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("ok     plugin heartbeat 0.1.0 (topic-handler, 6 samples)") && out.ends_with("all good\n"),
        "{out}"
    );

    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("s.toml");
    let name = file.to_string_lossy().into_owned();
    fs::write(&file, "[mqtt]\nrecieve_maximum = 5\n").expect("written");
    let (code, out, err) = sluicegate(&["check", "--config", &name], "");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains(&format!("{name}:2:1: mqtt.recieve_maximum: unknown key; did you mean `receive_maximum`?")),
        "{err}"
    );
    assert!(err.contains("next: "), "{err}");
    let (code, out, _) = sluicegate(&["check", "--json", "--config", &name], "");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["ok"]), (Some(1), &false.into()));

    fs::write(
        &file,
        "[plugins.a]\npath = \"none.wasm\"\n[[routes]]\nname = \"r\"\ntopic = \"{serial_no}\"\nhandlers = [\"a\"]\n",
    )
    .expect("written");
    let (code, out, _) = sluicegate(&["check", "--config", &name], "");
    assert_eq!(code, Some(1));
    assert!(out.contains("wrong  plugin a: not found: ") && out.contains("no such file"), "{out}");
}

#[test]
fn check_refuses_what_run_would_and_changes_nothing() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("s.toml");
    let name = file.to_string_lossy().into_owned();
    compiled::put(&folder.path().join("state"));
    let check = |settings: &str, environment: &[(&str, &[u8])]| {
        fs::write(&file, settings).expect("written");
        sluicegate_with(environment, &["check", "--config", &name], "")
    };
    let (code, out, _) = check("[spool]\npath = \"a/b/spool\"\n", &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(!folder.path().join("a").exists());

    let (code, out, _) = check("[mqtt]\nurl = \"mqtts://localhost\"\nca_file = \"none.pem\"\n", &[]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("none.pem (mqtt.ca_file): No such file or directory"), "{out}");

    fs::write(folder.path().join("file"), "").expect("written");
    for path in ["file", "file/spool"] {
        let (code, out, _) = check(&format!("[spool]\npath = \"{path}\"\n"), &[]);
        assert_eq!(code, Some(1), "{out}");
        assert!(out.contains("wrong  cannot use the spool's folder ") && out.contains("(spool.path"), "{out}");
    }

    let both = "[mqtt]\nurl = \"embedded\"\n[redis]\nurl = \"embedded\"\n";
    assert_eq!(check(both, &[]).0, Some(0));
    let everywhere: [(&str, &[u8]); 2] =
        [("SLUICEGATE_EMBEDDED_MQTT_LISTEN", b"0.0.0.0:1883"), ("SLUICEGATE_EMBEDDED_REDIS_LISTEN", b"0.0.0.0:6379")];
    let (code, out, _) = check(both, &everywhere);
    assert_eq!(code, Some(1), "{out}");
    for server in ["MQTT broker", "Redis"] {
        assert!(out.contains(&format!("wrong  the embedded {server} would listen on `0.0.0.0:")), "{out}");
    }
}

#[test]
fn a_variable_that_is_no_text_is_a_mistake_and_not_taken_for_unset() {
    let (code, _, err) =
        sluicegate_with(&[("MQTT_BROKER_HOST", b"\xff")], &["check", "--config", "sluicegate.toml"], "");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("mqtt.url: cannot read the environment's MQTT_BROKER_HOST: it is not UTF-8"), "{err}");
}

#[test]
fn try_shows_route_handlers_and_envelope_and_sends_nothing() {
    let (code, out, _) = sluicegate(
        &[
            "try",
            "machine/M-001/heartbeat",
            r#"{"current_page":"3","temperature":12.30}"#,
            "--config",
            "sluicegate.toml",
        ],
        "",
    );
    assert_eq!(code, Some(0), "{out}");
    for part in [
        "route     heartbeat",
        "handler   heartbeat 0.1.0: ",
        r#"{"type":"heartbeat","serial_no":"M-001","payload":{"current_page":3,"temperature":12.30},"#,
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let (code, out, _) =
        sluicegate(&["try", "machine/M-001/heartbeat", r#"{"temperature":900}"#, "--config", "sluicegate.toml"], "");
    assert_eq!(code, Some(1));
    assert!(
        out.contains("temperature: was `900`, must be a number from -60 to 120; it would be a dead letter"),
        "{out}"
    );
    let lines = "machine/M-1/heartbeat {}\nmachine/M-1/transaction {\"transaction_id\":\"T\",\"slot_no\":1,\"amount\":1}\nnowhere {}\n";
    let (code, out, _) = sluicegate(&["try", "--json", "--config", "sluicegate.toml"], lines);
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, Some(1));
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer["data"][1]["pushed"][0]["idempotency_key"], "M-1:T");
    assert!(answer["data"][2]["refused"].as_str().is_some_and(|text| text.contains("no route takes this topic")));
}

#[test]
fn a_plugin_is_inspected_and_tested_from_its_file() {
    let (code, out, _) = sluicegate(&["plugin", "inspect", "plugins/heartbeat.wasm"], "");
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("world        topic-handler") && out.contains("imports      sluicegate:plugin/host@0.1.0"),
        "{out}"
    );
    let (code, out, _) = sluicegate(&["plugin", "test", "plugins/transaction.wasm"], "");
    assert_eq!(code, Some(0));
    assert!(out.ends_with("6 samples gave what they promise\n"), "{out}");
    let (code, _, err) = sluicegate(&["plugin", "inspect", "sluicegate.toml"], "");
    assert_eq!(code, Some(1));
    assert!(err.contains("not a WebAssembly component"), "{err}");
    // Whoever has a third party's file, or the image, has no cargo.
    assert!(err.contains("next: have the plugin built as wit/plugin.wit says"), "{err}");
}

/// What a stranger calls things neither moves the cursor, nor forges a line, nor turns the text around.
#[test]
fn what_a_component_says_of_itself_is_shown_on_a_terminal_as_what_it_is() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("guest.wasm");
    let samples =
        r#"[{"name":"\u001b[2J\nok  all","message":{"topic":"t","payload":"1"},"expect":{"jobs":[{"payload":"1"}]}}]"#;
    let manifest = "name = \"gu\u{202e}est\"\nversion = \"1\u{2066}\"\ndescription = \"\u{feff}good\"\n".to_owned();
    fs::write(&file, Guest { manifest, samples: Some(samples.to_owned()), ..Guest::echo() }.handler())
        .expect("written");
    for what in ["inspect", "test"] {
        let (code, out, err) = sluicegate(&["plugin", what, file.to_str().expect("a path")], "");
        assert_eq!(code, Some(0), "{out}{err}");
        assert!(out.contains(r"\u{1b}[2J\u{a}ok  all"), "{out}");
        let odd = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2066}\u{feff}".contains(c));
        assert!(!out.contains(odd), "{out:?}");
    }
}

#[test]
fn a_plugin_that_breaks_its_samples_word_is_told_apart_from_one_that_is_not_there() {
    let folder = TempDir::new().expect("a folder");
    let samples = r#"[{"name":"one","message":{"topic":"t","payload":"{}"},"expect":{"reject":"no"}}]"#;
    let guest = Guest { samples: Some(samples.to_owned()), ..Guest::echo() };
    fs::write(folder.path().join("a.wasm"), guest.handler()).expect("written");
    let file = folder.path().join("s.toml");
    let name = file.to_string_lossy().into_owned();
    let settings = |path: &str| {
        format!(
            "[plugins.a]\npath = \"{path}\"\n[[routes]]\nname = \"r\"\ntopic = \"{{serial_no}}\"\nhandlers = [\"a\"]\n"
        )
    };
    for (path, hint) in [("a.wasm", "wrong; next: mend the plugin"), ("b.wasm", "wrong; next: check the path")] {
        fs::write(&file, settings(path)).expect("written");
        let (code, out, _) = sluicegate(&["check", "--config", &name], "");
        assert_eq!(code, Some(1));
        assert!(out.contains(hint), "{out}");
    }
    let path = folder.path().join("a.wasm");
    let (code, _, err) = sluicegate(&["plugin", "test", &path.to_string_lossy()], "");
    assert_eq!(code, Some(1));
    assert!(err.contains("sample `one`") && err.contains("next: mend the plugin"), "{err}");
}

#[test]
fn config_show_and_schema_print_what_they_say() {
    let (code, out, _) = sluicegate(&["config", "show", "--config", "sluicegate.toml"], "");
    assert_eq!(code, Some(0));
    assert!(out.contains("receive_maximum = 2000  # sluicegate.toml:"), "{out}");
    assert!(out.contains("type = \"heartbeat\"  # default: the route's name"), "{out}");
    let (code, out, _) = sluicegate(&["config", "schema"], "");
    assert_eq!(
        (code, out),
        (Some(0), fs::read_to_string(root().join("config/sluicegate.schema.json")).expect("the schema"))
    );
}

#[test]
fn a_mistake_on_the_command_line_ends_with_2_and_no_gateway_with_4() {
    assert_eq!(sluicegate(&["rum"], "").0, Some(2));
    assert_eq!(sluicegate(&["run", "--log-level", "a=b=c"], "").0, Some(2));
    assert_eq!(sluicegate(&["health", "--address", "127.0.0.1:1"], "").0, Some(4));
    let (code, out, _) = sluicegate(&["--help"], "");
    assert_eq!(code, Some(0));
    assert!(out.contains("Exit codes:") && out.contains("SLUICEGATE_EMBEDDED_MQTT_LISTEN"), "{out}");
    assert!(sluicegate(&["completions", "bash"], "").1.contains("_sluicegate"));
}

#[test]
fn what_stops_the_gateway_is_said_once_with_its_cause() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("s.toml");
    fs::write(&file, format!("[admin]\nlisten = \"{address}\"\n")).expect("written");
    let name = file.to_string_lossy().into_owned();
    let reason = format!("cannot listen on {address} (admin.listen): Address already in use");
    // In the log, or, where nothing is logged, after it.
    for level in ["info", "off"] {
        let (code, out, err) = sluicegate(&["run", "--config", &name, "--log-level", level], "");
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert_eq!(err.matches(&reason).count(), 1, "{err}");
        assert!(err.ends_with("next: sluicegate check\n"), "{err}");
    }
    let (code, out, _) = sluicegate(&["run", "--config", &name, "--json"], "");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, Some(1));
    assert!(answer["errors"][0]["message"].as_str().is_some_and(|text| text.starts_with(&reason)), "{answer}");
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let folder = TempDir::new().expect("a folder");
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let (admin, mqtt, redis) = (free(), free(), free());
    let file = folder.path().join("s.toml");
    let settings =
        format!("[mqtt]\nurl = \"mqtt://{mqtt}\"\n[redis]\nurl = \"redis://{redis}\"\n[admin]\nlisten = \"{admin}\"\n");
    fs::write(&file, settings).expect("written");
    let full = fs::File::options().write(true).open("/dev/full").expect("a device that is always full");
    let mut gateway = Command::new(binary())
        .args(["run", "--config", &file.to_string_lossy()])
        .env("RUST_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(full)
        .spawn()
        .expect("it starts");
    let alive = || sluicegate(&["health", "--live", "--address", &admin.to_string()], "").0;
    let began = std::time::Instant::now();
    while alive() != Some(0) && began.elapsed() < std::time::Duration::from_secs(20) {}
    // It writes all the time, since neither server is there.
    let alive = (0..20).all(|_| alive() == Some(0));
    let _ = (gateway.kill(), gateway.wait());
    assert!(alive);
}

/// Beside a gateway that runs, which is not disturbed.
#[tokio::test(flavor = "multi_thread")]
async fn check_connects_where_it_is_told_to_and_says_what_is_granted_less_of() {
    let (broker, redis) =
        (Broker::with("max_packet_size 20000\nmax_inflight_messages 7").await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let (mqtt, redis_port) = (broker.port.to_string(), redis.port.to_string());
    let connect = |mqtt: &str| {
        let environment: &[(&str, &[u8])] =
            &[("MQTT_BROKER_PORT", mqtt.as_bytes()), ("MQTT_REDIS_PORT", redis_port.as_bytes())];
        sluicegate_with(environment, &["check", "--connect", "--config", "sluicegate.toml"], "")
    };
    let (code, out, _) = connect(&mqtt);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("ok     MQTT broker answers\n") && out.contains("ok     Redis answers\n"), "{out}");
    let less = "note   MQTT broker takes packets of 20000 bytes, where mqtt.max_packet_size says 1048576\n";
    assert!(out.contains(less), "{out}");
    assert!(out.contains("note   MQTT broker takes 7 commands at once, where commands.in_flight is 1000\n"), "{out}");
    assert!(!gateway.log().contains("no connection to"), "{}", gateway.log());
    redis.command("SET mqtt_incoming_jobs text").await;
    let (code, out, _) = connect("1");
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("wrong  MQTT broker at 127.0.0.1:1 does not take a connection: "), "{out}");
    assert!(out.contains("does not take a connection: Redis refuses `mqtt_incoming_jobs`: WRONGTYPE"), "{out}");
}

#[test]
fn a_mistake_of_usage_is_json_where_that_is_asked_for() {
    let (code, out, err) = sluicegate(&["check", "--json", "--colour"], "");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["ok"], err.as_str()), (Some(2), &false.into(), ""));
    assert!(answer["errors"][0]["message"].as_str().is_some_and(|text| text.contains("--colour")), "{answer}");
    let (code, out, err) = sluicegate(&["check", "--colour"], "");
    assert!(code == Some(2) && out.is_empty() && err.contains("--colour"), "{err}");
}

#[test]
fn a_level_that_is_none_is_a_mistake_and_silences_nothing() {
    let (code, _, err) = sluicegate(&["--log-level", "blah", "check", "--config", "sluicegate.toml"], "");
    assert!(code == Some(2) && err.contains("`blah` is no level"), "{err}");
    let (code, ..) = sluicegate(&["--log-level", "warn,sluicegate=debug", "check", "--config", "sluicegate.toml"], "");
    assert_eq!(code, Some(0));
}

#[test]
fn any_bytes_may_be_tried_from_standard_input() {
    let mut child = Command::new(binary())
        .args(["try", "--json", "--config", "sluicegate.toml"])
        .current_dir(compiled::config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = b"machine/M-1/heartbeat {\"a\":\"\xff\"}\nmachine/M-1/heartbeat {}\n";
    child.stdin.take().expect("its input").write_all(lines).expect("written");
    let Output { status, stdout, .. } = child.wait_with_output().expect("it ends");
    let answer: Value = serde_json::from_slice(&stdout).expect("JSON");
    assert_eq!((status.code(), answer["data"].as_array().map(Vec::len)), (Some(1), Some(2)), "{answer}");
}
