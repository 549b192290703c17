//! One part's connection: made when it is needed, and made anew after a silence.

use redis::RedisResult;

use super::connect::{Connector, RedisFault};
use super::wire::Wire;

/// A connection of its own.
pub(super) struct Line {
    connector: Connector,
    connection: Option<Wire>,
}

impl Line {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, connection: None }
    }

    pub(super) fn has_scripts(&self) -> bool {
        self.connector.has_scripts()
    }

    /// The connection, made where there is none.
    pub(super) async fn get(&mut self) -> Result<&mut Wire, RedisFault> {
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
            _ => {
                self.connection = None;
                error.into()
            }
        })
    }
}
