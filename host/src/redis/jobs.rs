//! Jobs and dead letters: many in one round trip, each list with an answer of its own.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};
use sluicegate_core::spooled::Entry;

use super::cap::{Cap, Most};
use super::connect::{Connector, RedisFault};
use super::script::Script;
use super::wire::Wire;
use crate::telemetry::board::Board;

/// Appends entries to a list, each once where it has a key: the check and the push are one step. A script does not roll back,
/// so the push comes before the memory of it. KEYS: the list, then the keys; ARGV: how many values, the values, then for each key
/// the place of its value and how long it is remembered. Answers with the places of those that were known, then the list's length.
const ONCE: &str = r"
local count = tonumber(ARGV[1])
local known, skip, seen = {}, {}, {}
for k = 2, #KEYS do
  local place = tonumber(ARGV[count + 2 * k - 2])
  if seen[KEYS[k]] or redis.call('EXISTS', KEYS[k]) == 1 then
    known[#known + 1] = place
    skip[place] = true
  end
  seen[KEYS[k]] = true
end
local run, size = {}, 0
for place = 1, count do
  if not skip[place] then
    size = size + 1
    run[size] = ARGV[place + 1]
  end
  if size == 1000 or (place == count and size > 0) then
    redis.call('RPUSH', KEYS[1], unpack(run, 1, size))
    size = 0
  end
end
for k = 2, #KEYS do
  if not skip[tonumber(ARGV[count + 2 * k - 2])] then
    redis.call('SET', KEYS[k], '1', 'PX', ARGV[count + 2 * k - 1])
  end
end
known[#known + 1] = redis.call('LLEN', KEYS[1])
return known
";
/// The longest that Redis remembers a key (its own bound is lower than 64 bits).
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// How long one WAIT may take in the server.
const WAIT_REPLICAS: Duration = Duration::from_secs(1);
/// The alarm.
const REPLICAS: &str = "replicas do not confirm";

/// Entries for one list, in order.
pub struct Jobs<'a> {
    /// The list's whole key.
    pub list: Arc<str>,
    /// What is appended.
    pub entries: Vec<&'a Entry>,
}

/// What Redis answered for one list.
pub type Answer = Result<Appended, RedisFault>;

/// What became of the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// For each entry whether it was appended, or known already.
    pub new: Vec<bool>,
    /// How many entries the list has now.
    pub length: u64,
}

/// Pushes on a connection of its own.
pub struct JobPusher {
    connector: Connector,
    connection: Option<Wire>,
    script: Script,
    dead_letters: Arc<str>,
    letters: Cap,
    replicas: u32,
    board: Arc<Board>,
}

impl JobPusher {
    /// `dead_letters` is the list that is kept to its newest `dead_letters_max` entries; `replicas` must have a push before it
    /// counts.
    #[must_use]
    pub fn new(
        connector: Connector,
        dead_letters: Arc<str>,
        dead_letters_max: Most,
        replicas: u32,
        board: Arc<Board>,
    ) -> Self {
        let (script, letters) = (Script::new(ONCE), Cap::new(dead_letters_max));
        Self { connector, connection: None, script, dead_letters, letters, replicas, board }
    }

    /// Makes the connection, where there is none.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`].
    pub async fn connect(&mut self) -> Result<(), RedisFault> {
        if self.connection.is_none() {
            self.connection = Some(self.connector.connect().await?);
        }
        Ok(())
    }

    /// Appends all of them, and gives an answer for each list; of none, asks whether Redis is there. A list that refuses has got none of its entries, unless it is
    /// one whose entries appear once: repeated, those are known.
    ///
    /// # Errors
    /// [`RedisFault::Unavailable`]: there is no answer; any of them may have been appended.
    ///
    /// # Cancel safety
    /// Dropped, any of them may have been appended.
    pub async fn push(&mut self, jobs: &[Jobs<'_>]) -> Result<Vec<Answer>, RedisFault> {
        self.connect().await?;
        let result = self.try_push(jobs).await;
        let of_the_server = |answer: &Answer| answer.as_ref().is_err_and(RedisFault::is_of_the_server);
        if result.as_ref().map_or(true, |answers| answers.iter().any(|one| is_away(one) || of_the_server(one))) {
            // What is still under way on it belongs to nobody; and by its name another server may be found.
            self.connection = None;
        }
        result
    }

    async fn try_push(&mut self, jobs: &[Jobs<'_>]) -> Result<Vec<Answer>, RedisFault> {
        let mut answers = self.execute(jobs, false).await?;
        for (jobs, answer) in jobs.iter().zip(&mut answers) {
            if matches!(answer, Err(RedisFault::NoScript)) {
                let again = self.execute(std::slice::from_ref(jobs), true).await?.pop();
                *answer = again.unwrap_or(Err(RedisFault::NoScript));
            }
        }
        // Where a node is away the connections to all are looked at, and may be made anew; WAIT knows what was written on its own
        // connection alone, so what was pushed on an older one is not known to have reached a replica.
        if answers.iter().all(is_away) || (self.replicas > 0 && answers.iter().any(is_away)) {
            for answer in &answers {
                if let Err(fault) = answer {
                    return Err(fault.clone());
                }
            }
        }
        let mut written = jobs.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()).map(|(jobs, _)| &jobs.list);
        if self.connection.as_ref().is_some_and(Wire::is_cluster) {
            for list in written {
                self.wait_for_replicas(list).await?;
            }
        } else if let Some(list) = written.next() {
            self.wait_for_replicas(list).await?;
        }
        Ok(answers)
    }

    /// How many entries a list has.
    ///
    /// # Errors
    /// [`RedisFault`], where there is no answer or it is a refusal.
    pub async fn length(&mut self, list: &str) -> Result<u64, RedisFault> {
        self.connect().await?;
        let Some(connection) = &mut self.connection else { return Ok(0) };
        let result: RedisResult<u64> = redis::cmd("LLEN").arg(list).query_async(connection).await;
        result.map_err(|error| {
            if error.code().is_some() {
                return RedisFault::answered(list, &error);
            }
            self.connection = None;
            error.into()
        })
    }

    /// `whole`: the script is told too.
    async fn execute(&mut self, jobs: &[Jobs<'_>], whole: bool) -> Result<Vec<Answer>, RedisFault> {
        let Some(connection) = &mut self.connection else { return Ok(Vec::new()) };
        if jobs.is_empty() {
            // It is asked whether Redis is there, and a pipeline of nothing never gets so far.
            connection.at::<Value>(&self.dead_letters, redis::cmd("PING")).await?;
            return Ok(Vec::new());
        }
        let script = || self.connector.has_scripts().then(|| self.script.call(whole));
        let values = connection.each(jobs.iter().map(|jobs| command(jobs, script))).await?;
        let mut answers = Vec::with_capacity(jobs.len());
        let mut letters = None;
        for (jobs, value) in jobs.iter().zip(values) {
            answers.push(match value {
                Ok(Value::Array(mut known)) => {
                    let length = known.pop().map_or(0, self::length);
                    let mut new = vec![true; jobs.entries.len()];
                    for place in known {
                        let place = usize::try_from(self::length(place)).unwrap_or(0);
                        if let Some(new) = place.checked_sub(1).and_then(|place| new.get_mut(place)) {
                            *new = false;
                        }
                    }
                    Ok(Appended { new, length })
                }
                Ok(value @ Value::Int(_)) => {
                    let length = length(value);
                    if jobs.list == self.dead_letters {
                        letters = Some(length);
                    }
                    Ok(Appended { new: vec![true; jobs.entries.len()], length })
                }
                Ok(_) => Err(RedisFault::refused(&jobs.list, "an answer that is none".to_owned())),
                Err(error) => Err(RedisFault::answered(&jobs.list, &error)),
            });
        }
        if let (Some(length), Some(connection)) = (letters, &mut self.connection) {
            self.letters.keep(connection, &self.dead_letters, length).await;
        }
        Ok(answers)
    }

    /// Until enough replicas of the server that has the list have what was pushed. It is pushed already, so it is waited for and not
    /// repeated.
    async fn wait_for_replicas(&mut self, list: &str) -> Result<(), RedisFault> {
        while self.replicas > 0 {
            let Some(connection) = &mut self.connection else { break };
            let mut wait = redis::cmd("WAIT");
            wait.arg(self.replicas).arg(u64::try_from(WAIT_REPLICAS.as_millis()).unwrap_or(1_000));
            let confirmed: u32 = connection.at(list, wait).await?;
            if confirmed >= self.replicas {
                if self.board.notice(REPLICAS, None) {
                    tracing::info!("replicas confirm again");
                }
                break;
            }
            let text = format!(
                "{confirmed} of {} replicas confirm what is pushed (redis.wait_replicas); what comes waits in the spool until they do",
                self.replicas
            );
            if self.board.notice(REPLICAS, Some(&text)) {
                tracing::warn!("{text}");
            }
        }
        Ok(())
    }
}

fn length(value: Value) -> u64 {
    if let Value::Int(length) = value { u64::try_from(length).unwrap_or(0) } else { 0 }
}

/// Whether the server of a list did not answer, or is not the list's any more.
fn is_away(answer: &Answer) -> bool {
    matches!(answer, Err(RedisFault::Unavailable(_)))
}

/// One command for one list.
fn command(jobs: &Jobs<'_>, script: impl FnOnce() -> Option<Cmd>) -> Cmd {
    let keyed = jobs.entries.iter().any(|entry| entry.once.is_some());
    let Some(mut command) = keyed.then(script).flatten() else {
        let mut command = redis::cmd("RPUSH");
        command.arg(&*jobs.list);
        for entry in &jobs.entries {
            command.arg(entry.value.as_ref());
        }
        return command;
    };
    let keys: Vec<&str> = jobs.entries.iter().filter_map(|entry| entry.once.as_ref()).map(|once| &*once.key).collect();
    command.arg(keys.len() + 1).arg(&*jobs.list).arg(keys);
    command.arg(jobs.entries.len());
    for entry in &jobs.entries {
        command.arg(entry.value.as_ref());
    }
    for (place, entry) in jobs.entries.iter().enumerate() {
        if let Some(once) = &entry.once {
            let millis = once.for_.min(LONGEST).as_millis();
            command.arg(place + 1).arg(u64::try_from(millis).unwrap_or(u64::MAX).max(1));
        }
    }
    command
}
