//! What a plugin is given and what it answers, in the host's own types: no engine type crosses this border.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A machine's serial number: 1 to 64 characters, none of which a terminal, a topic or a reader's eye could trip over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SerialNo(Arc<str>);

/// Why a text is no serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SerialNoError {
    /// Nothing stands there.
    #[error("serial_no is empty; it must be 1 to {max} characters", max = SerialNo::MAX_CHARS)]
    Empty,
    /// More than [`SerialNo::MAX_CHARS`] characters.
    #[error("serial_no has {0} characters; it must be 1 to {max}", max = SerialNo::MAX_CHARS)]
    TooLong(usize),
    /// A character that hides or reorders what people read.
    #[error("serial_no holds {}; control and bidirectional characters are not allowed", .0.escape_unicode())]
    Forbidden(char),
}

impl SerialNo {
    /// The longest serial number, in characters.
    pub const MAX_CHARS: usize = 64;

    /// Checks a text.
    ///
    /// # Errors
    /// [`SerialNoError`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, SerialNoError> {
        if text.is_empty() {
            return Err(SerialNoError::Empty);
        }
        let count = text.chars().count();
        if count > Self::MAX_CHARS {
            return Err(SerialNoError::TooLong(count));
        }
        match text.chars().find(|&c| is_deceptive(c)) {
            Some(c) => Err(SerialNoError::Forbidden(c)),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for SerialNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Control characters, and those that turn or hide text: bidirectional controls (Unicode UAX #9), zero-width characters,
/// line and paragraph separators, the byte order mark.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A name and its value: a capture of the topic, or an MQTT 5 user property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// One publish on its way through a chain: what a handler is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic that it was published on.
    pub topic: String,
    /// What the route's named parts matched, in the topic's order.
    pub captures: Vec<Field>,
    /// What was published, or what the handler before made of it.
    pub payload: Bytes,
    /// The MQTT 5 user properties.
    pub properties: Vec<Field>,
    /// RFC 3339 with the configured offset.
    pub received_at: String,
    /// Names the delivery in the log; the same at each attempt.
    pub id: String,
    /// 1, 2, …
    pub attempt: u32,
}

/// A job: JSON for the next handler or the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// JSON text.
    pub payload: Bytes,
    /// What makes it the same as another job of the same machine and route.
    pub idempotency_key: Option<String>,
}

/// A message that a handler wants published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// Whether the broker keeps it.
    pub retain: bool,
}

/// What a handler made of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// For the next handler or the queue.
    Job(Job),
    /// For the broker.
    Publish(Publication),
}

/// A handler's or a validator's "no".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Never right.
    Reject(String),
    /// May be right later.
    Retry(String),
}

/// One command of the back end: what a validator is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestCommand {
    /// The machine.
    pub target: String,
    /// What it is to do.
    pub name: String,
    /// The JSON text of its `payload`; empty where it has none.
    pub payload: Bytes,
    /// The back end's name for it; empty where it has none.
    pub message_id: String,
}
