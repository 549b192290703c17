//! Scripts: called by their digest, and sent whole to a server that does not know them.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs};

/// A script and its digest.
#[derive(Debug, Clone)]
pub(super) struct Script {
    code: &'static str,
    digest: redis::Script,
}

impl Script {
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, digest: redis::Script::new(code) }
    }

    /// Runs it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        keys: &[&str],
        arguments: &[impl ToRedisArgs],
    ) -> RedisResult<T> {
        let call = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        match call("EVALSHA", self.digest.get_hash()).query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                call("EVAL", self.code).query_async(connection).await
            }
            answer => answer,
        }
    }
}
