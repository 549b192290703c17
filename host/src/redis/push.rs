//! What became of commands: many in one round trip; and the lengths of lists.

use bytes::Bytes;
use sluicegate_core::keys::Keys;

use super::cap::{Cap, Most};
use super::claim::{Claims, SENT};
use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::script::Script;

/// The newest so many results of commands are kept: a list that nobody reads must not fill Redis.
const MAX_RESULTS: i64 = 100_000;
/// How long Redis remembers the last step that was done, in milliseconds: longer than any outage after which it is asked for again.
const REMEMBERED: u64 = 7 * 86_400_000;

/// Takes commands off the processing list, one entry each, and notes which ids were sent; as one step, which is done once however often it
/// is asked for. LREM comes first: it needs no memory, and what comes after a write in a script is done without any. An id that was not
/// sent may come again, where it is still this instance's.
/// KEYS: processing list, the last step, then a key for each id; ARGV: this step, how long it is remembered in ms, what a claim says once
/// it was sent, how long that is remembered in ms, instance, how many entries, the entries, then for each id 1 where it was sent.
const DONE: &str = r"
if redis.call('GET', KEYS[2]) == ARGV[1] then return 0 end
local entries = tonumber(ARGV[6])
for i = 1, entries do redis.call('LREM', KEYS[1], 1, ARGV[6 + i]) end
for k = 3, #KEYS do
  if ARGV[4 + entries + k] == '1' then
    redis.pcall('SET', KEYS[k], ARGV[3], 'PX', ARGV[4])
  else
    local by = redis.pcall('GET', KEYS[k])
    if type(by) == 'string' and string.match(by, '^(.*)#%d+$') == ARGV[5] then redis.call('DEL', KEYS[k]) end
  end
end
redis.pcall('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
";

/// A command that leaves the processing list.
#[derive(Debug, Clone)]
pub struct Done {
    /// The entry.
    pub raw: Bytes,
    /// Its `message_id`, and whether it was sent.
    pub id: Option<(String, bool)>,
}

/// Pushes on a connection of its own.
pub struct Pusher {
    line: Line,
    keys: Keys,
    letters: Cap,
    script: Script,
    /// Of this process, and how many steps it has done.
    steps: (String, u64),
}

impl Pusher {
    /// The list of dead letters is kept to its newest `dead_letters_max` entries. `process` is like no other process's.
    #[must_use]
    pub fn new(connector: Connector, keys: Keys, dead_letters_max: Most, process: String) -> Self {
        let (line, letters, script) = (Line::new(connector), Cap::new(dead_letters_max), Script::new(DONE));
        Self { line, keys, letters, script, steps: (process, 0) }
    }

    /// Appends dead letters.
    ///
    /// # Errors
    /// [`RedisFault::Refused`]: none is appended; [`RedisFault::Unavailable`]: they may be.
    pub async fn letters(&mut self, letters: &[&[u8]]) -> Result<(), RedisFault> {
        if letters.is_empty() {
            return Ok(());
        }
        let list = &self.keys.dead_letters;
        let length = redis::cmd("RPUSH").arg(list).arg(letters).query_async::<u64>(self.line.get().await?).await;
        let length = self.line.heard(list, length)?;
        self.letters.keep(self.line.get().await?, list, length).await;
        Ok(())
    }

    /// Tells what became of commands, where that is wanted.
    ///
    /// # Errors
    /// [`RedisFault::Refused`]: nothing is told; [`RedisFault::Unavailable`]: it may be.
    pub async fn results(&mut self, results: &[&[u8]]) -> Result<(), RedisFault> {
        let Some(list) = self.keys.results.as_ref().filter(|_| !results.is_empty()) else { return Ok(()) };
        let length = redis::cmd("RPUSH").arg(list).arg(results).query_async::<i64>(self.line.get().await?).await;
        if self.line.heard(list, length)? > MAX_RESULTS {
            let trim = redis::cmd("LTRIM").arg(list).arg(-MAX_RESULTS).arg(-1).exec_async(self.line.get().await?).await;
            self.line.heard(list, trim)?;
        }
        Ok(())
    }

    /// Takes commands off the processing list. After an error the same ones are to be asked for again: what was done is not done twice.
    ///
    /// # Errors
    /// [`RedisFault`]: it may be done.
    pub async fn done(&mut self, done: &[Done], claims: &Claims) -> Result<(), RedisFault> {
        if done.is_empty() {
            return Ok(());
        }
        let list = &self.keys.processing;
        let answer = if self.line.has_scripts() {
            let ids: Vec<(String, bool)> = done
                .iter()
                .filter_map(|one| one.id.as_ref())
                .filter_map(|(id, sent)| Some((claims.key(id)?, *sent)))
                .collect();
            let mut keys = vec![list.as_str(), &self.keys.settled];
            keys.extend(ids.iter().map(|(key, _)| key.as_str()));
            let step = format!("{} {}", self.steps.0, self.steps.1);
            let numbers = [REMEMBERED, claims.life()].map(|number| number.to_string());
            let count = done.len().to_string();
            let mut arguments =
                [&*step, &*numbers[0], SENT, &*numbers[1], claims.instance(), &*count].map(str::as_bytes).to_vec();
            arguments.extend(done.iter().map(|one| one.raw.as_ref()));
            arguments.extend(ids.iter().map(|(_, sent)| if *sent { b"1".as_slice() } else { b"0" }));
            self.script.run::<i64>(self.line.get().await?, &keys, &arguments).await.map(|_| ())
        } else {
            let mut pipeline = redis::pipe();
            for one in done {
                pipeline.cmd("LREM").arg(list).arg(1).arg(one.raw.as_ref()).ignore();
            }
            pipeline.exec_async(self.line.get().await?).await
        };
        self.line.heard(list, answer)?;
        self.steps.1 += 1;
        Ok(())
    }

    /// The length of a list.
    ///
    /// # Errors
    /// [`RedisFault`], where there is no answer or it is a refusal.
    pub async fn length(&mut self, key: &str) -> Result<u64, RedisFault> {
        let answer = redis::cmd("LLEN").arg(key).query_async::<u64>(self.line.get().await?).await;
        self.line.heard(key, answer)
    }

    /// What the server that has a list does when it is full (`maxmemory-policy`); none: it does not say.
    ///
    /// # Errors
    /// [`RedisFault`], where there is no answer or it is a refusal.
    pub async fn eviction_policy(&mut self, key: &str) -> Result<Option<String>, RedisFault> {
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let memory = self.line.get().await?.at::<String>(key, info).await;
        let memory = self.line.heard(key, memory)?;
        let policy = memory.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
        Ok(policy.map(|policy| policy.trim().to_owned()))
    }
}
