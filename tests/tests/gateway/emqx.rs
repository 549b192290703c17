//! What EMQX 5.10 asks over HTTP, answered by the gateway: the requests are those that its authenticator and its authorizer make of
//! `config/emqx/http.hocon` (`emqx_auth_http_utils.erl`, tag e5.10.3): JSON whose values are texts, QoS and retain too, and an empty one for
//! what EMQX does not know; header names in small letters; one connection for many requests.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use sluicegate_tests::gateway::root;
use sluicegate_tests::servers::free_port;
use sluicegate_tests::{Broker, Cluster, Gateway, RedisServer, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const SECRET: &str = "the-secret-of-the-endpoints";
/// Tokens, and their SHA-256.
const FIRST: (&str, &str) = ("token-1", "3f08aace122ee2368432c1ca23a049bc640bafbf00fdf33a52429f38ba12dbf9");
const SECOND: (&str, &str) = ("token-2", "0f6bffa9661cb5dd2f3f7b2929f33061f58a7ba7fdd689530b1a306f8ed8f3ec");

const ALLOW: &str = r#"{"result":"allow","is_superuser":false}"#;
const DENY: &str = r#"{"result":"deny","is_superuser":false}"#;
/// EMQX's `request_timeout` in http.hocon.
const EMQX_WAITS: Duration = Duration::from_secs(3);

/// A gateway that answers EMQX, with a broker and these settings of `[access]`.
async fn gateway(redis: u16, more: &str) -> (Broker, Gateway) {
    let broker = Broker::start().await;
    let access = format!("[access]\nlisten = \"127.0.0.1:0\"\nsecret = \"${{file:secret}}\"\n{more}");
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis, &access));
    std::fs::write(gateway.path("secret"), format!("{SECRET}\n")).expect("written");
    gateway.run().await;
    (broker, gateway)
}

/// Where it answers EMQX.
fn address(gateway: &Gateway) -> String {
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("access listening")).expect("it listens");
    line.split("address=").nth(1).expect("an address").trim().to_owned()
}

/// The body that the shipped file makes EMQX send to an endpoint, of what it knows of a client.
fn body(endpoint: &str, known: &[(&str, &str)]) -> String {
    let file = std::fs::read_to_string(root().join("config/emqx/http.hocon")).expect("the shipped file");
    let block = file.split_once(&format!("/emqx/{endpoint}\"")).expect("the endpoint").1;
    let lines = block.split_once("body {").expect("a body").1.lines().skip(1).map(str::trim);
    let lines = lines.take_while(|line| *line != "}").filter(|line| !line.starts_with('#'));
    let fields = lines.map(|line| line.split_once(" = ").expect("a field"));
    let fields = fields.map(|(name, template)| {
        let variable = template.strip_prefix("\"${").and_then(|rest| rest.strip_suffix("}\"")).expect("a variable");
        let value = known.iter().find(|(known, _)| *known == variable).map_or("", |(_, value)| value);
        (name.to_owned(), Value::from(value))
    });
    Value::Object(fields.collect::<Map<_, _>>()).to_string()
}

/// One of EMQX's connections.
struct Emqx {
    stream: TcpStream,
    secret: &'static str,
}

impl Emqx {
    async fn connect(address: &str) -> Self {
        // From another address: connections would take ports that the servers of other tests are about to listen on.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 2], 0).into()).expect("a port");
        let stream = socket.connect(address.parse().expect("an address")).await.expect("it listens");
        Self { stream, secret: SECRET }
    }

    /// The answer's body; the status is always 200, and it comes before EMQX gives up.
    async fn post(&mut self, path: &str, content_type: &str, body: &[u8]) -> String {
        let (secret, length) = (self.secret, body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nauthorization: Bearer {secret}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
             host: gateway:9092\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body].concat()).await
    }

    async fn send(&mut self, request: &[u8]) -> String {
        let asked = async {
            // Where it does not want to read all of it, it answers all the same.
            let _ = self.stream.write_all(request).await;
            let mut answer = Vec::new();
            loop {
                let text = String::from_utf8_lossy(&answer).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.and_then(|length| length.parse().ok()).expect("a length") {
                        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
                        assert!(head.contains("content-type: application/json"), "{head}");
                        return body.to_owned();
                    }
                }
                let read = self.stream.read_buf(&mut answer).await.expect("an answer");
                assert_ne!(read, 0, "no answer, but {text}");
            }
        };
        tokio::time::timeout(EMQX_WAITS, asked).await.expect("EMQX does not wait so long")
    }

    /// Whether a client is let in.
    async fn login_as(&mut self, user: &str, client_id: &str, password: &str, from: &str) -> bool {
        let known = [("username", user), ("clientid", client_id), ("password", password), ("peerhost", from)];
        self.asks("authenticate", &known).await
    }

    async fn login(&mut self, machine: &str, token: &str) -> bool {
        self.login_as(machine, machine, token, "10.0.0.1").await
    }

    /// Whether a client may do something.
    async fn may(&mut self, user: &str, action: &str, topic: &str) -> bool {
        self.may_with(user, action, topic, "false").await
    }

    async fn may_with(&mut self, user: &str, action: &str, topic: &str, retain: &str) -> bool {
        let known = [
            ("username", user),
            ("clientid", user),
            ("action", action),
            ("topic", topic),
            ("qos", "1"),
            ("retain", retain),
        ];
        self.asks("authorize", &known).await
    }

    async fn asks(&mut self, endpoint: &str, known: &[(&str, &str)]) -> bool {
        let body = body(endpoint, known);
        match &*self.post(&format!("/emqx/{endpoint}"), "application/json", body.as_bytes()).await {
            ALLOW => true,
            DENY => false,
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn beyond_256_connections_the_next_one_waits_until_one_ends() {
    let redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "").await;
    let address = address(&gateway);
    redis.command(&format!("SET machine_auth:M-1 {}", FIRST.1)).await;
    let mut held = Vec::new();
    for _ in 0..256 {
        let mut emqx = Emqx::connect(&address).await;
        assert!(emqx.login("M-1", FIRST.0).await);
        held.push(emqx);
    }
    let mut next = Emqx::connect(&address).await;
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { next.login("M-1", FIRST.0).await });
    // It asked first, and all that others ask is answered before.
    for emqx in &mut held {
        assert!(emqx.login("M-1", FIRST.0).await);
    }
    assert!(waiting.try_join_next().is_none());
    held.pop();
    assert!(waiting.join_next().await.expect("one").expect("it asks to the end"));
}

#[tokio::test]
async fn a_machine_logs_in_with_its_token_of_either_format_and_nobody_else_does() {
    let redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "failures_per_minute = 1000\n").await;
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    for name in ["M-1", "sluicegate", "sluicegate-commands", "+", "$SYS", "a/b"] {
        redis.command(&format!("SET machine_auth:{name} {}", FIRST.1)).await;
    }
    redis.command(&format!("HSET machine_auth:M-2 password_hash {} is_superuser 1", SECOND.1)).await;
    redis.command(&format!("SET machine_auth:M-3 {}", FIRST.0)).await;
    redis.command(&format!("RPUSH machine_auth:M-4 {}", FIRST.1)).await;
    redis.command(&format!("HSET machine_auth:M-5 token {}", FIRST.1)).await;
    assert!(emqx.login("M-1", FIRST.0).await && emqx.login("M-2", SECOND.0).await);
    for (user, client_id, token) in [
        ("M-1", "M-1", SECOND.0),
        ("M-1", "M-1", "Token-1"),
        ("M-1", "M-1", ""),
        ("M-1", "M-1", FIRST.1),
        ("M-2", "M-2", FIRST.0),
        ("m-1", "m-1", FIRST.0),
        // Nobody; no SHA-256; no string and no hash; a hash without the field.
        ("M-9", "M-9", FIRST.0),
        ("M-3", "M-3", FIRST.0),
        ("M-4", "M-4", FIRST.0),
        ("M-5", "M-5", FIRST.0),
        // A client id that is another's, or nobody's.
        ("M-1", "M-2", FIRST.0),
        ("M-1", "sluicegate", FIRST.0),
        ("M-1", "", FIRST.0),
        // Names that no machine may have, whatever Redis holds.
        ("sluicegate", "sluicegate", FIRST.0),
        ("sluicegate-commands", "sluicegate-commands", FIRST.0),
        ("+", "+", FIRST.0),
        ("$SYS", "$SYS", FIRST.0),
        ("a/b", "a/b", FIRST.0),
        ("", "", FIRST.0),
        ("undefined", "undefined", FIRST.0),
    ] {
        assert!(!emqx.login_as(user, client_id, token, "10.0.0.1").await, "{user} {client_id} {token}");
    }
    // A form, where EMQX's header says so.
    let form = format!("username=M-1&password={}&clientid=M-1&peerhost=10.0.0.1", FIRST.0);
    let answer = emqx.post("/emqx/authenticate", "application/x-www-form-urlencoded", form.as_bytes()).await;
    assert_eq!(answer, ALLOW);
    let status = gateway.get("/api/status").await.expect("a status");
    assert_eq!(status["access"]["told_of_changes"], true);
    // What a stranger wrote stands escaped in the log, and no token at all.
    emqx.login_as("\u{1b}[2J\nforged line", "x", "token-9", "10.0.0.1").await;
    let log = gateway.log();
    assert!(log.contains("reason=\"token\""), "{log}");
    for hidden in [FIRST.0, FIRST.1, SECOND.0, SECOND.1, SECRET, "token-9", "\u{1b}[2J", "\nforged"] {
        assert!(!log.contains(hidden), "{hidden:?} in {log}");
    }
    let metrics = gateway.text("/metrics").await.expect("metrics");
    for line in [
        r#"sluicegate_access_decisions_total{endpoint="authenticate",result="deny",reason="client-id"} 3"#,
        r#"sluicegate_access_token_lookups_total{result="read"}"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn each_rule_is_the_one_of_the_shipped_files() {
    let redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "").await;
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    redis.command(&format!("SET machine_auth:M-1 {}", FIRST.1)).await;
    for kind in ["heartbeat", "error", "transaction", "command/ack"] {
        assert!(emqx.may("M-1", "publish", &format!("machine/M-1/{kind}")).await, "{kind}");
        assert!(!emqx.may("M-1", "publish", &format!("machine/M-2/{kind}")).await, "{kind}");
        assert!(emqx.may("sluicegate", "subscribe", &format!("machine/+/{kind}")).await, "{kind}");
        assert!(!emqx.may("M-1", "subscribe", &format!("machine/+/{kind}")).await, "{kind}");
        assert!(!emqx.may("M-1", "subscribe", &format!("machine/M-1/{kind}")).await, "{kind}");
    }
    for (user, action, topic, retain, allowed) in [
        ("M-1", "subscribe", "machine/M-1/command", "false", true),
        ("M-1", "subscribe", "$share/g/machine/M-1/command", "false", true),
        ("M-1", "subscribe", "machine/+/command", "false", false),
        ("M-1", "subscribe", "$share/g/machine/+/command", "false", false),
        ("M-1", "subscribe", "#", "false", false),
        ("M-1", "subscribe", "machine/M-2/command", "false", false),
        ("M-1", "publish", "machine/M-1/command", "false", false),
        ("M-1", "publish", "$delayed/1/machine/M-1/command", "false", false),
        ("M-1", "publish", "machine/M-1/other", "false", false),
        ("M-1", "", "machine/M-1/heartbeat", "false", false),
        ("", "publish", "machine//heartbeat", "false", false),
        ("+", "subscribe", "machine/+/command", "false", false),
        ("sluicegate", "publish", "machine/M-1/command", "false", true),
        ("sluicegate", "publish", "machine/M-1/command", "true", false),
        ("sluicegate", "publish", "machine/M-1/command", "1", false),
        ("sluicegate", "publish", "machine/M-1/heartbeat", "false", false),
        ("sluicegate", "subscribe", "$SYS/broker/publish/messages/dropped", "false", true),
        ("sluicegate", "subscribe", "machine/#", "false", false),
    ] {
        let answer = emqx.may_with(user, action, topic, retain).await;
        assert_eq!(answer, allowed, "{user} {action} {topic} {retain}");
    }
}

#[tokio::test]
async fn a_revoked_machine_is_denied_at_the_next_login() {
    let redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "failures_per_minute = 10000\n").await;
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    let mut connection = redis.connect().await;
    for round in 0..200 {
        let set = |hash: &str| redis::cmd("SET").arg("machine_auth:M-1").arg(hash).clone();
        set(FIRST.1).exec_async(&mut connection).await.expect("issued");
        // It is in memory now.
        assert!(emqx.login("M-1", FIRST.0).await, "{round}");
        emqx.may("M-1", "publish", "machine/M-1/heartbeat").await;
        set(SECOND.1).exec_async(&mut connection).await.expect("rotated");
        assert!(!emqx.login("M-1", FIRST.0).await, "{round}: the old token");
        assert!(emqx.login("M-1", SECOND.0).await, "{round}: the new token");
        // A back end does it in a transaction, or with a time to live that is over; or all is lost.
        let mut revoke = redis::pipe();
        match round % 3 {
            0 => revoke.atomic().cmd("DEL").arg("machine_auth:M-1"),
            1 => revoke.cmd("PEXPIRE").arg("machine_auth:M-1").arg(0),
            _ => revoke.cmd("FLUSHALL"),
        };
        revoke.exec_async(&mut connection).await.expect("revoked");
        assert!(!emqx.login("M-1", SECOND.0).await, "{round}: revoked");
    }
}

/// Redis tells of a change in the moment in which it answers to whoever made it: nothing else happens here until it is heard.
#[tokio::test]
async fn what_a_machine_does_ends_with_its_token_although_that_was_in_memory() {
    let redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "cache_ttl = \"1d\"\n").await;
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    for (round, revoke) in ["DEL machine_auth:M-1", "FLUSHALL", "PEXPIRE machine_auth:M-1 0"].into_iter().enumerate() {
        redis.command(&format!("SET machine_auth:M-1 {}", FIRST.1)).await;
        eventually("it may go on", async || emqx.may("M-1", "publish", "machine/M-1/heartbeat").await.then_some(()))
            .await;
        assert!(emqx.may("M-1", "publish", "machine/M-1/heartbeat").await, "{round}");
        redis.command(revoke).await;
        eventually(revoke, async || (!emqx.may("M-1", "publish", "machine/M-1/heartbeat").await).then_some(())).await;
        assert!(!emqx.may("M-1", "subscribe", "machine/M-1/command").await, "{round}");
    }
    let metrics = gateway.text("/metrics").await.expect("metrics");
    assert!(metrics.contains(r#"sluicegate_access_token_lookups_total{result="hit"}"#), "{metrics}");
}

#[tokio::test]
async fn while_redis_is_away_nobody_logs_in_and_whoever_is_in_goes_on() {
    let mut redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "").await;
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    redis.command(&format!("SET machine_auth:M-1 {}", FIRST.1)).await;
    assert!(emqx.login("M-1", FIRST.0).await);
    // A machine that was revoked, and is known to be.
    assert!(!emqx.may("M-2", "publish", "machine/M-2/heartbeat").await);
    redis.freeze();
    // Of a machine that is not known the first question is denied within the time that EMQX waits.
    assert!(!emqx.login("M-3", FIRST.0).await);
    assert!(emqx.may("M-3", "publish", "machine/M-3/heartbeat").await);
    // That nothing comes of Redis is seen, and then nobody's token is known.
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    let started = Instant::now();
    while emqx.login("M-1", FIRST.0).await {
        assert!(started.elapsed() < Duration::from_secs(10), "a token is known that Redis does not vouch for");
    }
    assert!(emqx.may("M-1", "publish", "machine/M-1/heartbeat").await);
    assert!(!emqx.may("M-2", "publish", "machine/M-2/heartbeat").await, "it was revoked");
    assert!(!emqx.may("M-1", "publish", "machine/M-2/heartbeat").await, "the rules hold");
    redis.thaw();
    eventually("it logs in again", async || {
        Emqx::connect(&address(&gateway)).await.login("M-1", FIRST.0).await.then_some(())
    })
    .await;
    redis.kill();
    eventually("its token is forgotten", async || {
        (!Emqx::connect(&address(&gateway)).await.login("M-1", FIRST.0).await).then_some(())
    })
    .await;
    assert!(emqx.may("M-1", "publish", "machine/M-1/heartbeat").await);
    redis.restart().await;
    eventually("it logs in again", async || {
        Emqx::connect(&address(&gateway)).await.login("M-1", FIRST.0).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_does_not_know_the_secret_or_talks_nonsense_is_told_no() {
    let redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "").await;
    let address = address(&gateway);
    redis.command(&format!("SET machine_auth:M-1 {}", FIRST.1)).await;
    let known = [("username", "M-1"), ("clientid", "M-1"), ("password", FIRST.0), ("peerhost", "10.0.0.1")];
    let good = body("authenticate", &known);
    for secret in ["", "the-secret-of-the-endpoint", "THE-SECRET-OF-THE-ENDPOINTS", "x"] {
        let mut stranger = Emqx { secret, ..Emqx::connect(&address).await };
        assert_eq!(stranger.post("/emqx/authenticate", "application/json", good.as_bytes()).await, DENY, "{secret}");
    }
    let length = good.len();
    for headers in ["", "authorization: Basic dGhlLXNlY3JldA==\r\n", "authorization: the-secret-of-the-endpoints\r\n"] {
        let request = format!(
            "POST /emqx/authenticate HTTP/1.1\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\nhost: x\r\n\r\n{good}"
        );
        assert_eq!(Emqx::connect(&address).await.send(request.as_bytes()).await, DENY, "{headers}");
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let (many, big) = (format!(r#"{{"username":["{}"]}}"#, "x".repeat(100)), "x".repeat(10 << 20));
    for (path, kind, body) in [
        ("/emqx/authenticate", "application/json", ""),
        ("/emqx/authenticate", "application/json", "{"),
        ("/emqx/authenticate", "application/json", "\0\u{1}"),
        ("/emqx/authenticate", "application/json", "null"),
        ("/emqx/authenticate", "application/json", &deep),
        ("/emqx/authenticate", "application/json", &many),
        ("/emqx/authenticate", "application/json", &big),
        ("/emqx/authenticate", "text/plain", &good),
        ("/emqx/authorize", "application/json", &good),
        ("/emqx/authorize", "application/json", "{}"),
        ("/emqx/other", "application/json", &good),
        ("/", "application/json", &good),
    ] {
        let answer = Emqx::connect(&address).await.post(path, kind, body.as_bytes()).await;
        assert_eq!(answer, DENY, "{path} {kind} {}", &body[..body.len().min(40)]);
    }
    for method in ["GET", "PUT", "DELETE"] {
        let request = format!(
            "{method} /emqx/authenticate HTTP/1.1\r\nauthorization: Bearer {SECRET}\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        );
        assert_eq!(Emqx::connect(&address).await.send(request.as_bytes()).await, DENY, "{method}");
    }
    // One who never ends a request gets an answer, and holds nobody else up.
    let mut slow = Emqx::connect(&address).await;
    let head = format!(
        "POST /emqx/authenticate HTTP/1.1\r\nauthorization: Bearer {SECRET}\r\ncontent-type: application/json\r\ncontent-length: 100\r\nhost: x\r\n\r\n{{"
    );
    let (late, other) =
        tokio::join!(slow.send(head.as_bytes()), async { Emqx::connect(&address).await.login("M-1", FIRST.0).await });
    assert!(late == DENY && other);
}

#[tokio::test]
async fn wrong_tokens_are_counted_by_name_and_address_and_keep_no_machine_out() {
    let redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "").await;
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    for machine in ["M-1", "M-2"] {
        redis.command(&format!("SET machine_auth:{machine} {}", FIRST.1)).await;
    }
    for attempt in 0..10 {
        assert!(!emqx.login_as("M-1", "M-1", &format!("guess-{attempt}"), "10.6.6.6").await);
    }
    let lookups = async || {
        let metrics = gateway.text("/metrics").await.expect("metrics");
        let lines = metrics.lines().filter(|line| line.starts_with("sluicegate_access_token_lookups_total"));
        lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a number")).sum::<u64>()
    };
    let before = lookups().await;
    // Whatever it tries now, nobody looks at it, the right one neither.
    for token in [FIRST.0, "guess", FIRST.0] {
        assert!(!emqx.login_as("M-1", "M-1", token, "10.6.6.6").await);
    }
    assert_eq!(lookups().await, before, "it was looked at");
    // The machine, where it is, and others from there are not kept out.
    assert!(emqx.login_as("M-1", "M-1", FIRST.0, "10.0.0.1").await);
    assert!(emqx.login_as("M-2", "M-2", FIRST.0, "10.6.6.6").await);
    let metrics = gateway.text("/metrics").await.expect("metrics");
    assert!(metrics.contains(r#"reason="limited"} 3"#), "{metrics}");
    // After its share of the minute it may try once more, though it never stopped.
    eventually("it is let try again", async || emqx.login_as("M-1", "M-1", FIRST.0, "10.6.6.6").await.then_some(()))
        .await;
}

#[tokio::test]
async fn a_thousand_machines_of_five_nodes_all_log_in_and_do_what_they_may() {
    let redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "").await;
    let address = address(&gateway);
    let mut tokens = redis::cmd("MSET");
    for machine in 0..1_000 {
        tokens.arg(format!("machine_auth:M-{machine}")).arg(FIRST.1);
    }
    tokens.exec_async(&mut redis.connect().await).await.expect("issued");
    // Those of five nodes (`pool_size` in http.hocon); on each, one machine's questions come after another's.
    let connections = 5 * 8;
    let mut asking = JoinSet::new();
    for connection in 0..connections {
        let mut emqx = Emqx::connect(&address).await;
        asking.spawn(async move {
            let mut right = Vec::new();
            for machine in (connection..1_000).step_by(connections) {
                let machine = format!("M-{machine}");
                right.push(
                    emqx.login(&machine, FIRST.0).await
                        && emqx.may(&machine, "publish", &format!("machine/{machine}/heartbeat")).await
                        && emqx.may(&machine, "subscribe", &format!("machine/{machine}/command")).await
                        && !emqx.may(&machine, "subscribe", "machine/+/command").await,
                );
            }
            right
        });
    }
    let right = asking.join_all().await.concat();
    assert_eq!((right.len(), right.iter().all(|right| *right)), (1_000, true));
}

#[tokio::test]
async fn the_rules_follow_the_settings_while_it_runs() {
    let redis = RedisServer::start().await;
    let (_broker, gateway) = gateway(redis.port, "").await;
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    redis.command(&format!("SET machine_auth:M-1 {}", FIRST.1)).await;
    assert!(!emqx.may("M-1", "publish", "machine/M-1/door").await && emqx.login("M-1", FIRST.0).await);
    let file = gateway.path("sluicegate.toml");
    let settings = std::fs::read_to_string(&file).expect("settings");
    let route = "[[routes]]\nname = \"door\"\ntopic = \"machine/{serial_no}/door\"\nhandlers = []\n";
    std::fs::write(&file, format!("{settings}{route}")).expect("written");
    gateway.post("/api/settings/reload", "{}").await;
    assert!(emqx.may("M-1", "publish", "machine/M-1/door").await);
    assert!(emqx.may("sluicegate", "subscribe", "machine/+/door").await);
    assert!(!emqx.may("M-1", "publish", "machine/M-1/heartbeat").await);
    std::fs::write(gateway.path("secret"), "another-secret-of-theirs").expect("written");
    gateway.post("/api/settings/reload", "{}").await;
    assert!(!emqx.login("M-1", FIRST.0).await);
    emqx.secret = "another-secret-of-theirs";
    assert!(emqx.login("M-1", FIRST.0).await);
    let shown = gateway.get("/api/settings").await.expect("settings").to_string();
    assert!(!shown.contains("another-secret-of-theirs"), "{shown}");
}

#[tokio::test]
async fn on_a_cluster_every_question_is_asked_of_the_keys_node() {
    let (cluster, broker) = (Cluster::start().await, Broker::start().await);
    let access = format!("[access]\nlisten = \"127.0.0.1:0\"\nsecret = \"{SECRET}\"\n");
    let settings = Gateway::settings(broker.port, cluster.nodes[0].port, &access);
    let mut gateway = Gateway::with(&settings.replace("[admin]", "cluster = true\nkey_prefix = \"p_\"\n[admin]"));
    gateway.run().await;
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    let mut connection = cluster.connect().await;
    for machine in 0..20 {
        let (machine, key) = (format!("M-{machine}"), format!("p_machine_auth:M-{machine}"));
        redis::cmd("SET").arg(&key).arg(FIRST.1).exec_async(&mut connection).await.expect("issued");
        assert!(emqx.login(&machine, FIRST.0).await && emqx.login(&machine, FIRST.0).await);
        redis::cmd("DEL").arg(&key).exec_async(&mut connection).await.expect("revoked");
        assert!(!emqx.login(&machine, FIRST.0).await);
        assert!(!emqx.may(&machine, "publish", &format!("machine/{machine}/heartbeat")).await);
    }
    assert_eq!(gateway.get("/api/status").await.expect("a status")["access"]["told_of_changes"], false);
}

#[tokio::test]
async fn it_listens_only_where_the_settings_say_so() {
    let (redis, broker) = (RedisServer::start().await, Broker::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    assert!(!gateway.log().contains("access listening"));
    assert_eq!(gateway.get("/api/status").await.expect("a status")["access"], json!(null));
    // Nor does the admin server answer.
    assert!(gateway.post("/emqx/authenticate", "{}").await.starts_with("HTTP/1.0 404"));
}

#[tokio::test]
async fn tokens_may_stand_in_the_embedded_redis() {
    let (broker, cache) = (Broker::start().await, free_port());
    let access = format!("[access]\nlisten = \"127.0.0.1:0\"\nsecret = \"{SECRET}\"\n");
    let settings = Gateway::settings(broker.port, 1, &access).replace("redis://127.0.0.1:1", "embedded");
    let mut gateway = Gateway::with(&settings).env("SLUICEGATE_EMBEDDED_REDIS_LISTEN", &format!("127.0.0.1:{cache}"));
    gateway.run().await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{cache}")).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut tokens = redis::pipe();
    tokens.cmd("SET").arg("machine_auth:M-1").arg(FIRST.1);
    tokens.cmd("HSET").arg("machine_auth:M-2").arg("password_hash").arg(SECOND.1);
    tokens.exec_async(&mut connection).await.expect("written");
    let mut emqx = Emqx::connect(&address(&gateway)).await;
    assert!(emqx.login("M-1", FIRST.0).await && emqx.login("M-2", SECOND.0).await);
    assert!(!emqx.login("M-1", SECOND.0).await && !emqx.login("M-3", FIRST.0).await);
    assert!(emqx.may("M-1", "publish", "machine/M-1/heartbeat").await);
    assert!(!emqx.may("M-1", "publish", "machine/M-2/heartbeat").await);
    // It tells nobody of changes, so nothing is kept in memory: who is revoked is denied at once.
    redis::cmd("DEL").arg("machine_auth:M-1").exec_async(&mut connection).await.expect("gone");
    assert!(!emqx.login("M-1", FIRST.0).await);
    assert!(!emqx.may("M-1", "publish", "machine/M-1/heartbeat").await);
    assert_eq!(gateway.get("/api/status").await.expect("a status")["access"]["told_of_changes"], false);
}
