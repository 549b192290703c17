//! What a plugin may call over HTTP, and what it may not: its servers are real ones.

use std::fmt::Write as _;

use sluicegate_guests::custom;
use sluicegate_guests::http::{Asker, Then};
use sluicegate_tests::certificates::certificates;
use sluicegate_tests::gateway::{binary, component};
use sluicegate_tests::servers::free_port;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, Web, eventually};
use tempfile::TempDir;

const JOBS: &str = "mqtt_incoming_jobs";
const DEAD: &str = "mqtt_dead_letters";

/// A plugin that asks, and a route `ask/{serial_no}/NAME` for it.
struct One {
    name: &'static str,
    settings: String,
    asker: Asker,
}

impl One {
    /// May call these; a call has time enough on a busy machine.
    fn new(name: &'static str, http: &[&str], asker: Asker) -> Self {
        Self { name, settings: format!("grants.http = {http:?}\n"), asker }
    }

    fn with(mut self, settings: &str) -> Self {
        writeln!(self.settings, "{settings}").expect("a text");
        self
    }
}

/// A gateway with these, and one more plugin beside them, which does nothing.
async fn start(broker: &Broker, redis: &RedisServer, plugins: &[One], environment: &[(&str, &str)]) -> Gateway {
    let mut settings = "[plugins.heartbeat]\npath = \"plugins/heartbeat.wasm\"\n[[routes]]\nname = \"heartbeat\"\n\
                        topic = \"machine/{serial_no}/heartbeat\"\nhandlers = [\"heartbeat\"]\n"
        .to_owned();
    for One { name, settings: own, .. } in plugins {
        let time = if own.contains("call_timeout") { "" } else { "limits.call_timeout = \"20s\"\n" };
        write!(
            settings,
            "[plugins.{name}]\npath = \"plugins/{name}.wasm\"\n{own}{time}[[routes]]\nname = \"{name}\"\n\
             topic = \"ask/{{serial_no}}/{name}\"\nhandlers = [\"{name}\"]\nattempts = 1\n"
        )
        .expect("a text");
    }
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &settings));
    for (name, value) in environment {
        gateway = gateway.env(name, value);
    }
    for One { name, .. } in plugins {
        gateway.install(name, &Asker::handler());
    }
    gateway.run().await;
    gateway
}

/// What a plugin answers to a message that asks so.
async fn answered(redis: &RedisServer, machine: &Machine, name: &str, asker: &Asker) -> String {
    let before = redis.list(JOBS).await.len();
    machine.publish(&format!("ask/M-1/{name}"), asker.message()).await;
    let job = redis.list_of(JOBS, before + 1).await.pop().expect("a job");
    let payload = job.split_once(r#""payload":"#).expect("an envelope").1;
    payload.split_once(r#","received_at""#).expect("an envelope").0.to_owned()
}

fn get(authority: &str, path: &str) -> Asker {
    Asker { authority: authority.to_owned(), path: path.to_owned(), ..Asker::default() }
}

fn with_header(authority: &str, name: &str, value: &[u8]) -> Asker {
    Asker { header: (name.to_owned(), value.to_owned()), ..get(authority, "/") }
}

#[tokio::test]
async fn a_plugin_calls_the_servers_that_it_was_granted_and_no_others() {
    let (broker, redis, web, other) =
        (Broker::start().await, RedisServer::start().await, Web::start().await, Web::start().await);
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let (here, there) = (format!("127.0.0.1:{}", web.port), format!("127.0.0.1:{}", other.port));
    let named = format!("localhost:{}", web.port);
    let grant = format!("http://{here}");
    let by_name = format!("http://{named}");
    let nobody = format!("127.0.0.1:{}", free_port());
    let away = format!("http://{nobody}");
    let post = |bytes| Asker { method: 2, body: Some(bytes), ..get(&here, "/bytes/3") };
    let cases = [
        (One::new("good", &[&grant], get(&here, "/bytes/1234?key=secret")), Asker::good(200, 1234)),
        (One::new("posts", &[&grant], post(10_000)), Asker::good(200, 3)),
        (
            One::new("private", &[&by_name], get(&named, "/bytes/1")).with("grants.http_private = [\"localhost\"]"),
            Asker::good(200, 1),
        ),
        (One::new("redirect", &[&grant], get(&here, "/status/302")), Asker::good(302, 0)),
        (One::new("fails", &[&grant], get(&here, "/status/503")), Asker::good(503, 0)),
        (One::new("other", &[&grant], get(&there, "/")), Asker::failed(15)),
        (One::new("other-scheme", &[&grant], Asker { scheme: Some("https"), ..get(&here, "/") }), Asker::failed(15)),
        (One::new("no-scheme", &[&grant], Asker { scheme: None, ..get(&here, "/") }), Asker::failed(15)),
        (One::new("with-user", &[&grant], get(&format!("{here}@{there}"), "/")), Asker::failed(19)),
        (One::new("tunnel", &[&grant], Asker { method: 5, ..get(&here, "/") }), Asker::failed(18)),
        (One::new("rebound", &[&by_name], get(&named, "/")), Asker::failed(4)),
        (One::new("no-name", &["http://nobody.invalid"], get("nobody.invalid", "/")), Asker::failed(1)),
        (One::new("away", &[&away], get(&nobody, "/")), Asker::failed(6)),
        (One::new("host", &[&grant], with_header(&here, "Host", b"elsewhere")), Asker::failed(92)),
        (One::new("hop", &[&grant], with_header(&here, "Transfer-Encoding", b"chunked")), Asker::failed(92)),
        (One::new("crlf", &[&grant], with_header(&here, "X-A", b"a\r\nInjected: b")), Asker::failed(91)),
        (One::new("crlf-name", &[&grant], with_header(&here, "X-A: a\r\nInjected", b"b")), Asker::failed(91)),
        (One::new("crlf-path", &[&grant], get(&here, "/ HTTP/1.1\r\nInjected: b\r\n\r\n")), Asker::good(200, 0)),
        (One::new("many-fields", &[&grant], get(&here, "/fields/10000")), Asker::failed(26)),
        (One::new("cut", &[&grant], get(&here, "/cut")), Asker::answer(200, "--", 50, 'f')),
        (One::new("late", &[&grant], Asker { patience: Some(50), ..get(&here, "/silent") }), Asker::failed(33)),
        (One::new("five", &[&grant], Asker { times: 5, ..get(&here, "/five") }), Asker::failed(38)),
        (
            One::new("large", &[&grant], get(&here, "/bytes/2000")).with("limits.http_response = \"1KiB\""),
            Asker::failed(28),
        ),
        (One::new("posts-much", &[&grant], post(100_000)).with("limits.http_request = \"64KiB\""), Asker::failed(17)),
    ];
    let (plugins, expected): (Vec<One>, Vec<String>) = cases.into_iter().unzip();
    let gateway = start(&broker, &redis, &plugins, &[]).await;
    let mut wrong = Vec::new();
    for (One { name, asker, .. }, expected) in plugins.iter().zip(expected) {
        let is = answered(&redis, &machine, name, asker).await;
        if is != expected {
            wrong.push(format!("{name}: {is}, not {expected}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(other.made(), 0, "nobody else is called");
    let seen = web.seen();
    assert!(seen[0].starts_with("GET /bytes/1234?key=secret HTTP/1.1\r\n"), "{seen:?}");
    assert!(seen[0].contains(&format!("host: {here}\r\n")), "{seen:?}");
    assert!(seen[1].starts_with("POST /bytes/3 HTTP/1.1\r\n") && seen[1].ends_with("\r\n\r\n10000 bytes"), "{seen:?}");
    assert!(seen.iter().filter(|request| request.starts_with("GET /five ")).count().is_multiple_of(4), "{seen:?}");
    assert!(seen.iter().all(|request| !request.contains("Injected") && !request.contains("injected")), "{seen:?}");
    let metrics = gateway.text("/metrics").await.expect("metrics");
    let count = |plugin: &str, server: &str, outcome: &str| {
        let labels = format!("plugin=\"{plugin}\",server=\"{server}\",outcome=\"{outcome}\"");
        assert!(
            metrics.contains(&format!("sluicegate_plugin_http_requests_total{{{labels}}} ")),
            "{labels}\n{metrics}"
        );
    };
    count("good", &grant, "2xx");
    count("redirect", &grant, "3xx");
    count("fails", &grant, "5xx");
    count("other", "", "not granted");
    count("five", "", "too many");
    count("rebound", &by_name, "prohibited address");
    count("away", &away, "unreachable");
    count("no-name", "http://nobody.invalid", "no address");
    count("late", &grant, "late");
    count("large", &grant, "too large");
    count("cut", &grant, "broken");
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_its_own_message_alone() {
    let (broker, redis, web) = (Broker::start().await, RedisServer::start().await, Web::start().await);
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let here = format!("127.0.0.1:{}", web.port);
    let grant = format!("http://{here}");
    let (silent, endless, dripping) = (get(&here, "/silent"), get(&here, "/endless"), get(&here, "/drip"));
    let plugins = [
        One::new("silent", &[&grant], silent.clone()).with("limits.http_in_flight = 1\nlimits.call_timeout = \"60s\""),
        One::new("hasty", &[&grant], silent.clone()).with("limits.call_timeout = \"200ms\""),
        One::new("dripped", &[&grant], dripping.clone()).with("limits.call_timeout = \"500ms\""),
        One::new("endless", &[&grant], endless.clone()).with("limits.http_response = \"100KiB\""),
    ];
    let _gateway = start(&broker, &redis, &plugins, &[]).await;
    machine.publish("ask/M-1/silent", silent.message()).await;
    // The first call is cut off after a second, and the message parked: its place is free for the second one.
    eventually("the server was asked again", async || (web.seen().len() == 2 && web.open() == 1).then_some(())).await;
    // Its own machine waits; those of others, on whichever lane, pass.
    for number in 2..=21 {
        machine.publish(&format!("machine/M-{number}/heartbeat"), r#"{"temperature":4}"#).await;
    }
    redis.list_of(JOBS, 20).await;
    assert_eq!((web.open(), redis.list(DEAD).await.len()), (1, 0), "it still waits");
    // Nor do those of another plugin: its own call ends in time, and its request with it.
    machine.publish("ask/M-2/hasty", silent.message()).await;
    let letter = redis.list_of(DEAD, 1).await.pop().expect("a letter");
    assert!(letter.contains("gave no answer within 200ms"), "{letter}");
    eventually("its connection is closed", async || (web.open() <= 1).then_some(())).await;
    // Nor where something of the answer comes all the time.
    machine.publish("ask/M-2/dripped", dripping.message()).await;
    let letter = redis.list_of(DEAD, 2).await.pop().expect("a letter");
    assert!(letter.contains("gave no answer within 500ms"), "{letter}");
    eventually("its connection is closed", async || (web.open() <= 1).then_some(())).await;
    machine.publish("ask/M-2/endless", endless.message()).await;
    let endless = redis.list_of(JOBS, 21).await.pop().expect("a job");
    let read: u32 = endless.split(r#""read":""#).nth(1).expect("a number")[..8].parse().expect("a number");
    assert!(endless.contains(r#""end":"f"}"#) && (1..=100 << 10).contains(&read), "{endless}");
}

#[tokio::test]
async fn only_whom_the_systems_certificates_vouch_for_is_spoken_to() {
    let (broker, redis, folder) =
        (Broker::start().await, RedisServer::start().await, TempDir::new().expect("a folder"));
    certificates(folder.path());
    let web = Web::start_with_tls(folder.path()).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let named = format!("localhost:{}", web.port);
    let grant = format!("https://{named}");
    let asker = Asker { scheme: None, ..get(&named, "/bytes/5") };
    let one = || [One::new("asks", &[&grant], asker.clone()).with("grants.http_private = [\"localhost\"]")];
    let mut without = start(&broker, &redis, &one(), &[]).await;
    assert_eq!(answered(&redis, &machine, "asks", &asker).await, Asker::failed(13));
    without.kill();
    let authority = folder.path().join("ca.pem").display().to_string();
    let _with = start(&broker, &redis, &one(), &[("SSL_CERT_FILE", &authority)]).await;
    assert_eq!(answered(&redis, &machine, "asks", &asker).await, Asker::good(200, 5));
    assert!(web.seen()[0].contains(&format!("host: {named}\r\n")), "{:?}", web.seen());
}

#[tokio::test]
async fn what_a_call_leaves_under_way_ends_with_it() {
    let (broker, redis, web) = (Broker::start().await, RedisServer::start().await, Web::start().await);
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let here = format!("127.0.0.1:{}", web.port);
    let gateway = start(&broker, &redis, &[One::new("asks", &[&format!("http://{here}")], get(&here, "/"))], &[]).await;
    let leaves = Asker { then: Then::Leave, ..get(&here, "/endless") };
    let forgets = Asker { then: Then::Forget, ..get(&here, "/silent") };
    for _ in 0..5 {
        answered(&redis, &machine, "asks", &leaves).await;
        answered(&redis, &machine, "asks", &forgets).await;
    }
    eventually("no connection is open", async || (web.open() == 0).then_some(())).await;
    // More than an instance may hold at once: what is dropped is gone, and connections are used again.
    let (made, tidy) = (web.made(), Asker { patience: Some(10_000), ..get(&here, "/bytes/10") });
    for _ in 0..300 {
        machine.publish("ask/M-1/asks", tidy.message()).await;
    }
    redis.list_of(JOBS, 310).await;
    assert!(web.made() - made <= 2, "{} connections", web.made() - made);
    gateway.counts(&[("received", 310), ("pushed", 310)]).await;
}

#[tokio::test]
async fn without_a_grant_it_is_refused_and_while_it_is_tried_nobody_is_called() {
    let (broker, redis, web) = (Broker::start().await, RedisServer::start().await, Web::start().await);
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let here = format!("127.0.0.1:{}", web.port);
    let (grant, asker) = (format!("http://{here}"), get(&here, "/bytes/1"));
    let gateway = start(&broker, &redis, &[One::new("asks", &[&grant], asker.clone())], &[]).await;
    for _ in 0..10 {
        answered(&redis, &machine, "asks", &asker).await;
    }
    let before = web.seen().len();
    assert!(before >= 10);
    // Tried on what was noted, with nothing behind it; then it is live, and calls.
    let mut another = Asker::handler();
    custom(&mut another, "nobody reads it", b"");
    gateway.install("asks", &another);
    eventually("it is live", async || (gateway.generation("asks").await? == 2).then_some(())).await;
    let shown = gateway.get("/api/plugins/asks/rehearsal").await.expect("an answer");
    assert_eq!((&shown["report"]["messages"], &shown["report"]["new_failures"]), (&10.into(), &0.into()), "{shown}");
    assert_eq!(web.seen().len(), before);
    assert_eq!(answered(&redis, &machine, "asks", &asker).await, Asker::good(200, 1));
    // The grant is taken back: the build does not stay without what it imports.
    let text = std::fs::read_to_string(gateway.path("sluicegate.toml")).expect("settings");
    let refused = text.replace(&format!("grants.http = [{grant:?}]"), "grants.http = []");
    assert_ne!(text, refused);
    std::fs::write(gateway.path("sluicegate.toml"), refused).expect("written");
    let why = eventually("the edit is refused", async || {
        gateway.get("/api/status").await?["settings"]["refused"]["reasons"][0].as_str().map(str::to_owned)
    })
    .await;
    assert!(why.contains("imports `wasi:http/") && why.contains("plugins.NAME.grants.http"), "{why}");
}

#[tokio::test]
async fn a_plugin_of_rust_calls_its_server_by_the_sdk() {
    let (broker, redis, web) = (Broker::start().await, RedisServer::start().await, Web::start().await);
    let machine = Machine::connect(broker.port, "A-7", None).await;
    let settings = format!(
        "[plugins.acme-decode]\npath = \"plugins/acme-decode.wasm\"\ngrants.http = [\"http://127.0.0.1:{port}\"]\n\
         limits.call_timeout = \"20s\"\nsettings.url = \"http://127.0.0.1:{port}/echo\"\n[[routes]]\nname = \"sealed\"\n\
         topic = \"customer/acme/machine/{{serial_no}}/sealed\"\nhandlers = [\"acme-decode\"]\n",
        port = web.port
    );
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &settings));
    gateway.install("acme-decode", &component("acme-decode"));
    gateway.run().await;
    let payload = format!(r#"{{"temperature":25.5,"padding":"{}"}}"#, "x".repeat(20_000));
    machine.publish("customer/acme/machine/A-7/sealed", payload.clone()).await;
    let job = redis.list_of(JOBS, 1).await.pop().expect("a job");
    assert!(job.contains(&payload), "{job}");
    let seen = web.seen();
    assert!(seen[0].contains("content-type: application/octet-stream\r\nidempotency-key: "), "{seen:?}");
    // What a trial shows: what it would call it does not, and that is said.
    let publish = ["customer/acme/machine/A-7/sealed", "{}", "--config", "sluicegate.toml"];
    let tried = std::process::Command::new(binary()).arg("try").args(publish).current_dir(gateway.path("")).output();
    let shown = String::from_utf8_lossy(&tried.expect("it runs").stdout).into_owned();
    assert!(shown.contains("acme-decode calls servers (grants.http); in a trial it reaches none"), "{shown}");
    assert!(shown.contains("http is not there while a build is only tried"), "{shown}");
    assert_eq!(web.seen().len(), 1);
}
