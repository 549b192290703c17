//! A Redis cluster: where its nodes are, how they are connected to, what their answers mean. It knows no key of this gateway.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind, TlsCertificates, Value,
};

/// How long the connection to one node may take: a node that hangs holds up what is for the others no longer than this.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the connection to all of them may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the nodes of a cluster are.
pub(super) struct Nodes {
    /// That of `redis.url`, with what all of them want: user, password, TLS.
    first: ConnectionInfo,
    /// Whom to trust, and what to show, where that is not the system's.
    certificates: Option<TlsCertificates>,
    /// Those of `redis.cluster_nodes`.
    named: Vec<(String, u16)>,
    /// Where all were when last seen: the first may be the one that is away. The lock is held for a look only.
    seen: Mutex<Vec<(String, u16)>>,
}

impl Nodes {
    pub(super) fn new(first: ConnectionInfo, certificates: Option<TlsCertificates>, named: &[(String, u16)]) -> Self {
        Self { first, certificates, named: named.to_vec(), seen: Mutex::default() }
    }

    /// Connects to all that are there; one must be. `response` is how long an answer may take.
    pub(super) async fn connect(&self, response: Duration) -> RedisResult<ClusterConnection> {
        let builder = ClusterClientBuilder::new(self.all());
        let builder = match &self.certificates {
            Some(certificates) => builder.certs(certificates.clone()),
            None => builder,
        };
        let client = builder
            .tcp_settings(self.first.tcp_settings().clone())
            .connection_timeout(NODE_TIMEOUT)
            .response_timeout(response)
            // The library repeats in silence, a command whose answer was lost and a pipeline that was done in part too: a move would
            // be done twice, and what the first one moved pass the next. So it repeats nothing. It looks for the slots anew all the
            // same, and whoever asked asks again, as of a single server.
            .retries(0)
            .build()?;
        let connect = async {
            let mut connection = client.get_async_connection().await?;
            let mut slots = redis::cmd("CLUSTER");
            slots.arg("SLOTS");
            let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
            let slots = connection.route_command(slots, any).await?.extract_error()?;
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = addresses(&slots);
            Ok(connection)
        };
        let late = |_| RedisError::from(io::Error::new(io::ErrorKind::TimedOut, "the cluster's nodes do not answer"));
        tokio::time::timeout(TIMEOUT, connect).await.map_err(late)?
    }

    fn all(&self) -> Vec<ConnectionInfo> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = vec![self.first.clone()];
        for (host, port) in self.named.iter().cloned().chain(seen) {
            let address = self.address(host, port);
            if !all.iter().any(|known| *known.addr() == address) {
                all.push(self.first.clone().set_addr(address));
            }
        }
        all
    }

    fn address(&self, host: String, port: u16) -> ConnectionAddr {
        match self.first.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        }
    }
}

/// Hosts and ports in the answer to `CLUSTER SLOTS`: ranges, each with first, last, and its nodes as (host, port, …).
fn addresses(slots: &Value) -> Vec<(String, u16)> {
    fn items(value: &Value) -> &[Value] {
        if let Value::Array(items) = value { items } else { &[] }
    }
    let mut found = Vec::new();
    for node in items(slots).iter().flat_map(|range| items(range).iter().skip(2)) {
        let [Value::BulkString(host), Value::Int(port), ..] = items(node) else { continue };
        let (Ok(host), Ok(port)) = (std::str::from_utf8(host), u16::try_from(*port)) else { continue };
        // "?" is a host that the answering node does not know.
        let address = (host.to_owned(), port);
        if !host.is_empty() && host != "?" && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// What a cluster answers while it has nobody for a key, made into what it is: the server is away.
pub(super) fn away(error: RedisError) -> RedisError {
    let ErrorKind::Server(kind) = error.kind() else { return error };
    let text = match (kind, error.redirect_node()) {
        // The slots were looked for anew already.
        (ServerErrorKind::Moved, Some((node, slot))) => {
            format!("slot {slot} lies on the node {node}, which does not answer or has it only now")
        }
        (ServerErrorKind::ReadOnly, _) => "the node of the slot has become a replica".to_owned(),
        (
            ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::BusyLoading,
            _,
        ) => format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default()),
        _ => return error,
    };
    io::Error::new(io::ErrorKind::NotConnected, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(answer: &str) -> Value {
        redis::parse_redis_value(answer.as_bytes()).expect("RESP")
    }

    #[test]
    fn the_nodes_are_read_once_each() {
        let node = |host: &str, port: u16| format!("*3\r\n${}\r\n{host}\r\n:{port}\r\n$2\r\nid\r\n", host.len());
        let range = |nodes: &[String]| format!("*{}\r\n:0\r\n:9\r\n{}", nodes.len() + 2, nodes.concat());
        let slots = [range(&[node("a", 1), node("b", 2)]), range(&[node("a", 1), node("", 3), node("?", 4)])];
        let slots = parsed(&format!("*2\r\n{}", slots.concat()));
        assert_eq!(addresses(&slots), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(addresses(&Value::Nil), []);
    }

    #[test]
    fn what_says_that_nobody_has_the_key_has_no_code_and_the_rest_is_a_refusal() {
        let error = |answer: &str| away(parsed(&format!("-{answer}\r\n")).extract_error().expect_err("an error"));
        for (answer, said) in [
            ("MOVED 7 host:1", "slot 7 lies on the node host:1, which does not answer or has it only now"),
            ("ASK 7 host:1", "ASK 7 host:1"),
            ("TRYAGAIN Multiple keys", "TRYAGAIN Multiple keys"),
            ("CLUSTERDOWN Hash slot not served", "CLUSTERDOWN Hash slot not served"),
            ("LOADING Redis is loading", "LOADING Redis is loading"),
            ("READONLY You can't write", "the node of the slot has become a replica"),
        ] {
            let error = error(answer);
            assert_eq!((error.code(), error.to_string().as_str()), (None, said));
        }
        for (answer, code) in
            [("OOM command", "OOM"), ("WRONGTYPE Operation", "WRONGTYPE"), ("NOSCRIPT No", "NOSCRIPT")]
        {
            assert_eq!(error(answer).code(), Some(code));
        }
    }
}
