//! Who may do what at the broker: mosquitto with the files of `config/mosquitto`, each rule tried, allowed and denied.

use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, PublishOptions, PublishResult};
use sluicegate_tests::{Broker, Gateway, RedisServer, eventually};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The gateway's account, and two machines'.
const USERS: [(&str, &str); 4] =
    [("sluicegate", "gateway's own"), ("M-1", "token-1"), ("M-2", "token-2"), ("+", "token-of-all")];
/// The last message of a test: what came before it and was let pass has arrived, too.
const END: &str = "end";

/// A connected client.
struct Client {
    client: AsyncClient,
    received: mpsc::Receiver<(String, String)>,
    /// Ends when this is dropped.
    events: JoinSet<()>,
}

impl Client {
    /// Logs in.
    async fn try_login(port: u16, id: &str, login: Option<(&str, &str)>) -> Result<Self, String> {
        let mut options = MqttOptions::new(id, rumqttc::Broker::tcp("127.0.0.1", port));
        options.set_keep_alive(30).set_outgoing_inflight_upper_limit(100);
        if let Some((user, password)) = login {
            options.set_credentials(user, password.to_owned());
        }
        let (client, mut events) = AsyncClient::builder(options).capacity(64).build();
        tokio::time::timeout(Duration::from_secs(30), connected(&mut events)).await.expect("an answer in time")?;
        // Holds what a test sends to one client at the most.
        let (sender, received) = mpsc::channel(10_000);
        let mut tasks = JoinSet::new();
        // Ends with the connection: nobody here connects again.
        tasks.spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let _ = sender.try_send((text(&publish.topic), text(&publish.payload)));
                }
            }
        });
        Ok(Self { client, received, events: tasks })
    }

    /// By its name in [`USERS`], with the client id that it should have.
    async fn login(port: u16, name: &str) -> Self {
        let login = USERS.iter().find(|(user, _)| *user == name).copied();
        Self::try_login(port, name, login).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Publishes at QoS 1: whether it was let pass.
    async fn publish(&self, topic: &str, payload: &str) -> Result<(), String> {
        self.publish_with(topic, payload, ONCE).await
    }

    async fn publish_with(&self, topic: &str, payload: &str, options: PublishOptions) -> Result<(), String> {
        let sent = self.client.publish_tracked(topic, payload.as_bytes().to_vec(), options).await.expect("queued");
        match sent.wait_async().await {
            Ok(PublishResult::Qos1(ack))
                if matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    }

    async fn subscribe(&self, filters: &[&str]) {
        for filter in filters {
            let asked = self.client.subscribe_tracked(*filter, QoS::AtLeastOnce).await.expect("queued");
            asked.wait_async().await.unwrap_or_else(|error| panic!("{filter}: {error}"));
        }
    }

    /// What reached it, up to the end.
    async fn received(&mut self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), self.received.recv()).await;
            let next = next.expect("a message in time").expect("a connection");
            if next.1 == END {
                return all;
            }
            all.push(next);
        }
    }

    /// Whether its connection stands.
    fn stands(&mut self) -> bool {
        self.events.try_join_next().is_none()
    }
}

async fn connected(events: &mut EventLoop) -> Result<(), String> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Logs in for one publish alone: the MQTT library gives a connection up on which one was refused.
async fn attempt(port: u16, name: &str, topic: &str, options: PublishOptions) -> Result<(), String> {
    let login = USERS.iter().find(|(user, _)| *user == name).copied();
    let client = Client::try_login(port, "attempt", login).await?;
    client.publish_with(topic, "denied", options).await
}

async fn denied(port: u16, name: &str, topic: &str, options: PublishOptions) {
    let error = attempt(port, name, topic, options).await.expect_err(topic);
    assert!(error.contains("NotAuthorized"), "{topic}: {error}");
}

const ONCE: PublishOptions = PublishOptions::new(QoS::AtLeastOnce);

const FROM_MACHINES: [&str; 4] =
    ["machine/+/heartbeat", "machine/+/error", "machine/+/transaction", "machine/+/command/ack"];

#[tokio::test]
async fn a_machine_publishes_to_its_own_four_topics_and_to_nothing_else() {
    let (broker, gateway_port) = Broker::shipped(&USERS).await;
    let mut gateway = Client::login(gateway_port, "sluicegate").await;
    gateway.subscribe(&FROM_MACHINES).await;
    let (mut own, machine) = (Vec::new(), Client::login(broker.port, "M-1").await);
    for kind in ["heartbeat", "error", "transaction", "command/ack"] {
        let topic = format!("machine/M-1/{kind}");
        machine.publish(&topic, kind).await.unwrap_or_else(|error| panic!("{topic}: {error}"));
        own.push((topic, kind.to_owned()));
    }
    for topic in [
        "machine/M-2/heartbeat",
        "machine/M-2/error",
        "machine/M-2/transaction",
        "machine/M-2/command/ack",
        "machine/M-2/command",
        // Nor its own commands, nor what nobody knows, nor beside all of it.
        "machine/M-1/command",
        "machine/M-1/other",
        "machine/M-1/heartbeat/more",
        "machine/M-1",
        "machine/m-1/heartbeat",
        "machine//heartbeat",
        "/machine/M-1/heartbeat",
        "heartbeat",
        "$share/all/machine/M-1/heartbeat",
        "$delayed/1/machine/M-1/command",
        "$SYS/broker/publish/messages/dropped",
    ] {
        denied(broker.port, "M-1", topic, ONCE).await;
    }
    // The attempts were M-1's, too, so they have its session now.
    let machine = Client::login(broker.port, "M-1").await;
    machine.publish("machine/M-1/heartbeat", END).await.expect("its own");
    assert_eq!(gateway.received().await, own);
}

#[tokio::test]
async fn a_machine_receives_its_own_commands_and_nothing_else_whatever_it_subscribes_to() {
    let (broker, gateway_port) = Broker::shipped(&USERS).await;
    let gateway = Client::login(gateway_port, "sluicegate").await;
    let (mut machine, other) = (Client::login(broker.port, "M-1").await, Client::login(broker.port, "M-2").await);
    // mosquitto grants every filter; what counts is what comes.
    machine.subscribe(&["#", "machine/#", "machine/+/command", "machine/M-2/command", "machine/M-2/heartbeat"]).await;
    machine.subscribe(&["$share/g/machine/+/command", "$share/h/#", "$SYS/#", "machine/M-1/command"]).await;
    gateway.publish("machine/M-2/command", "another's").await.expect("the gateway's");
    other.publish("machine/M-2/heartbeat", "another's").await.expect("its own");
    gateway.publish("machine/M-1/command", "its own").await.expect("the gateway's");
    machine.publish("machine/M-1/heartbeat", "its own").await.expect("its own");
    gateway.publish("machine/M-1/command", END).await.expect("the gateway's");
    let received = machine.received().await;
    // As often as its filters overlap.
    assert!(!received.is_empty());
    for (topic, payload) in received {
        assert_eq!((topic.as_str(), payload.as_str()), ("machine/M-1/command", "its own"));
    }
}

#[tokio::test]
async fn the_gateway_alone_publishes_commands_and_nothing_but_commands() {
    let (broker, gateway_port) = Broker::shipped(&USERS).await;
    let mut machine = Client::login(broker.port, "M-1").await;
    machine.subscribe(&["machine/M-1/command"]).await;
    let gateway = Client::login(gateway_port, "sluicegate").await;
    for topic in ["machine/M-1/heartbeat", "machine/M-1/transaction", "machine/M-1/command/ack", "machine", "anything"]
    {
        denied(gateway_port, "sluicegate", topic, ONCE).await;
    }
    denied(broker.port, "M-2", "machine/M-1/command", ONCE).await;
    // Nor one that is kept for whoever subscribes next.
    denied(broker.port, "M-2", "machine/M-1/command", ONCE.retained()).await;
    gateway.publish("machine/M-1/command", "real").await.expect("the gateway's");
    gateway.publish("machine/M-1/command", END).await.expect("the gateway's");
    assert_eq!(machine.received().await, [("machine/M-1/command".to_owned(), "real".to_owned())]);
}

#[tokio::test]
async fn nobody_logs_in_without_its_own_password() {
    let (broker, gateway_port) = Broker::shipped(&USERS).await;
    for port in [broker.port, gateway_port] {
        for login in [
            None,
            Some(("M-1", "token-2")),
            Some(("M-1", "")),
            Some(("M-9", "token-1")),
            Some(("m-1", "token-1")),
            Some(("", "")),
            Some(("sluicegate", "token-1")),
        ] {
            let outcome = Client::try_login(port, "M-1", login).await.map(drop);
            assert!(outcome.is_err(), "{login:?} was let in");
        }
    }
    Client::login(broker.port, "M-1").await;
}

#[tokio::test]
async fn a_user_name_with_a_wildcard_reaches_nothing() {
    let (broker, gateway_port) = Broker::shipped(&USERS).await;
    let gateway = Client::login(gateway_port, "sluicegate").await;
    // Whoever issued this made a mistake: `machine/%u/command` would be everybody's.
    for topic in ["machine/M-1/heartbeat", "machine/M-1/transaction", "machine/M-1/command"] {
        denied(broker.port, "+", topic, ONCE).await;
    }
    let mut all = Client::login(broker.port, "+").await;
    all.subscribe(&["machine/+/command", "#"]).await;
    let mut machine = Client::login(broker.port, "M-1").await;
    machine.subscribe(&["machine/M-1/command"]).await;
    gateway.publish("machine/M-1/command", "secret").await.expect("the gateway's");
    gateway.publish("machine/M-1/command", END).await.expect("the gateway's");
    assert_eq!(machine.received().await.len(), 1);
    assert!(all.received.try_recv().is_err(), "it got another's command");
}

#[tokio::test]
async fn a_machine_takes_no_session_over_by_giving_anothers_client_id() {
    let (broker, gateway_port) = Broker::shipped(&USERS).await;
    let mut gateway = Client::login(gateway_port, "sluicegate").await;
    let mut machine = Client::login(broker.port, "M-1").await;
    machine.subscribe(&["machine/M-1/command"]).await;
    for id in ["M-1", "sluicegate", "sluicegate-commands"] {
        let other = Client::try_login(broker.port, id, Some(("M-2", "token-2"))).await.expect("its own login");
        // It is M-2, whatever it says.
        other.publish("machine/M-2/heartbeat", "M-2").await.expect("its own");
        let forged = other.publish("machine/M-1/heartbeat", "M-2").await.expect_err(id);
        assert!(forged.contains("NotAuthorized"), "{id}: {forged}");
    }
    assert!(gateway.stands() && machine.stands(), "a connection was ended");
    gateway.publish("machine/M-1/command", "its own").await.expect("the gateway's");
    gateway.publish("machine/M-1/command", END).await.expect("the gateway's");
    assert_eq!(machine.received().await.len(), 1);
}

#[tokio::test]
async fn a_machine_that_is_revoked_is_disconnected_and_stays_out() {
    let (broker, _) = Broker::shipped(&USERS).await;
    let (mut machine, mut other) = (Client::login(broker.port, "M-1").await, Client::login(broker.port, "M-2").await);
    assert!(machine.stands());
    broker.revoke("M-1");
    eventually("its connection ends", async || (!machine.stands()).then_some(())).await;
    assert!(Client::try_login(broker.port, "M-1", Some(("M-1", "token-1"))).await.is_err());
    assert!(other.stands());
    other.publish("machine/M-2/heartbeat", "still there").await.expect("its own");
}

/// The gateway itself, under these rules and with these queues: nothing is lost while it is away, nor when the broker is killed meanwhile,
/// but the last message before that.
#[tokio::test]
async fn the_gateway_works_under_the_shipped_rules_and_its_outage_loses_nothing() {
    let ((mut broker, gateway_port), redis) = (Broker::shipped(&USERS).await, RedisServer::start().await);
    let route =
        |name| format!("[[routes]]\nname = \"{name}\"\ntopic = \"machine/{{serial_no}}/{name}\"\nhandlers = []\n");
    let settings = Gateway::settings(gateway_port, redis.port, &(route("heartbeat") + &route("transaction")));
    let login = "[mqtt]\nusername = \"sluicegate\"\npassword = \"gateway's own\"\n";
    let mut gateway = Gateway::with(&settings.replacen("[mqtt]\n", login, 1));
    gateway.run().await;
    let mut machine = Client::login(broker.port, "M-1").await;
    machine.subscribe(&["machine/M-1/command"]).await;
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":4}"#).await.expect("its own");
    redis.list_of("mqtt_incoming_jobs", 1).await;
    let command = |id: &str| format!(r#"{{"target":"M-1","command":"reboot","payload":[],"message_id":"{id}"}}"#);
    redis.push("mqtt_outgoing_commands", &[command("one")]).await;
    let reached = tokio::time::timeout(Duration::from_secs(30), machine.received.recv()).await;
    let reached = reached.expect("a command in time").expect("a connection");
    assert_eq!(reached, ("machine/M-1/command".to_owned(), command("one")));

    gateway.kill();
    let sales = |numbers: std::ops::Range<u32>| {
        numbers.map(|number| format!(r#"{{"transaction_id":"T{number}","slot_no":1,"amount":1}}"#))
    };
    for sale in sales(0..200) {
        machine.publish("machine/M-1/transaction", &sale).await.expect("its own");
    }
    // mosquitto acknowledges a message first and saves it then, before it reads the next: the last one may be lost, none before it.
    machine.publish("machine/M-1/heartbeat", r#"{"temperature":5}"#).await.expect("its own");
    broker.kill();
    broker.restart().await;
    let machine = Client::login(broker.port, "M-1").await;
    for sale in sales(200..300) {
        machine.publish("machine/M-1/transaction", &sale).await.expect("its own");
    }
    gateway.run().await;
    let jobs = eventually("all sales arrive", async || {
        let jobs = redis.list("mqtt_incoming_jobs").await;
        (jobs.iter().filter(|job| job.contains(r#""type":"transaction""#)).count() >= 300).then_some(jobs)
    })
    .await;
    for sale in sales(0..300) {
        assert_eq!(jobs.iter().filter(|job| job.contains(&sale)).count(), 1, "{sale}");
    }
}
