//! Who may log in at the broker, and who may do what there: the rules that `config/emqx/acl.conf` and `config/mosquitto/acl` have, made from
//! the settings' own topics. It knows no request, no Redis and no clock.
//!
//! - [`Policy`]: the rules.
//! - [`token`]: what a machine's token is compared with.
//! - [`failures`]: who has failed too often.
//! - [`known`]: tokens that were read, as long as they are sure to be right.

pub mod failures;
pub mod known;
mod policy;
pub mod token;

pub use policy::{Action, DROP_COUNTERS, Policy};

/// Why the answer is no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Denied {
    /// Whoever asks is not the broker: no secret, or another.
    Secret,
    /// It cannot be understood, or is too big.
    Request,
    /// The user name is no serial number.
    Name,
    /// The user name is the gateway's.
    Reserved,
    /// The client id is another's.
    ClientId,
    /// There have been too many wrong tokens for this user name from this address.
    Limited,
    /// It is not the token, or there is none.
    Token,
    /// The machine has no token any more.
    Revoked,
    /// The rules allow no such topic.
    Topic,
    /// A command must not be retained.
    Retained,
    /// Redis does not say what the token is.
    Redis,
    /// There was no time left to decide.
    Late,
}

impl Denied {
    /// For the log and the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Request => "request",
            Self::Name => "name",
            Self::Reserved => "reserved",
            Self::ClientId => "client-id",
            Self::Limited => "limited",
            Self::Token => "token",
            Self::Revoked => "revoked",
            Self::Topic => "topic",
            Self::Retained => "retained",
            Self::Redis => "redis",
            Self::Late => "late",
        }
    }
}
