//! One part's connection: made when it is needed, and made anew after a silence.

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use super::connect::{Connector, RedisFault};

/// A connection of its own.
pub(super) struct Line {
    connector: Connector,
    connection: Option<MultiplexedConnection>,
}

impl Line {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, connection: None }
    }

    /// The connection, made where there is none.
    pub(super) async fn get(&mut self) -> Result<&mut MultiplexedConnection, RedisFault> {
        if self.connection.is_none() {
            self.connection = Some(self.connector.connect().await?);
        }
        self.connection.as_mut().ok_or_else(|| RedisFault::Unavailable("no connection".to_owned()))
    }

    /// What an answer about a key means. After none the connection is made anew: what is still under way on it belongs to nobody. So it is
    /// where another server may say yes.
    pub(super) fn heard<T>(&mut self, key: &str, answer: RedisResult<T>) -> Result<T, RedisFault> {
        answer.map_err(|error| match RedisFault::answered(key, &error) {
            fault @ RedisFault::Refused { .. } if !fault.is_of_the_server() => fault,
            fault => {
                self.connection = None;
                RedisFault::Unavailable(match fault {
                    RedisFault::Refused { answer, .. } => answer,
                    _ => error.to_string(),
                })
            }
        })
    }
}
