//! Trying it out with nothing installed: broker and Redis in the process.

use std::io::Write as _;
use std::process::{Command, Stdio};

use sluicegate_tests::servers::free_port;
use sluicegate_tests::{Gateway, Machine, eventually};

/// A gateway on embedded servers, and their ports.
async fn embedded() -> (Gateway, u16, u16) {
    let (mqtt, cache) = (free_port(), free_port());
    let settings = "[mqtt]\nurl = \"embedded\"\n[redis]\nurl = \"embedded\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let mut gateway = Gateway::with(settings)
        .env("SLUICEGATE_EMBEDDED_MQTT_LISTEN", &format!("127.0.0.1:{mqtt}"))
        .env("SLUICEGATE_EMBEDDED_REDIS_LISTEN", &format!("127.0.0.1:{cache}"));
    gateway.run().await;
    (gateway, mqtt, cache)
}

/// What a program prints, given this.
fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not start ({error}); `cargo xtask test` installs it"));
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program} {arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn the_whole_way_works_on_the_embedded_servers() {
    let (mut gateway, mqtt, cache) = embedded().await;
    assert!(gateway.log().contains("never for production"), "{}", gateway.log());
    let mut machine = Machine::connect(mqtt, "M-1", Some("machine/M-1/command")).await;
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":12.30}"#).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{cache}")).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let job: String = eventually("the job is there", async || {
        redis::cmd("LINDEX")
            .arg("mqtt_incoming_jobs")
            .arg(0)
            .query_async::<Option<String>>(&mut connection)
            .await
            .expect("an answer")
    })
    .await;
    assert!(job.contains(r#""payload":{"temperature":12.30}"#), "{job}");
    let command = r#"{"target":"M-1","command":"reboot","payload":[],"message_id":"1"}"#;
    redis::cmd("RPUSH").arg("mqtt_outgoing_commands").arg(command).exec_async(&mut connection).await.expect("pushed");
    assert_eq!(machine.next().await.1, command);
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn the_embedded_servers_refuse_to_be_reached_from_elsewhere() {
    let mut gateway = Gateway::with("[redis]\nurl = \"embedded\"\n[admin]\nlisten = \"127.0.0.1:0\"\n")
        .env("SLUICEGATE_EMBEDDED_REDIS_LISTEN", "0.0.0.0:0");
    gateway.spawn().await;
    assert_eq!(gateway.ended().await.code(), Some(1));
    assert!(gateway.log().contains("which other machines can reach"), "{}", gateway.log());
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_once_with_the_cause_and_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (url, variable) in [("mqtt", "SLUICEGATE_EMBEDDED_MQTT_LISTEN"), ("redis", "SLUICEGATE_EMBEDDED_REDIS_LISTEN")]
    {
        let settings = format!("[{url}]\nurl = \"embedded\"\n[admin]\nlisten = \"127.0.0.1:0\"\n");
        let mut gateway = Gateway::with(&settings).env(variable, &address);
        gateway.spawn().await;
        assert_eq!(gateway.ended().await.code(), Some(1));
        let log = gateway.log();
        assert_eq!(log.matches("Address already in use").count(), 1, "{log}");
        assert_eq!(log.matches(variable).count(), 1, "{log}");
        assert!(log.contains("next: "), "{log}");
    }
}

#[tokio::test]
async fn redis_cli_works_with_the_embedded_redis() {
    let (_gateway, _, cache) = embedded().await;
    let port = cache.to_string();
    let cli = |arguments: &[&str]| output("redis-cli", &[&["-p", &port], arguments].concat(), "");
    assert_eq!(cli(&["PING"]), "PONG\n");
    assert!(cli(&["INFO", "server"]).contains("redis_version:"), "{}", cli(&["INFO"]));
    assert_eq!(cli(&["RPUSH", "l", "a", "b", "c"]), "3\n");
    assert_eq!(cli(&["LRANGE", "l", "0", "-1"]), "a\nb\nc\n");
    assert_eq!(cli(&["BLPOP", "l", "1"]), "l\na\n");
    assert_eq!(cli(&["BLPOP", "none", "0.05"]), "\n");
    assert_eq!(cli(&["SET", "k", "v w"]) + &cli(&["GET", "k"]), "OK\nv w\n");
    assert_eq!(cli(&["EXPIRE", "k", "100"]), "1\n");
    let left: u32 = cli(&["TTL", "k"]).trim().parse().expect("seconds");
    assert!((50..=100).contains(&left), "{left}");
    assert_eq!(cli(&["HSET", "h", "f", "1", "g", "2"]) + &cli(&["HGET", "h", "f"]), "2\n1\n");
    assert_eq!(cli(&["HMGET", "h", "g", "none"]), "2\n\n");
    assert_eq!(cli(&["DEL", "k", "h", "none"]), "2\n");
    // In another database nothing of it is there; a transaction takes place at once.
    assert_eq!(cli(&["-n", "3", "EXISTS", "l"]), "0\n");
    let lines = "SELECT 3\nMULTI\nRPUSH l x\nLLEN l\nEXEC\n";
    assert_eq!(output("redis-cli", &["-p", &port], lines), "OK\nOK\nQUEUED\nQUEUED\n1\n1\n");
    assert_eq!(cli(&["LLEN", "l"]), "2\n");
    // One that waits is given what another client pushes.
    let mut waits = Command::new("redis-cli");
    let waits = waits.args(["-p", &port, "BLPOP", "later", "30"]).stdout(Stdio::piped()).spawn().expect("it starts");
    // Beside the gateway, which waits for commands.
    eventually("it waits", async || cli(&["INFO", "clients"]).contains("blocked_clients:2").then_some(())).await;
    cli(&["LPUSH", "later", "now"]);
    let told = waits.wait_with_output().expect("it ends").stdout;
    assert_eq!(String::from_utf8_lossy(&told), "later\nnow\n");
}

#[tokio::test]
async fn the_mosquitto_clients_work_with_the_embedded_broker_in_both_versions() {
    let (_gateway, mqtt, cache) = embedded().await;
    let (mqtt, cache) = (mqtt.to_string(), cache.to_string());
    for version in ["311", "5"] {
        let machine = format!("M-{version}");
        let topic = format!("machine/{machine}/heartbeat");
        let publish = ["-p", &mqtt, "-V", version, "-q", "1", "-t", &topic, "-m", r#"{"temperature":12.30}"#];
        output("mosquitto_pub", &publish, "");
        let job = eventually("the job is there", async || {
            let jobs = output("redis-cli", &["-p", &cache, "LRANGE", "mqtt_incoming_jobs", "0", "-1"], "");
            jobs.lines().find(|job| job.contains(&machine)).map(str::to_owned)
        })
        .await;
        assert!(job.contains(r#""payload":{"temperature":12.30}"#), "{job}");
        let topic = format!("machine/M-{version}/command");
        let subscribe = ["-p", &mqtt, "-V", version, "-q", "1", "-t", &topic, "-C", "1", "-W", "30"];
        let mut subscriber =
            Command::new("mosquitto_sub").args(subscribe).stdout(Stdio::piped()).spawn().expect("it starts");
        // This broker does not say that nobody is subscribed yet, so that what is sent before reaches nobody.
        let mut commands = Vec::new();
        eventually("a command arrives", async || {
            let id = commands.len();
            let command =
                format!(r#"{{"target":"{machine}","command":"reboot","payload":[],"message_id":"{id}-{version}"}}"#);
            output("redis-cli", &["-p", &cache, "RPUSH", "mqtt_outgoing_commands", &command], "");
            commands.push(command + "\n");
            subscriber.try_wait().expect("its status")
        })
        .await;
        let told = subscriber.wait_with_output().expect("it ends").stdout;
        assert!(commands.contains(&String::from_utf8_lossy(&told).into_owned()), "{told:?}");
    }
}
