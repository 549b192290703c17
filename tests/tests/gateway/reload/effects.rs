//! A key that is changed while the gateway runs has its effect at once: seen from outside, key by key.

use std::path::Path;
use std::process::Command;

use sluicegate_guests::Guest;
use sluicegate_tests::certificates::certificates;
use sluicegate_tests::servers::free_port;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};
use tempfile::TempDir;

use super::{A, DEAD, JOBS, Publisher, Stage, in_order, jobs, seqs};

/// A user of the broker, with the password `NAME's`.
fn user(file: &Path, name: &str, new: bool) {
    let file = file.display().to_string();
    let password = format!("{name}'s");
    let mut arguments = vec!["-b"];
    if new {
        arguments.push("-c");
    }
    arguments.extend([&*file, name, &password]);
    assert!(Command::new("mosquitto_passwd").args(arguments).status().expect("mosquitto_passwd runs").success());
}

/// A broker that knows two users, and a port for machines; with TLS where the gateway connects, if there are certificates.
async fn strict(folder: &Path, tls: bool) -> (Broker, u16) {
    let users = folder.join("users");
    user(&users, "first", true);
    user(&users, "second", false);
    let at = |name: &str| folder.join(name).display().to_string();
    let tls = if tls {
        format!("cafile {}\ncertfile {}\nkeyfile {}\n", at("ca.pem"), at("server.pem"), at("server.key"))
    } else {
        String::new()
    };
    let plain = free_port();
    let more = format!("{tls}password_file {}\nlistener {plain} 127.0.0.1", users.display());
    (Broker::with(&more).await, plain)
}

#[tokio::test]
async fn other_credentials_are_another_connection_and_wrong_ones_lose_nothing() {
    let folder = TempDir::new().expect("a folder");
    let (broker, plain) = strict(folder.path(), false).await;
    let redis = RedisServer::start().await;
    let settings = |user: &str, password: &str| {
        let keys = format!("username = \"{user}\"\npassword = \"{password}\"\n[redis]");
        Gateway::settings(broker.port, redis.port, A).replace("[redis]", &keys)
    };
    let mut gateway = Gateway::with(&settings("first", "first's"));
    gateway.run().await;
    let machine = Machine::connect(plain, "M-1", None).await;
    let publisher = Publisher { machine, name: "M-1".to_owned(), next: 0.into() };
    let (log, stage) = (broker.path("log"), Stage { broker, redis, gateway });
    let connected = async |user: &str, what: &str| {
        eventually(what, async || {
            let log = std::fs::read_to_string(&log).ok()?;
            let last = log.lines().rfind(|line| line.contains(" as sluicegate ("))?;
            last.contains(&format!("u'{user}'")).then_some(())
        })
        .await;
    };
    connected("first", "it is connected").await;
    publisher.publish("a", 10).await;
    let edit = async |user: &str, password: &str| {
        let keys = format!("username = \"{user}\"\npassword = \"{password}\"\n[redis]");
        stage.write_text(&Gateway::settings(stage.broker.port, stage.redis.port, A).replace("[redis]", &keys));
    };
    publisher
        .meanwhile("a", async {
            edit("second", "second's").await;
            connected("second", "it is connected as the other one").await;
        })
        .await;
    edit("second", "somebody's").await;
    stage.gateway.says("NotAuthorized").await;
    publisher.publish("a", 10).await;
    edit("first", "first's").await;
    connected("first", "it is connected as the first one again").await;
    publisher.publish("a", 10).await;
    let all = publisher.next.get();
    let pushed = jobs(&stage.redis.list_of(JOBS, usize::try_from(all).expect("a number")).await);
    assert_eq!(in_order(&seqs(&pushed, "M-1", "a")), all);
    assert!(!stage.gateway.log().contains("body's"), "{}", stage.gateway.log());
}

#[tokio::test]
async fn another_authority_is_another_connection_and_a_wrong_one_loses_nothing() {
    let (folder, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    certificates(folder.path());
    certificates(other.path());
    let (broker, plain) = strict(folder.path(), true).await;
    let redis = RedisServer::start().await;
    let (mqtts, redis_port) = (broker.port, redis.port);
    let settings = |authority: &TempDir| {
        let keys = format!(
            "username = \"first\"\npassword = \"first's\"\nca_file = \"{}\"\n[redis]",
            authority.path().join("ca.pem").display()
        );
        let settings = Gateway::settings(mqtts, redis_port, A).replace("[redis]", &keys);
        settings.replace("mqtt://127.0.0.1", "mqtts://localhost")
    };
    let mut gateway = Gateway::with(&settings(&folder));
    gateway.run().await;
    let machine = Machine::connect(plain, "M-1", None).await;
    let publisher = Publisher { machine, name: "M-1".to_owned(), next: 0.into() };
    let stage = Stage { broker, redis, gateway };
    publisher.publish("a", 10).await;
    stage.redis.list_of(JOBS, 10).await;
    stage.write_text(&settings(&other));
    stage.gateway.says("certificate").await;
    publisher.publish("a", 10).await;
    assert_eq!(stage.redis.list(JOBS).await.len(), 10, "nobody vouches for the broker: nothing is taken from it");
    stage.write_text(&settings(&folder));
    publisher.publish("a", 10).await;
    let pushed = jobs(&stage.redis.list_of(JOBS, 30).await);
    assert_eq!(in_order(&seqs(&pushed, "M-1", "a")), 30);
}

#[tokio::test]
async fn less_memory_sends_to_the_spool_what_stayed_in_memory_before() {
    let plugin = "[plugins.sleepy]\npath = \"plugins/sleepy.wasm\"\nlimits = { call_timeout = \"20s\", output = \"4MiB\" }\n\
                  [[routes]]\nname = \"s\"\ntopic = \"machine/{serial_no}/s\"\nhandlers = [\"sleepy\"]\n";
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let settings = |keys: &str| {
        let keys = format!("max_packet_size = \"4MiB\"\n{keys}\n[redis]");
        Gateway::settings(broker.port, redis.port, plugin).replace("[redis]", &keys)
    };
    let (before, less) = (settings(""), settings("in_flight_bytes = \"1MiB\""));
    let mut gateway = Gateway::with(&before);
    gateway.install("sleepy", &Guest::echo_after(500));
    gateway.run().await;
    let stage = Stage { broker, redis, gateway };
    let (one, other) = (
        Machine::connect(stage.broker.port, "M-1", None).await,
        Machine::connect(stage.broker.port, "M-2", None).await,
    );
    let padding = "x".repeat(3 << 19);
    let parked = async || {
        let metrics = stage.gateway.text("/metrics").await.expect("metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix("sluicegate_uplink_parked_total "));
        line.map_or(0, |count| count.parse().expect("a number"))
    };
    // The first is in memory until its handler is done: beside it there is room, or there is none.
    let both = async |total: usize| {
        one.publish("machine/M-1/s", format!(r#"{{"padding":"{padding}"}}"#)).await;
        other.publish("machine/M-2/s", "{}").await;
        stage.redis.list_of(JOBS, total).await;
    };
    both(2).await;
    assert_eq!(parked().await, 0_u64);
    stage.write_text(&less);
    let (status, answer) = stage.reload().await;
    assert!(status.contains("200"), "{answer}");
    both(4).await;
    assert!(parked().await > 0);
}

#[tokio::test]
async fn a_spool_that_is_full_takes_more_once_it_may() {
    let more = |size: &str| format!("[spool]\nmax_size = \"{size}\"\n{A}");
    let mut stage = Stage::start(&more("1MiB")).await;
    let machine = Machine::connect(stage.broker.port, "M-1", None).await;
    stage.redis.kill();
    let padding = "x".repeat(8_000);
    for seq in 0..300 {
        machine.publish("machine/M-1/a", format!(r#"{{"seq":{seq},"padding":"{padding}"}}"#)).await;
    }
    stage.gateway.says("the spool is full").await;
    let spooled = async || stage.gateway.messages().await?["spooled"].as_u64();
    assert!(spooled().await.is_some_and(|count| count < 150));
    stage.applied(&more("64MiB"), "spool.max_size").await;
    eventually("all are in the spool", async || (spooled().await? == 300).then_some(())).await;
    eventually("it is not full any more", async || {
        (!stage.gateway.text("/readyz").await?.contains("the spool is full")).then_some(())
    })
    .await;
    stage.redis.restart().await;
    let pushed = jobs(&stage.redis.list_of(JOBS, 300).await);
    assert_eq!(in_order(&seqs(&pushed, "M-1", "a")), 300);
}

#[tokio::test]
async fn a_message_id_is_remembered_as_long_as_the_settings_say_now() {
    let more = |dedupe: &str| format!("[commands]\ndedupe = \"{dedupe}\"\n{A}");
    let stage = Stage::start(&more("1h")).await;
    let mut machine = Machine::connect(stage.broker.port, "M-1", Some("machine/M-1/command")).await;
    let command = |id: &str, payload: u8| {
        format!(r#"{{"target":"M-1","command":"reboot","payload":{{"n":{payload}}},"message_id":"{id}"}}"#)
    };
    let send = async |all: &[&String]| {
        let all: Vec<String> = all.iter().map(|one| (*one).clone()).collect();
        stage.redis.push("mqtt_outgoing_commands", &all).await;
    };
    let (first, again, other) = (command("1", 1), command("1", 2), command("2", 3));
    send(&[&first, &again, &other]).await;
    assert_eq!(machine.next().await.1, first);
    assert_eq!(machine.next().await.1, other, "the same id again is not sent");
    stage.applied(&more("0s"), "commands.dedupe").await;
    let (third, fourth) = (command("3", 4), command("3", 5));
    send(&[&third, &fourth]).await;
    assert_eq!(machine.next().await.1, third);
    assert_eq!(machine.next().await.1, fourth);
    stage.applied(&more("1h"), "commands.dedupe").await;
    let (fifth, sixth, seventh) = (command("5", 6), command("5", 7), command("6", 8));
    send(&[&fifth, &sixth, &seventh]).await;
    assert_eq!(machine.next().await.1, fifth);
    assert_eq!(machine.next().await.1, seventh);
}

#[tokio::test]
async fn an_orderly_end_takes_as_long_as_the_settings_say_now() {
    let more = |limit: &str| {
        format!(
            "[gateway]\nshutdown_timeout = \"{limit}\"\n[plugins.sleepy]\npath = \"plugins/sleepy.wasm\"\n\
             limits = {{ call_timeout = \"20s\" }}\n[[routes]]\nname = \"s\"\ntopic = \"machine/{{serial_no}}/s\"\nhandlers = [\"sleepy\"]\n"
        )
    };
    let mut stage = Stage::prepared(&more("1h"), |gateway| gateway.install("sleepy", &Guest::echo_after(900))).await;
    let machine = Machine::connect(stage.broker.port, "M-1", None).await;
    stage.applied(&more("100ms"), "gateway.shutdown_timeout").await;
    machine.publish("machine/M-1/s", "{}").await;
    stage.gateway.counts(&[("in_flight", 1)]).await;
    stage.gateway.signal("TERM");
    assert!(!stage.gateway.ended().await.success());
    let log = stage.gateway.log();
    assert!(log.contains("not everything was finished within gateway.shutdown_timeout (100ms)"), "{log}");
    // What was not acknowledged comes again, and there is time for it now.
    stage.write(&more("20s"));
    stage.gateway.run().await;
    stage.redis.list_of(JOBS, 1).await;
    assert_eq!(stage.redis.list(DEAD).await.len(), 0);
}
