//! What can go wrong with a plugin while it runs. A fault costs the message that met it, nobody else.

use std::time::Duration;

use crate::settings::ByteSize;

/// Why a call of a plugin gave no answer. The instance is thrown away after any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The guest trapped; the text is the engine's, one line.
    #[error("trapped: {0}")]
    Trap(String),
    /// The guest did not answer in time.
    #[error("gave no answer within {0:?} (limits.call_timeout)")]
    TimedOut(Duration),
    /// The guest asked for more memory than it may have, and did not survive the refusal.
    #[error("needed more than {0} of memory (limits.memory)")]
    OutOfMemory(ByteSize),
    /// The guest's answer is larger than it may be.
    #[error("answered with more than {0} (limits.output)")]
    OutputTooLarge(ByteSize),
    /// The guest's answer has more parts than it may have.
    #[error("answered with more than {0} outputs (limits.outputs)")]
    TooManyOutputs(usize),
    /// The guest's answer is not one of the interface.
    #[error("answered with garbage: {0}")]
    Garbage(String),
    /// Its state was not to be had, or others were always faster: it is neither the plugin's fault nor the message's.
    #[error("could not have its state: {0}")]
    State(String),
    /// It has as many keys as it may have, and went on as if it had not been told.
    #[error("keeps more keys than it may have (limits.state_keys)")]
    TooManyKeys,
    /// The engine could not make an instance.
    #[error("could not be instantiated: {0}")]
    Instantiate(String),
}

impl Fault {
    /// Whether neither the message nor the plugin is to blame.
    #[must_use]
    pub fn is_nobodys(&self) -> bool {
        matches!(self, Self::State(_))
    }

    /// One word, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::TimedOut(_) => "timeout",
            Self::OutOfMemory(_) => "memory",
            Self::OutputTooLarge(_) | Self::TooManyOutputs(_) => "output",
            Self::Garbage(_) => "garbage",
            Self::Instantiate(_) => "instantiate",
            Self::State(_) => "state",
            Self::TooManyKeys => "state-keys",
        }
    }
}
