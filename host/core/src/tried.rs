//! What builds are tried on: a message or a command that was handled before, and how it is written down for another process.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::dead_letter::text_or_base64;
use crate::message::{Field, GuestCommand, Message};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// For a handler, as it was given it.
    Message(Arc<Message>),
    /// For a validator.
    Command(Arc<GuestCommand>),
}

impl Tried {
    /// What it is about, for people: its topic, or the machine and what it is to do.
    #[must_use]
    pub fn about(&self) -> String {
        match self {
            Self::Message(message) => message.topic.clone(),
            Self::Command(command) => format!("{} {}", command.target, command.name),
        }
    }

    /// What it holds.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Message(message) => &message.payload,
            Self::Command(command) => &command.payload,
        }
    }
}

/// The same as JSON: its payload as text, or in base64 where it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of the interface")]
pub enum Written {
    Message {
        topic: String,
        captures: Vec<(String, String)>,
        properties: Vec<(String, String)>,
        received_at: String,
        id: String,
        attempt: u32,
        #[serde(flatten)]
        payload: Payload,
    },
    Command {
        target: String,
        command: String,
        message_id: String,
        #[serde(flatten)]
        payload: Payload,
    },
}

/// A payload: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Payload {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl Payload {
    fn of(bytes: &[u8]) -> Self {
        let (payload, payload_base64) = text_or_base64(bytes);
        Self { payload: payload.map(str::to_owned), payload_base64 }
    }

    fn bytes(self) -> Option<Vec<u8>> {
        match (self.payload, self.payload_base64) {
            (Some(text), _) => Some(text.into_bytes()),
            (None, Some(base64)) => STANDARD.decode(base64).ok(),
            (None, None) => None,
        }
    }
}

impl From<&Tried> for Written {
    fn from(tried: &Tried) -> Self {
        let pairs = |fields: &[Field]| fields.iter().map(|field| (field.name.clone(), field.value.clone())).collect();
        let payload = Payload::of(tried.payload());
        match tried {
            Tried::Message(message) => Self::Message {
                topic: message.topic.clone(),
                captures: pairs(&message.captures),
                properties: pairs(&message.properties),
                received_at: message.received_at.clone(),
                id: message.id.clone(),
                attempt: message.attempt,
                payload,
            },
            Tried::Command(command) => Self::Command {
                target: command.target.clone(),
                command: command.name.clone(),
                message_id: command.message_id.clone(),
                payload,
            },
        }
    }
}

impl Written {
    /// What it was; none: its payload is missing, or no base64.
    #[must_use]
    pub fn read(self) -> Option<Tried> {
        let fields =
            |pairs: Vec<(String, String)>| pairs.into_iter().map(|(name, value)| Field { name, value }).collect();
        Some(match self {
            Self::Message { topic, captures, properties, received_at, id, attempt, payload } => {
                let (captures, properties) = (fields(captures), fields(properties));
                let payload = payload.bytes()?.into();
                Tried::Message(Arc::new(Message { topic, captures, payload, properties, received_at, id, attempt }))
            }
            Self::Command { target, command: name, message_id, payload } => {
                let payload = payload.bytes()?.into();
                Tried::Command(Arc::new(GuestCommand { target, name, payload, message_id }))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(payload in any::<Vec<u8>>(), text in any::<String>()) {
            let field = Field { name: text.clone(), value: text.clone() };
            let message = Message {
                topic: text.clone(),
                captures: vec![field.clone(), field.clone()],
                payload: payload.clone().into(),
                properties: vec![field],
                received_at: text.clone(),
                id: text.clone(),
                attempt: 3,
            };
            let command = GuestCommand { target: text.clone(), name: text.clone(), payload: payload.into(), message_id: text };
            for tried in [Tried::Message(Arc::new(message)), Tried::Command(Arc::new(command))] {
                let json = serde_json::to_string(&Written::from(&tried)).expect("JSON");
                let read: Written = serde_json::from_str(&json).expect("the same");
                prop_assert_eq!(read.read(), Some(tried));
            }
        }
    }
}
