//! The list of dead letters: read page by page, from the oldest; put back into the list that they came from; dropped.

use bytes::Bytes;

use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::script::Script;

/// The job goes to the tail of its list, and then its letter is taken off; where it was gone already, another had put the job back, and it
/// leaves the list again before anybody could see it. In this order, since a script does not roll back: a list that Redis refuses (of another
/// type, out of memory) leaves the letter where it is. 0: it was gone. KEYS: dead letters, list; ARGV: letter, job.
const REPLAY: &str = r"
redis.call('RPUSH', KEYS[2], ARGV[2])
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 then return 1 end
redis.call('RPOP', KEYS[2])
return 0
";

/// Reads and edits the list, on a connection of its own.
pub struct Letters {
    line: Line,
    list: String,
    replay: Script,
}

impl Letters {
    /// `list` is its whole key.
    #[must_use]
    pub fn new(connector: Connector, list: String) -> Self {
        Self { line: Line::new(connector), list, replay: Script::new(REPLAY) }
    }

    /// How many there are.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn length(&mut self) -> Result<u64, RedisFault> {
        let length = redis::cmd("LLEN").arg(&self.list).query_async(self.line.get().await?).await;
        self.line.heard(&self.list, length)
    }

    /// So many entries from this place on, the oldest being 0.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn page(&mut self, from: u64, count: u64) -> Result<Vec<Bytes>, RedisFault> {
        let last = from.saturating_add(count).saturating_sub(1);
        let mut page = redis::cmd("LRANGE");
        page.arg(&self.list).arg(from).arg(last);
        let page = page.query_async::<Vec<Vec<u8>>>(self.line.get().await?).await;
        Ok(self.line.heard(&self.list, page)?.into_iter().map(Bytes::from).collect())
    }

    /// Puts a letter's job back into a list (its whole key), in one step. False: somebody else did, or dropped it.
    ///
    /// # Errors
    /// [`RedisFault::Refused`]: the letter is where it was; [`RedisFault::Unavailable`]: it may be done, and asking again does no harm.
    pub async fn replay(&mut self, letter: &[u8], list: &str, job: &[u8]) -> Result<bool, RedisFault> {
        let done = self.replay.run::<u64>(self.line.get().await?, &[&self.list, list], &[letter, job]).await;
        Ok(self.line.heard(list, done)? == 1)
    }

    /// Takes a letter off the list for good. False: it was gone.
    ///
    /// # Errors
    /// [`RedisFault`]: it may be gone; asking again does no harm.
    pub async fn drop_one(&mut self, letter: &[u8]) -> Result<bool, RedisFault> {
        let mut remove = redis::cmd("LREM");
        remove.arg(&self.list).arg(1).arg(letter);
        let removed = remove.query_async::<u64>(self.line.get().await?).await;
        Ok(self.line.heard(&self.list, removed)? > 0)
    }
}
