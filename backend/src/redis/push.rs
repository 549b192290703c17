//! What this program appends to lists: dead letters, and commands for the gateway.

use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::script::Script;

/// Appends, and keeps the newest. LTRIM comes first, taking nothing off: it needs no memory, and what comes after a write is done without any. A letter
/// is the way to take a job off a server that is over its limit. KEYS: list; ARGV: the most, entries.
const APPEND: &str = r"
redis.call('LTRIM', KEYS[1], 0, -1)
local length = 0
for i = 2, #ARGV do length = redis.call('RPUSH', KEYS[1], ARGV[i]) end
if length > tonumber(ARGV[1]) then redis.call('LTRIM', KEYS[1], -tonumber(ARGV[1]), -1) end
return length
";

/// Appends, on a connection of its own.
pub struct Pusher {
    line: Line,
    append: Script,
    list: String,
    /// The newest so many are kept; none: all.
    most: Option<u64>,
    /// It was longer, and the log says so.
    full: bool,
}

impl Pusher {
    /// To a list, by its whole key, which is kept to its newest `most` entries.
    #[must_use]
    pub fn new(connector: Connector, list: String, most: Option<u64>) -> Self {
        Self { line: Line::new(connector), append: Script::new(APPEND), list, most, full: false }
    }

    /// Appends entries, all or none.
    ///
    /// # Errors
    /// [`RedisFault::Refused`]: none is appended; [`RedisFault::Unavailable`]: they may be.
    pub async fn push(
        &mut self,
        entries: &[impl redis::ToSingleRedisArg + AsRef<[u8]> + Sync],
    ) -> Result<(), RedisFault> {
        if entries.is_empty() {
            return Ok(());
        }
        let Some(most) = self.most else {
            let pushed = redis::cmd("RPUSH").arg(&self.list).arg(entries).exec_async(self.line.get().await?).await;
            return self.line.heard(&self.list, pushed);
        };
        let mut arguments = vec![most.to_string().into_bytes()];
        arguments.extend(entries.iter().map(|entry| entry.as_ref().to_vec()));
        let length = self.append.run::<u64>(self.line.get().await?, &[&self.list], &arguments).await;
        let is_full = self.line.heard(&self.list, length)? > most;
        if is_full && !self.full {
            tracing::warn!("the oldest dead letters go: there are more than queues.dead_letters_max");
        }
        self.full = is_full;
        Ok(())
    }
}
