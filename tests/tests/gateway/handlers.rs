//! From a publish to the list, as the contract says.

use rumqttc::PublishOptions;
use rumqttc::mqttbytes::QoS;
use serde_json::Value;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

const JOBS: &str = "mqtt_incoming_jobs";
const DEAD: &str = "mqtt_dead_letters";

async fn start() -> (Broker, RedisServer, Gateway, Machine) {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let machine = Machine::connect(broker.port, "M-001", None).await;
    (broker, redis, gateway, machine)
}

#[tokio::test]
async fn a_payload_reaches_the_list_byte_for_byte_in_the_contracts_envelope() {
    let (_broker, redis, _gateway, machine) = start().await;
    let payload = "{ \"temperature\" : 12.30,\n \"uptime\":9007199254740993, \"text\":\"\\u00e9\\/é\" }";
    machine.publish("machine/M-001/heartbeat", payload).await;
    let job = redis.list_of(JOBS, 1).await.remove(0);
    let head = format!(r#"{{"type":"heartbeat","serial_no":"M-001","payload":{payload},"received_at":""#);
    let time = job.strip_prefix(&head).unwrap_or_else(|| panic!("{job}")).strip_suffix("\"}").expect("the end");
    assert_eq!(time.len(), "2026-04-14T09:00:00+08:00".len(), "{time}");
    assert!(time.ends_with("+08:00") && time.as_bytes()[10] == b'T', "{time}");
}

#[tokio::test]
async fn every_stock_route_has_its_type_and_a_page_of_digits_becomes_an_integer() {
    let (_broker, redis, _gateway, machine) = start().await;
    machine.publish("machine/M-001/heartbeat", r#"{"current_page":"3"}"#).await;
    machine.publish("machine/M-001/error", r#"{"error_code":"E1"}"#).await;
    machine.publish("machine/M-001/transaction", r#"{"transaction_id":"T1","slot_no":5,"amount":"35.00"}"#).await;
    let jobs = redis.list_of(JOBS, 3).await;
    let find = |kind: &str| {
        let start = format!(r#"{{"type":"{kind}","#);
        jobs.iter().find(|job| job.starts_with(&start)).unwrap_or_else(|| panic!("{kind} in {jobs:?}"))
    };
    assert!(find("heartbeat").contains(r#""payload":{"current_page":3}"#));
    assert!(find("error").contains(r#""payload":{"error_code":"E1"}"#));
    assert!(find("transaction").contains(r#""payload":{"transaction_id":"T1","slot_no":5,"amount":"35.00"}"#));
}

#[tokio::test]
async fn what_is_refused_is_a_dead_letter_with_reason_topic_and_bytes() {
    let (_broker, redis, _gateway, machine) = start().await;
    machine.publish("machine/M-001/heartbeat", r#"{"temperature":200}"#).await;
    machine.publish("machine/M-001/heartbeat", vec![0xff, 0xfe]).await;
    let dead = redis.list_of(DEAD, 2).await;
    let dead: Vec<Value> = dead.iter().map(|letter| serde_json::from_str(letter).expect("JSON")).collect();
    assert_eq!(dead[0]["reason"], "temperature: was `200`, must be a number from -60 to 120");
    assert_eq!(dead[0]["topic"], "machine/M-001/heartbeat");
    assert_eq!((&dead[0]["kind"], &dead[0]["route"]), (&"message".into(), &"heartbeat".into()));
    assert_eq!((&dead[0]["serial_no"], &dead[0]["plugin"]), (&"M-001".into(), &"heartbeat".into()));
    assert_eq!(dead[0]["payload"], r#"{"temperature":200}"#);
    assert_eq!((&dead[1]["payload_base64"], dead[1].get("payload")), (&"//4=".into(), None));
    assert_eq!(redis.list(JOBS).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_serial_number_that_could_deceive_a_reader_is_a_dead_letter() {
    let (_broker, redis, _gateway, machine) = start().await;
    let long = "x".repeat(65);
    for serial in ["", &long, "M\u{202e}1", "M\u{200b}1"] {
        machine.publish(&format!("machine/{serial}/heartbeat"), "{}").await;
    }
    machine.publish(&format!("machine/{}/heartbeat", "é".repeat(64)), "{}").await;
    let dead = redis.list_of(DEAD, 4).await;
    for part in ["is empty", "has 65 characters", "202e", "200b"] {
        assert_eq!(dead.iter().filter(|letter| letter.contains(part)).count(), 1, "{part} in {dead:?}");
    }
    assert_eq!(redis.list_of(JOBS, 1).await.len(), 1);
}

#[tokio::test]
async fn json_that_some_back_end_chokes_on_is_a_dead_letter() {
    let (_broker, redis, _gateway, machine) = start().await;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
    for payload in [r#"{"a":"\ud800"}"#, deep.as_str(), r#"{"a":1}{"#, ""] {
        machine.publish("machine/M-001/heartbeat", payload).await;
    }
    let dead = redis.list_of(DEAD, 4).await;
    assert!(dead[0].contains("hex escape") || dead[0].contains("surrogate"), "{}", dead[0]);
    assert!(dead[1].contains("nested more than 64 deep") || dead[1].contains("recursion"), "{}", dead[1]);
    assert_eq!(redis.list(JOBS).await, Vec::<String>::new());
}

#[tokio::test]
async fn every_quality_of_service_is_taken_and_retained_messages_are_no_news() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let machine = Machine::connect(broker.port, "M-001", None).await;
    let options = PublishOptions::new(QoS::AtLeastOnce).retain(true);
    machine.publish_with("machine/M-000/heartbeat", "{}", options).await;
    let _gateway = Gateway::start(broker.port, redis.port).await;
    for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
        let payload = format!(r#"{{"n":{number}}}"#);
        machine.publish_with("machine/M-001/heartbeat", payload, PublishOptions::new(qos)).await;
    }
    let jobs = redis.list_of(JOBS, 3).await;
    for number in 0..3 {
        assert_eq!(jobs.iter().filter(|job| job.contains(&format!(r#"{{"n":{number}}}"#))).count(), 1, "{jobs:?}");
    }
    assert!(!jobs.iter().any(|job| job.contains("M-000")), "{jobs:?}");
}

#[tokio::test]
async fn a_customers_transform_goes_before_the_handler_and_a_prefix_before_every_key() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let more = "[plugins.acme-transform]\npath = \"plugins/acme-transform.wasm\"\n[plugins.heartbeat]\npath = \"plugins/heartbeat.wasm\"\n\
                [plugins.heartbeat.settings]\nmax_temperature = 40\n\
                [[routes]]\nname = \"acme\"\ntype = \"heartbeat\"\ntopic = \"customer/acme/machine/{serial_no}/heartbeat\"\n\
                handlers = [\"acme-transform\", \"heartbeat\"]\nqueue = \"acme_jobs\"\n";
    let settings =
        Gateway::settings(broker.port, redis.port, more).replace("[redis]\n", "[redis]\nkey_prefix = \"laravel_\"\n");
    let mut gateway = Gateway::with(&settings);
    gateway.run().await;
    let machine = Machine::connect(broker.port, "A-7", None).await;
    machine.publish("customer/acme/machine/A-7/heartbeat", r#"{"tempF":77.9,"ui":{"page":"3"}}"#).await;
    machine.publish("customer/acme/machine/A-7/heartbeat", r#"{"tempF":122}"#).await;
    let jobs = redis.list_of("laravel_acme_jobs", 1).await;
    let start = r#"{"type":"heartbeat","serial_no":"A-7","payload":{"temperature":25.5,"current_page":3},"#;
    assert!(jobs[0].starts_with(start), "{}", jobs[0]);
    let dead = redis.list_of("laravel_mqtt_dead_letters", 1).await;
    assert!(dead[0].contains("temperature: was `50`, must be a number from -60 to 40"), "{}", dead[0]);
    assert!(dead[0].contains("tempF"), "the dead letter keeps what the machine sent: {}", dead[0]);
}

#[tokio::test]
async fn the_dead_letters_are_capped() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, "[queues]\ndead_letters_max = 3\n"));
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-001", None).await;
    for number in 0..6 {
        machine.publish("machine/M-001/heartbeat", format!("bad {number}")).await;
    }
    eventually("the newest three are left", async || {
        let dead = redis.list(DEAD).await;
        (dead.len() == 3 && dead[2].contains("bad 5")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_route_without_handlers_passes_json_on_and_nothing_else() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let routes = "[[routes]]\nname = \"command-ack\"\ntopic = \"machine/{serial_no}/command/ack\"\nhandlers = []\n";
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, routes));
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    machine.publish("machine/M-1/command/ack", "not json").await;
    machine.publish("machine/M-1/command/ack", r#"{"message_id":"1"}"#).await;
    gateway.counts(&[("pushed", 1), ("dead", 1)]).await;
    let job = redis.list(JOBS).await.remove(0);
    assert!(job.starts_with(r#"{"type":"command-ack","serial_no":"M-1","payload":{"message_id":"1"},"#), "{job}");
}
