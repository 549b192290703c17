//! What the settings say of access.

use std::sync::Arc;

use arc_swap::ArcSwap;
use sluicegate_core::access::Policy;
use sluicegate_core::access::token::TokenHash;
use sluicegate_core::settings::Settings;

use crate::redis::tokens::Keep;

/// It, swapped whole: a question is answered by the rules that it came under.
pub type Current = Arc<ArcSwap<Rules>>;

/// What a question is answered by.
pub struct Rules {
    pub(super) policy: Policy,
    /// None: nobody knows it.
    pub(super) secret: Option<TokenHash>,
    pub(super) keep: Keep,
    pub(super) failures_per_minute: u32,
}

impl Rules {
    /// From the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let access = &settings.access;
        Self {
            policy: Policy::new(settings),
            secret: access.secret.as_ref().map(|secret| TokenHash::of(&secret.0)),
            keep: Keep { most: access.cache_entries, ttl: access.cache_ttl },
            failures_per_minute: access.failures_per_minute,
        }
    }
}
