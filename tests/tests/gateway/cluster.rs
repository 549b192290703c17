//! A Redis Cluster of three nodes, with a key prefix: the same promises, and each atomic step in one slot.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluicegate_tests::gateway::{plugins, route};
use sluicegate_tests::{Broker, Cluster, Gateway, Machine, RedisServer, eventually};

const JOBS: &str = "laravel_database_mqtt_incoming_jobs";
const ERRORS: &str = "laravel_database_errors";
const DEAD: &str = "laravel_database_mqtt_dead_letters";
const COMMANDS: &str = "laravel_database_mqtt_outgoing_commands";
const RESULTS: &str = "laravel_database_command_results";

/// The built-in plugins and routes, with two lists of jobs and one of results.
fn routes() -> String {
    let names = ["heartbeat", "error", "transaction", "command-validation"];
    format!(
        "[queues]\ndead_letters_max = 3\ncommand_results = \"command_results\"\n{}\
         [plugins.command-validation.settings]\ncommands = \"reboot\"\n{}{}{}",
        plugins(&names),
        route("heartbeat", ""),
        route("error", "queue = \"errors\""),
        route("transaction", "dedupe = \"1d\"")
    )
}

fn settings(broker: &Broker, redis: &RedisServer, more: &str) -> String {
    let keys = format!("cluster = true\nkey_prefix = \"laravel_database_\"\n{more}\n[admin]");
    Gateway::settings(broker.port, redis.port, &routes()).replace("[admin]", &keys)
}

/// `redis.url` is this node's.
async fn start(broker: &Broker, redis: &RedisServer, more: &str) -> Gateway {
    let mut gateway = Gateway::with(&settings(broker, redis, more));
    gateway.run().await;
    gateway
}

fn transaction(seq: u64) -> String {
    format!(r#"{{"transaction_id":"T-{seq}","slot_no":1,"amount":"2.50","seq":{seq}}}"#)
}

async fn transactions(machine: &Machine, range: std::ops::Range<u64>) {
    for seq in range {
        machine.publish("machine/M-1/transaction", transaction(seq)).await;
    }
}

fn command(seq: usize) -> String {
    format!(r#"{{"target":"M-{}","command":"reboot","payload":[],"message_id":"{seq}","expires_in":600}}"#, seq % 5)
}

fn processing(instance: &str) -> String {
    format!("{{{COMMANDS}}}:processing:{instance}")
}

async fn sequence(cluster: &Cluster, list: &str) -> Vec<u64> {
    let jobs = cluster.list(list).await;
    jobs.iter().filter_map(|job| serde_json::from_str::<Value>(job).expect("JSON")["payload"]["seq"].as_u64()).collect()
}

/// Once each and in order.
async fn arrive(cluster: &Cluster, count: u64) {
    let expected: Vec<u64> = (0..count).collect();
    let arrived = eventually(&format!("{count} messages are in the list"), async || {
        let arrived = sequence(cluster, JOBS).await;
        expected.iter().all(|seq| arrived.contains(seq)).then_some(arrived)
    })
    .await;
    assert_eq!(arrived, expected, "once and in order");
}

/// Each command once, those of each machine in order.
async fn commanded(machines: &mut Machine, range: std::ops::Range<usize>) {
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    for _ in range.clone() {
        let (topic, body) = machines.next().await;
        let first = (range.start..).find(|seq| topic.starts_with(&format!("machine/M-{}/", seq % 5)));
        let seq = next.entry(topic).or_insert_with(|| first.expect("a machine"));
        assert_eq!(body, command(*seq));
        *seq += 5;
    }
}

async fn nothing_stands(cluster: &Cluster, instances: &[&str]) {
    eventually("nothing stands in the lists of commands", async || {
        for list in instances.iter().map(|name| processing(name)).chain([COMMANDS.to_owned()]) {
            if !cluster.list(&list).await.is_empty() {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn lists_of_several_slots_get_what_is_theirs_and_a_transaction_is_pushed_once() {
    let (broker, cluster) = (Broker::start().await, Cluster::start().await);
    let nodes: BTreeSet<usize> =
        [cluster.node_of(JOBS).await, cluster.node_of(ERRORS).await, cluster.node_of(DEAD).await].into();
    assert_eq!(nodes.len(), 3, "a node for each list");
    let gateway = start(&broker, &cluster.nodes[0], "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    // At the same time, so that one batch has jobs for several lists.
    let heartbeats = async {
        for seq in 0..200 {
            machine.publish("machine/M-1/heartbeat", format!(r#"{{"seq":{seq}}}"#)).await;
        }
    };
    let errors = async {
        for seq in 0..200 {
            machine.publish("machine/M-1/error", format!(r#"{{"error_code":1,"seq":{seq}}}"#)).await;
        }
    };
    let twice = async {
        for _ in 0..2 {
            for id in 0..50 {
                machine.publish("machine/N-1/transaction", transaction(id).replace("seq", "number")).await;
            }
            for node in &cluster.nodes {
                node.command("SCRIPT FLUSH").await;
            }
        }
    };
    let letters = async {
        for _ in 0..10 {
            machine.publish("machine/N-2/heartbeat", "not JSON").await;
        }
    };
    tokio::join!(heartbeats, errors, twice, letters);
    gateway.counts(&[("received", 510), ("pushed", 450), ("suppressed", 50), ("dead", 10)]).await;
    let expected: Vec<u64> = (0..200).collect();
    assert_eq!(sequence(&cluster, JOBS).await, expected);
    assert_eq!(sequence(&cluster, ERRORS).await, expected);
    assert_eq!(cluster.list(JOBS).await.len(), 250);
    assert_eq!(cluster.list(DEAD).await.len(), 3, "the newest are kept");
    for complaint in ["does not take", "waits in the spool"] {
        assert!(!gateway.log().contains(complaint), "{}", gateway.log());
    }
}

#[tokio::test]
async fn commands_are_sent_once_and_those_of_an_instance_that_died_are_taken_over() {
    let (broker, cluster) = (Broker::start().await, Cluster::start().await);
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/+/command")).await;
    cluster.push(&processing("dead"), &(0..50).map(command).collect::<Vec<_>>()).await;
    let _: i64 = cluster.ask(&format!("SADD {{{COMMANDS}}}:instances dead")).await;
    let mut gateway = start(&broker, &cluster.nodes[1], "").await;
    commanded(&mut machines, 0..50).await;
    // Each twice, and some that were sent before.
    let again: Vec<String> = (50..150).chain(50..150).chain(0..10).map(command).collect();
    cluster.push(COMMANDS, &again).await;
    commanded(&mut machines, 50..150).await;
    nothing_stands(&cluster, &["dead", "gateway-1"]).await;
    let told = cluster.list_of(RESULTS, 260).await;
    let count = |status: &str| told.iter().filter(|result| result.contains(&format!(r#""status":"{status}""#))).count();
    assert_eq!((count("sent"), count("duplicate")), (150, 110), "{told:?}");
    let wrong = command(1_000).replace("reboot", "format");
    cluster.push(COMMANDS, &[wrong]).await;
    assert!(cluster.list_of(DEAD, 1).await[0].contains("reboot"));
    let lease: i64 = cluster.ask(&format!("PTTL {{{COMMANDS}}}:lease:gateway-1")).await;
    assert!(lease > 0, "{lease}");
    gateway.kill();
    for node in &cluster.nodes {
        node.command("SCRIPT FLUSH").await;
    }
    gateway.run().await;
    cluster.push(COMMANDS, &[command(0), command(150)]).await;
    commanded(&mut machines, 150..151).await;
}

#[tokio::test]
async fn a_node_that_is_killed_and_restarted_costs_nothing_and_doubles_nothing() {
    let (broker, mut cluster) = (Broker::start().await, Cluster::start().await);
    let node = cluster.node_of(JOBS).await;
    // It is the node of `redis.url` too.
    let gateway = start(&broker, &cluster.nodes[node], "").await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/+/command")).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    for round in 0..3_u64 {
        let killed = (node + usize::try_from(round).expect("small")) % 3;
        transactions(&machine, round * 100..round * 100 + 30).await;
        cluster.nodes[killed].kill();
        transactions(&machine, round * 100 + 30..round * 100 + 80).await;
        cluster.nodes[killed].restart().await;
        transactions(&machine, round * 100 + 80..round * 100 + 100).await;
        cluster.agrees().await;
        let round = usize::try_from(round).expect("small");
        cluster.push(COMMANDS, &(round * 50..round * 50 + 50).map(command).collect::<Vec<_>>()).await;
        commanded(&mut machines, round * 50..round * 50 + 50).await;
    }
    arrive(&cluster, 300).await;
    gateway.counts(&[("received", 300), ("in_flight", 0), ("spooled", 0)]).await;
    arrive(&cluster, 300).await;
    nothing_stands(&cluster, &["gateway-1"]).await;
    gateway.ready().await;
}

#[tokio::test]
async fn a_node_that_hangs_holds_up_no_acknowledgement_and_nothing_is_doubled() {
    let (broker, cluster) = (Broker::start().await, Cluster::start().await);
    let node = cluster.node_of(JOBS).await;
    let mut gateway = start(&broker, &cluster.nodes[node], "").await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    transactions(&machine, 0..50).await;
    arrive(&cluster, 50).await;
    cluster.nodes[node].freeze();
    transactions(&machine, 50..100).await;
    gateway.counts(&[("received", 100), ("pushed", 50), ("spooled", 50), ("in_flight", 0)]).await;
    // Whoever starts meanwhile must not wait for it either.
    gateway.kill();
    gateway.spawn().await;
    transactions(&machine, 100..150).await;
    // Some come again: what acknowledged them was on its way when the gateway was killed.
    let spooled = async || gateway.messages().await.filter(|messages| messages["spooled"].as_u64() >= Some(100));
    eventually("all wait in the spool", spooled).await;
    gateway.counts(&[("in_flight", 0)]).await;
    cluster.nodes[node].thaw();
    cluster.agrees().await;
    arrive(&cluster, 150).await;
    gateway.counts(&[("in_flight", 0), ("spooled", 0)]).await;
    arrive(&cluster, 150).await;
}

#[tokio::test]
async fn a_replica_that_takes_over_has_every_job_once() {
    let (broker, mut cluster) = (Broker::start().await, Cluster::start().await);
    let master = cluster.node_of(JOBS).await;
    cluster.replicate(master).await;
    let replica = cluster.nodes.len() - 1;
    let other = cluster.nodes[(master + 1) % 3].port;
    let more = format!("wait_replicas = 1\ncluster_nodes = [\"127.0.0.1:{other}\"]");
    let mut gateway = start(&broker, &cluster.nodes[master], &more).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    transactions(&machine, 0..100).await;
    arrive(&cluster, 100).await;
    let ((), killed) = tokio::join!(transactions(&machine, 100..200), async {
        cluster.nodes[master].kill();
        cluster
    });
    cluster = killed;
    eventually("the replica takes over", async || (cluster.node_of(JOBS).await == replica).then_some(())).await;
    gateway.counts(&[("received", 200), ("in_flight", 0)]).await;
    // Without the node of `redis.url`, it finds the others; but nobody confirms what `wait_replicas` waits for.
    gateway.kill();
    gateway.run().await;
    transactions(&machine, 200..250).await;
    gateway.says("0 of 1 replicas confirm what is pushed").await;
    assert!(gateway.messages().await.is_some_and(|messages| messages["pushed"] == 0));
    // It comes back as the replica of the one that was its own.
    cluster.nodes[master].restart().await;
    arrive(&cluster, 250).await;
    gateway.counts(&[("in_flight", 0), ("spooled", 0)]).await;
    arrive(&cluster, 250).await;
    let silent = async || gateway.get("/readyz").await?["notices"].as_array()?.is_empty().then_some(());
    eventually("replicas confirm again", silent).await;
}

#[tokio::test]
async fn slots_that_move_under_load_lose_and_double_nothing() {
    let (broker, cluster) = (Broker::start().await, Cluster::start().await);
    let gateway = start(&broker, &cluster.nodes[0], "").await;
    let mut machines = Machine::connect(broker.port, "machines", Some("machine/+/command")).await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    let moving = async {
        for _ in 0..3 {
            for list in [JOBS, COMMANDS] {
                let to = (cluster.node_of(list).await + 1) % 3;
                cluster.move_slot(list, to).await;
            }
        }
    };
    let commands = async {
        for seq in 0..100 {
            cluster.push(COMMANDS, &[command(seq)]).await;
        }
    };
    tokio::join!(transactions(&machine, 0..1_000), moving, commands);
    arrive(&cluster, 1_000).await;
    commanded(&mut machines, 0..100).await;
    nothing_stands(&cluster, &["gateway-1"]).await;
    gateway.counts(&[("received", 1_000), ("in_flight", 0), ("spooled", 0)]).await;
    arrive(&cluster, 1_000).await;
}

#[tokio::test]
async fn whoever_says_cluster_and_has_none_or_the_other_way_round_is_told() {
    let (broker, cluster, redis) = (Broker::start().await, Cluster::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&settings(&broker, &redis, ""));
    gateway.spawn().await;
    gateway.says("set redis.cluster = false").await;
    drop(gateway);
    let node = &cluster.nodes[(cluster.node_of(JOBS).await + 1) % 3];
    let mut gateway = Gateway::with(&settings(&broker, node, "").replace("cluster = true", "cluster = false"));
    // It is subscribed before anything is published.
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-1", None).await;
    transactions(&machine, 0..1).await;
    gateway.says("set redis.cluster = true").await;
    gateway.counts(&[("spooled", 1)]).await;
}
