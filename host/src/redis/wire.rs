//! A connection: to one server, or to the nodes of a cluster. Whoever uses it need not know which.

use futures_util::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, Value};

use super::cluster::away;

/// A connection. A pipeline's keys must lie in one slot.
#[derive(Clone)]
pub(super) enum Wire {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Wire {
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Commands of any slots, an answer for each: in one round trip, or on a cluster one for each, at the same time.
    pub(super) async fn each(&mut self, commands: impl Iterator<Item = Cmd>) -> RedisResult<Vec<RedisResult<Value>>> {
        match self {
            Self::Server(_) => {
                let mut pipeline = redis::pipe();
                pipeline.ignore_errors();
                for command in commands {
                    pipeline.add_command(command);
                }
                pipeline.query_async(self).await
            }
            Self::Cluster(_) => Ok(join_all(commands.map(|command| {
                let mut wire = self.clone();
                async move { command.query_async(&mut wire).await }
            }))
            .await),
        }
    }

    /// A command without a key, for the server that has this one.
    pub(super) async fn at<T: FromRedisValue>(&mut self, key: &str, command: Cmd) -> RedisResult<T> {
        match self {
            Self::Server(_) => command.query_async(self).await,
            Self::Cluster(connection) => {
                let node = SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
                let answer = connection.route_command(command, RoutingInfo::SingleNode(node)).await.map_err(away)?;
                Ok(redis::from_redis_value(answer.extract_error()?)?)
            }
        }
    }
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => {
                Box::pin(async move { connection.req_packed_command(command).await.map_err(away) })
            }
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => {
                Box::pin(async move { connection.req_packed_commands(pipeline, offset, count).await.map_err(away) })
            }
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
