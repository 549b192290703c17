//! A Redis Cluster of real nodes.

use redis::FromRedisValue;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;

use crate::eventually;
use crate::servers::RedisServer;

/// How many nodes share the slots.
const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// Three nodes with a third of the slots each, in their order, and perhaps replicas of one of them.
pub struct Cluster {
    /// The three, then the replicas.
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Three nodes.
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for index in 0..MASTERS {
            let node = RedisServer::start_in_a_cluster().await;
            let (first, last) = (index * SLOTS / MASTERS, (index + 1) * SLOTS / MASTERS - 1);
            node.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1)).await;
            node.command(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await;
            nodes.push(node);
        }
        let cluster = Self { nodes };
        for node in &cluster.nodes[1..] {
            cluster.meet(node).await;
        }
        cluster.agrees().await;
        cluster
    }

    /// Adds a replica of a node.
    pub async fn replicate(&mut self, master: usize) {
        let replica = RedisServer::start_in_a_cluster().await;
        self.meet(&replica).await;
        self.nodes.push(replica);
        self.agrees().await;
        let (replica, master) = (&self.nodes[self.nodes.len() - 1], self.id(master).await);
        eventually("the replica knows its master", async || {
            replica.ask::<String>(&format!("CLUSTER REPLICATE {master}")).await.ok()
        })
        .await;
        eventually("the replica has its master's data", async || {
            let info: String = replica.ask("INFO replication").await.ok()?;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
    }

    async fn meet(&self, node: &RedisServer) {
        self.nodes[0].command(&format!("CLUSTER MEET 127.0.0.1 {} {}", node.port, node.bus())).await;
    }

    /// Waits until every node that runs sees all of them, and that each slot is served.
    pub async fn agrees(&self) {
        for node in self.nodes.iter().filter(|node| node.runs()) {
            let nodes = format!("cluster_known_nodes:{}\r", self.nodes.len());
            eventually("the nodes agree", async || {
                let info: String = node.ask("CLUSTER INFO").await.ok()?;
                (info.contains("cluster_state:ok") && info.contains(&nodes)).then_some(())
            })
            .await;
        }
    }

    async fn id(&self, node: usize) -> String {
        self.nodes[node].ask("CLUSTER MYID").await.expect("a node has an id")
    }

    /// The node that has a key, as those that run see it.
    ///
    /// # Panics
    /// Where none runs, or none has it.
    pub async fn node_of(&self, key: &str) -> usize {
        let asked = self.nodes.iter().find(|node| node.runs()).expect("a node runs");
        let slot: u16 = asked.ask(&format!("CLUSTER KEYSLOT {key}")).await.expect("a slot");
        let nodes: String = asked.ask("CLUSTER NODES").await.expect("the nodes");
        // id ip:port@bus flags master ping pong epoch state slot slot …
        let has = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
        };
        let line = nodes.lines().find(|line| line.split(' ').skip(8).any(has)).expect("a node has each slot");
        self.nodes.iter().position(|node| line.contains(&format!(":{}@", node.port))).expect("a node of this cluster")
    }

    /// Moves the slot of a key to another node, as `redis-cli --cluster reshard` does.
    ///
    /// # Panics
    /// Where a node does not do its part.
    pub async fn move_slot(&self, key: &str, to: usize) {
        let from = self.node_of(key).await;
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let (source_id, target_id) = (self.id(from).await, self.id(to).await);
        let slot: u16 = source.ask(&format!("CLUSTER KEYSLOT {key}")).await.expect("a slot");
        target.command(&format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}")).await;
        source.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}")).await;
        loop {
            let keys: Vec<String> = source.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 10")).await.expect("keys");
            if keys.is_empty() {
                break;
            }
            source.command(&format!("MIGRATE 127.0.0.1 {}  0 10000 KEYS {}", target.port, keys.join(" "))).await;
        }
        for node in [target, source].into_iter().chain(&self.nodes) {
            node.command(&format!("CLUSTER SETSLOT {slot} NODE {target_id}")).await;
        }
    }

    /// A connection to all.
    ///
    /// # Panics
    /// Where they do not answer in time.
    pub async fn connect(&self) -> ClusterConnection {
        let nodes = self.nodes.iter().map(|node| format!("redis://127.0.0.1:{}", node.port));
        let client = ClusterClient::new(nodes).expect("a client");
        eventually("the cluster takes a connection", async || client.get_async_connection().await.ok()).await
    }

    /// A command's answer.
    ///
    /// # Panics
    /// Where the cluster refuses it.
    pub async fn ask<T: FromRedisValue>(&self, line: &str) -> T {
        let mut connection = self.connect().await;
        let answer = crate::servers::command(line).query_async(&mut connection).await;
        answer.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// A list, whole.
    pub async fn list(&self, key: &str) -> Vec<String> {
        self.ask(&format!("LRANGE {key} 0 -1")).await
    }

    /// A list, once it has so many entries.
    pub async fn list_of(&self, key: &str, length: usize) -> Vec<String> {
        eventually(&format!("{key} has {length} entries"), async || {
            let list = self.list(key).await;
            (list.len() >= length).then_some(list)
        })
        .await
    }

    /// Appends entries to a list.
    ///
    /// # Panics
    /// Where the cluster does not answer.
    pub async fn push(&self, key: &str, entries: &[String]) {
        let mut connection = self.connect().await;
        redis::cmd("RPUSH").arg(key).arg(entries).exec_async(&mut connection).await.expect("pushed");
    }
}
