//! A new build is tried on the last real messages before it is live, and judged by how it does once it is.

use serde_json::Value;
use sluicegate_guests::Guest;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

const JOBS: &str = "mqtt_incoming_jobs";
const DEAD: &str = "mqtt_dead_letters";

/// A gateway whose one plugin takes all that comes.
async fn start(broker: &Broker, redis: &RedisServer, rules: &str) -> Gateway {
    let settings = format!(
        "[plugins.obedient]\npath = \"plugins/obedient.wasm\"\n{rules}[[routes]]\nname = \"obedient\"\n\
         topic = \"machine/{{serial_no}}/do\"\nhandlers = [\"obedient\"]\n"
    );
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &settings));
    gateway.install("obedient", &Guest::echo().handler());
    gateway.run().await;
    gateway
}

async fn publish(machine: &Machine, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        machine.publish("machine/M-1/do", format!(r#"{{"seq":{seq}}}"#)).await;
    }
}

/// Refuses everything; it has no samples that would tell.
fn refusing() -> Guest {
    let reject = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 0))
        (i32.store (i32.const 1032) (i32.const 512)) (i32.store (i32.const 1036) (i32.const 7)) (i32.const 1024)";
    let data = r#"(data (i32.const 512) "refused")"#.to_owned();
    Guest { extra: data, ..Guest::doing(reject) }
}

/// The second build is live, and judged.
async fn is_on_probation(gateway: &Gateway) {
    eventually("it is live", async || (gateway.generation("obedient").await? == 2).then_some(())).await;
    eventually("it is on probation", async || {
        gateway.plugin("obedient").await?["probation_until"].is_string().then_some(())
    })
    .await;
}

/// Handled 50 messages, and has a build on probation that refuses everything; the digest of the one before.
async fn with_a_refusing_build(broker: &Broker, redis: &RedisServer) -> (Gateway, Machine, Value) {
    let rules = "rehearse = { messages = 0 }\nprobation = { min_calls = 40 }\n";
    with_a_build(broker, redis, rules, 50, &refusing().handler()).await
}

/// The same after 10 messages, with a build that is slow and is judged by 5 calls.
async fn with_a_slow_build(broker: &Broker, redis: &RedisServer, build: &[u8]) -> (Gateway, Machine, Value) {
    let rules = format!("{PATIENT}rehearse = {{ messages = 0 }}\nprobation = {{ min_calls = 5 }}\n");
    with_a_build(broker, redis, &rules, 10, build).await
}

async fn with_a_build(
    broker: &Broker,
    redis: &RedisServer,
    rules: &str,
    messages: u64,
    build: &[u8],
) -> (Gateway, Machine, Value) {
    let gateway = start(broker, redis, rules).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..messages).await;
    redis.list_of(JOBS, usize::try_from(messages).expect("few")).await;
    let good = gateway.plugin("obedient").await.expect("it")["live"]["digest"].clone();
    gateway.install("obedient", build);
    is_on_probation(&gateway).await;
    (gateway, machine, good)
}

/// Publishes on until the build before is live again; how many there were by then.
async fn until_it_is_back(gateway: &Gateway, machine: &Machine, good: &Value) -> u64 {
    let mut seq = 50;
    eventually("the build before is live again", async || {
        publish(machine, seq..seq + 10).await;
        seq += 10;
        (gateway.plugin("obedient").await?["live"]["digest"] == *good).then_some(())
    })
    .await;
    seq
}

/// Why a build did not stay, or never was live.
async fn refusal(gateway: &Gateway) -> Value {
    eventually("a build is refused", async || {
        let refusal = gateway.plugin("obedient").await?["last_refusal"].clone();
        refusal.is_object().then_some(refusal)
    })
    .await
}

#[tokio::test]
async fn a_build_that_fails_at_the_last_real_messages_is_never_live_and_the_difference_can_be_read() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..50).await;
    redis.list_of(JOBS, 50).await;
    gateway.install("obedient", &refusing().handler());
    let refusal = refusal(&gateway).await;
    assert_eq!(refusal["step"], "rehearsed");
    let reason = refusal["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("worse than the live build: 100.00 % of its calls fail, where 0.00 % did before"),
        "{reason}"
    );
    assert_eq!(gateway.generation("obedient").await, Some(1));
    let shown = gateway.get("/api/plugins/obedient/rehearsal").await.expect("an answer");
    assert_eq!((&shown["report"]["messages"], &shown["report"]["new_failures"]), (&50.into(), &50.into()));
    let text = shown["text"].as_str().expect("a text");
    assert!(text.contains("\n  machine/M-1/do {\"seq\":0}\n- job {\"seq\":0}\n+ failed: refused\n"), "{text}");
    // In shadow: nothing was sent, nothing counted.
    gateway.counts(&[("received", 50), ("pushed", 50), ("dead", 0)]).await;
    assert_eq!(gateway.plugin("obedient").await.expect("it")["usage"]["calls"], 50);
    publish(&machine, 50..60).await;
    redis.list_of(JOBS, 60).await;
}

/// How long the slow build of these tests sleeps in each call: so many times as long as one that does nothing takes, on any machine.
const SLEEP: u32 = 200;
/// Time enough for it.
const PATIENT: &str = "limits.call_timeout = \"20s\"\n";

#[tokio::test]
async fn a_build_that_is_slow_on_the_last_real_messages_is_never_live() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, PATIENT).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    // All of them with both builds are well within the time that a rehearsal has.
    publish(&machine, 0..60).await;
    redis.list_of(JOBS, 60).await;
    gateway.install("obedient", &Guest::echo_after(SLEEP / 4));
    let refusal = refusal(&gateway).await;
    assert_eq!(refusal["step"], "rehearsed");
    let reason = refusal["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("worse than the live build: a call takes ") && reason.contains("; 5 times that"),
        "{reason}"
    );
    assert_eq!(gateway.generation("obedient").await, Some(1));
    let shown = gateway.get("/api/plugins/obedient/rehearsal").await.expect("an answer");
    assert_eq!(shown["report"]["new_failures"], 0, "it is right, and slow: {shown}");
    publish(&machine, 60..70).await;
    redis.list_of(JOBS, 70).await;
}

#[tokio::test]
async fn a_build_that_is_slow_once_it_is_live_is_rolled_back_and_loses_nothing() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let (gateway, machine, good) = with_a_slow_build(&broker, &redis, &Guest::echo_after(SLEEP)).await;
    publish(&machine, 10..20).await;
    eventually("the build before is live again", async || {
        (gateway.plugin("obedient").await?["live"]["digest"] == good).then_some(())
    })
    .await;
    let refusal = gateway.plugin("obedient").await.expect("it")["last_refusal"].clone();
    assert_eq!(refusal["step"], "probation");
    let reason = refusal["reason"].as_str().expect("a reason");
    assert!(reason.contains("a call takes ") && reason.contains("; 5 times that is allowed"), "{reason}");
    publish(&machine, 20..30).await;
    let jobs = redis.list_of(JOBS, 30).await;
    let seqs: Vec<&str> =
        jobs.iter().filter_map(|job| job.split_once(r#"{"seq":"#)?.1.split_once('}')).map(|(seq, _)| seq).collect();
    assert_eq!(seqs, (0..30).map(|seq| seq.to_string()).collect::<Vec<_>>());
    assert_eq!(redis.list(DEAD).await.len(), 0);
}

/// Messages of one machine wait for each other: those that have not begun when the build before is back are its.
#[tokio::test]
async fn what_waits_when_a_build_is_rolled_back_is_handled_by_the_build_before() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let (_gateway, machine, _) = with_a_slow_build(&broker, &redis, &refusing().after(SLEEP)).await;
    publish(&machine, 10..200).await;
    let dead = eventually("all are in one of the lists", async || {
        let (jobs, dead) = (redis.list(JOBS).await.len(), redis.list(DEAD).await.len());
        (jobs + dead == 200).then_some(dead)
    })
    .await;
    // All of them take it 38 s.
    assert!((5..100).contains(&dead), "{dead}");
    let jobs = redis.list(JOBS).await;
    let last =
        jobs.iter().skip(10).map(|job| job.split_once(r#"{"seq":"#).expect("it").1.split_once('}').expect("it").0);
    assert_eq!(last.collect::<Vec<_>>(), (10 + dead..200).map(|seq| seq.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_edit_of_its_section_ends_no_probation() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let (gateway, machine, good) = with_a_refusing_build(&broker, &redis).await;
    let settings = std::fs::read_to_string(gateway.path("sluicegate.toml")).expect("settings");
    let edited = settings.replace("[[routes]]", "[plugins.obedient.settings]\ncolour = \"green\"\n[[routes]]");
    std::fs::write(gateway.path("sluicegate.toml"), edited).expect("written");
    eventually("the edit is in force", async || (gateway.generation("obedient").await? == 3).then_some(())).await;
    until_it_is_back(&gateway, &machine, &good).await;
}

#[tokio::test]
async fn a_build_that_does_worse_once_it_is_live_is_rolled_back_while_traffic_flows() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let (gateway, machine, good) = with_a_refusing_build(&broker, &redis).await;
    let mut seq = until_it_is_back(&gateway, &machine, &good).await;
    let plugin = gateway.plugin("obedient").await.expect("it");
    assert_eq!(plugin["last_refusal"]["step"], "probation");
    assert!(plugin["probation_until"].is_null(), "{plugin}");
    let history = gateway.get("/api/history").await.expect("an answer");
    let last = history["changes"].as_array().and_then(|changes| changes.first()).expect("a change").clone();
    assert_eq!((&last["who"], &last["what"]), (&"rollback".into(), &"rollback".into()), "{last}");
    publish(&machine, seq..seq + 10).await;
    seq += 10;
    let refused = eventually("all are in one of the lists", async || {
        let (jobs, dead) = (redis.list(JOBS).await.len() as u64, redis.list(DEAD).await.len() as u64);
        (jobs + dead == seq).then_some(dead)
    })
    .await;
    assert!(refused >= 40, "{refused}");
    gateway.counts(&[("received", seq), ("dead", refused), ("pushed", seq - refused), ("in_flight", 0)]).await;
    gateway.says("was rolled back (100.00 % of its calls fail").await;
    // The same file is not tried again; another one is.
    let generation = gateway.generation("obedient").await.expect("one");
    let mended = Guest { pages: 3, ..Guest::echo() }.handler();
    gateway.install("obedient", &mended);
    eventually("the mended build is live", async || {
        (gateway.generation("obedient").await? == generation + 1).then_some(())
    })
    .await;
}

/// Its breaker lets a call through now and then: it would never come to `min_calls`.
#[tokio::test]
async fn a_build_that_fails_at_everything_is_rolled_back_however_few_its_calls_are() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "rehearse = { messages = 0 }\n").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..10).await;
    redis.list_of(JOBS, 10).await;
    gateway.install("obedient", &Guest::doing("unreachable").handler());
    is_on_probation(&gateway).await;
    // Of one machine alone, it may be that machine's doing.
    for seq in 10..30 {
        machine.publish(&format!("machine/M-{seq}/do"), format!(r#"{{"seq":{seq}}}"#)).await;
    }
    let refusal = refusal(&gateway).await;
    assert_eq!(refusal["step"], "probation", "{refusal}");
    assert_eq!(
        refusal["reason"].as_str().map(|reason| reason.contains("it fails at everything")),
        Some(true),
        "{refusal}"
    );
    redis.list_of(JOBS, 30).await;
    assert_eq!(redis.list(DEAD).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_build_that_answers_none_of_the_last_messages_in_time_is_never_live() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = start(&broker, &redis, "limits = { call_timeout = \"20s\" }\n").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    publish(&machine, 0..3).await;
    redis.list_of(JOBS, 3).await;
    gateway.install("obedient", &Guest::doing("(loop $again (br $again)) unreachable").handler());
    let refusal = refusal(&gateway).await;
    assert_eq!(refusal["step"], "rehearsed", "{refusal}");
    assert_eq!(gateway.generation("obedient").await, Some(1));
    publish(&machine, 3..6).await;
    redis.list_of(JOBS, 6).await;
}
