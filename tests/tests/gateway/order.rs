//! One machine's messages keep their order; none is lost, none doubled.

use std::collections::HashMap;

use serde_json::Value;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};
use tokio::task::JoinSet;

const MACHINES: usize = 20;
const MESSAGES: usize = 300;

#[tokio::test]
async fn each_machines_messages_arrive_once_and_in_order() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let gateway = Gateway::start(broker.port, redis.port).await;
    let mut machines = JoinSet::new();
    for number in 0..MACHINES {
        let port = broker.port;
        machines.spawn(async move {
            let machine = Machine::connect(port, &format!("M-{number}"), None).await;
            for seq in 0..MESSAGES {
                machine.publish(&format!("machine/M-{number}/heartbeat"), format!(r#"{{"seq":{seq}}}"#)).await;
            }
        });
    }
    while let Some(done) = machines.join_next().await {
        done.expect("a machine");
    }
    let jobs = redis.list_of("mqtt_incoming_jobs", MACHINES * MESSAGES).await;
    assert_eq!(jobs.len(), MACHINES * MESSAGES);
    let mut next: HashMap<String, u64> = HashMap::new();
    for job in &jobs {
        let job: Value = serde_json::from_str(job).expect("JSON");
        let next = next.entry(job["serial_no"].as_str().expect("a machine").to_owned()).or_default();
        assert_eq!(job["payload"]["seq"], *next, "{job}");
        *next += 1;
    }
    let all = MACHINES * MESSAGES;
    // Redis shows a job before its answer has reached the gateway.
    eventually("the metrics count all of them", async || {
        let metrics = gateway.text("/metrics").await?;
        let counted =
            |name| metrics.contains(&format!("sluicegate_uplink_{name}_total{{route=\"heartbeat\"}} {all}\n"));
        (counted("received") && counted("pushed")).then_some(())
    })
    .await;
}
