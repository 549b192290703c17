//! Claims: a `message_id` is sent once, by whichever instance claims it first. A claim names the instance and its tenure until the
//! command is sent; one of a tenure that is over counts for nothing, since its command was not sent, or not known to be, and may be
//! another's by now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sluicegate_core::keys::Keys;

use super::connect::RedisFault;
use super::script::Script;
use super::wire::Wire;

/// What a claim says once the command was sent.
pub(super) const SENT: &str = "!sent";
/// The longest `message_id` that stands in a key as it is.
const MAX_ID: usize = 128;

/// For each id: 1 it is to be sent, 0 it was or is being sent. KEYS: one for each id; ARGV: instance, life in ms, what stands
/// before the names of leases (those lie in the slot of the keys). A lease holds its tenure's number.
const CLAIM: &str = r"
local free = {}
local own = ARGV[1] .. '#' .. (redis.call('GET', ARGV[3] .. ARGV[1]) or '0')
for i = 1, #KEYS do
  local by = redis.call('GET', KEYS[i]) or ''
  local name, number = string.match(by, '^(.*)#(%d+)$')
  if by == '!sent' or (name and name ~= ARGV[1] and redis.call('GET', ARGV[3] .. name) == number) then
    free[i] = 0
  else
    redis.call('SET', KEYS[i], own, 'PX', ARGV[2])
    free[i] = 1
  end
end
return free
";

/// How long an id is remembered; zero: not at all. Clones change together.
#[derive(Debug, Clone)]
pub struct Remembered(Arc<AtomicU64>);

impl Remembered {
    /// For so long.
    #[must_use]
    pub fn new(for_: Duration) -> Self {
        let remembered = Self(Arc::default());
        remembered.set(for_);
        remembered
    }

    /// For so long from now on.
    pub fn set(&self, for_: Duration) {
        self.0.store(u64::try_from(for_.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether ids are remembered at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.millis() > 0
    }

    fn millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Claims ids.
#[derive(Debug)]
pub struct Claims {
    script: Script,
    leases: String,
    sent: String,
    instance: String,
    for_: Remembered,
}

impl Claims {
    /// For an instance.
    #[must_use]
    pub fn new(keys: &Keys, instance: &str, for_: Remembered) -> Self {
        Self {
            script: Script::new(CLAIM),
            leases: keys.leases.clone(),
            sent: keys.sent.clone(),
            instance: instance.to_owned(),
            for_,
        }
    }

    /// Whether ids are remembered at all.
    #[must_use]
    pub fn are_kept(&self) -> bool {
        self.for_.is_on()
    }

    /// The key of an id, where it is remembered.
    pub(super) fn key(&self, id: &str) -> Option<String> {
        (!id.is_empty() && self.are_kept()).then(|| sent_key(&self.sent, id))
    }

    /// How long an id is remembered, in milliseconds.
    pub(super) fn life(&self) -> u64 {
        self.for_.millis()
    }

    /// Whose claims these are.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// Claims ids: for each whether it is to be sent.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`]: some may be claimed; claimed again they are this instance's.
    pub(super) async fn claim(&self, wire: &mut Wire, ids: &[&str]) -> Result<Vec<bool>, RedisFault> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = ids.iter().map(|id| sent_key(&self.sent, id)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let life = self.for_.millis().to_string();
        let free: Vec<i64> = self.script.run(wire, &keys, &[&self.instance, &life, &self.leases]).await?;
        Ok(free.into_iter().map(|free| free == 1).collect())
    }
}

/// A long id stands there as its digest: a key is no place for text of any length.
fn sent_key(before: &str, id: &str) -> String {
    if id.len() <= MAX_ID {
        return format!("{before}{id}");
    }
    let digest = Sha256::digest(id.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{before}sha256-{hex}")
}
