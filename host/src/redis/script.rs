//! Scripts: called by their digest, and sent whole to a server that does not know them.

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs};

use super::wire::Wire;

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

    /// The beginning of a call; how many keys, the keys and the arguments follow. `whole` tells the server the script too: SCRIPT LOAD
    /// would have to reach every node of a cluster, this reaches the one that has the keys.
    pub(super) fn call(&self, whole: bool) -> Cmd {
        let mut command = redis::cmd(if whole { "EVAL" } else { "EVALSHA" });
        command.arg(if whole { self.code } else { self.digest.get_hash() });
        command
    }

    /// Runs it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        wire: &mut Wire,
        keys: &[&str],
        arguments: &[impl ToRedisArgs],
    ) -> RedisResult<T> {
        let mut call = self.call(false);
        match call.arg(keys.len()).arg(keys).arg(arguments).query_async(wire).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.call(true).arg(keys.len()).arg(keys).arg(arguments).query_async(wire).await
            }
            answer => answer,
        }
    }
}
