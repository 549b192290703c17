//! Machines' tokens, as the broker reads them: under `machine_auth:SERIAL` the SHA-256 of the token, as a string or in a hash.

use redis::Pipeline;

use super::connect::{Connector, RedisFault};
use super::line::Line;
use super::script::Script;
use crate::settings::AuthFormat;

/// The field that EMQX's own Redis authenticator reads.
const FIELD: &str = "password_hash";
/// What a key says of a superuser; this program makes none.
const SUPERUSER: &str = "is_superuser";
/// Keys in one round trip.
const PAGE: usize = 500;

/// Puts a hash into a key, or takes the key away, where it holds what was read of it. 0: it holds something else by now. DEL comes first: it needs no
/// memory. KEYS: key; ARGV: type and hash that were read, hash (or empty), format, whether it ends when the one before would (1).
const REPLACE: &str = r"
local kind, hash = redis.call('TYPE', KEYS[1])['ok'], ''
if kind == 'string' then hash = redis.call('GET', KEYS[1]) end
if kind == 'hash' then hash = redis.call('HGET', KEYS[1], 'password_hash') or '' end
if kind ~= ARGV[1] or hash ~= ARGV[2] then return 0 end
local left = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
if ARGV[3] == '' then return 1 end
if ARGV[4] == 'string' then
  redis.call('SET', KEYS[1], ARGV[3])
else
  redis.call('HSET', KEYS[1], 'password_hash', ARGV[3], 'is_superuser', '0')
end
if left > 0 and ARGV[5] == '1' then redis.call('PEXPIRE', KEYS[1], left) end
return 1
";

/// When a key ends that is written in another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Never.
    Never,
    /// When the one before would have.
    AsBefore,
}

/// What stands under a machine's key, and whether it ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What stands there.
    pub entry: Entry,
    /// It has a time to live.
    pub ends: bool,
}

/// What stands under a machine's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    None,
    /// A string, the plan's format.
    String(String),
    /// A hash: its `password_hash`, where it has one, and whether it makes a superuser.
    Hash(Option<String>, bool),
    /// Something else, by its type's name.
    Other(String),
}

/// The names that stand behind the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Serial numbers, in order.
    pub serial_nos: Vec<String>,
    /// Names that are not UTF-8, so no machine's.
    pub no_text: Vec<Vec<u8>>,
}

/// Reads and writes the keys, on a connection of its own.
pub struct Auth {
    line: Line,
    /// What stands before a serial number.
    prefix: String,
    format: AuthFormat,
    replace: Script,
}

impl Auth {
    /// `prefix` is all that stands before a serial number.
    #[must_use]
    pub fn new(connector: Connector, prefix: String, format: AuthFormat) -> Self {
        Self { line: Line::new(connector), prefix, format, replace: Script::new(REPLACE) }
    }

    /// The key of a machine.
    #[must_use]
    pub fn key(&self, serial_no: &str) -> String {
        format!("{}{serial_no}", self.prefix)
    }

    /// Writes the hash of a machine's token, or takes the key away, in one step.
    ///
    /// # Errors
    /// [`RedisFault::Refused`]: nothing is done; [`RedisFault::Unavailable`]: it may be.
    pub async fn write(&mut self, serial_no: &str, hash: Option<&str>) -> Result<(), RedisFault> {
        let key = self.key(serial_no);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        put(&mut pipeline, &key, hash, self.format);
        let written = pipeline.exec_async(self.line.get().await?).await;
        self.line.heard(&key, written)
    }

    /// Writes the hash of a machine's token, or takes the key away, where there stands what was read, in one step. False: it is another by now.
    ///
    /// # Errors
    /// [`RedisFault::Refused`]: nothing is done; [`RedisFault::Unavailable`]: it may be.
    pub async fn replace(
        &mut self,
        serial_no: &str,
        read: &Entry,
        hash: Option<&str>,
        format: AuthFormat,
        end: End,
    ) -> Result<bool, RedisFault> {
        let key = self.key(serial_no);
        let (kind, was) = match read {
            Entry::None => ("none", ""),
            Entry::String(hash) => ("string", hash.as_str()),
            Entry::Hash(hash, _) => ("hash", hash.as_deref().unwrap_or_default()),
            Entry::Other(kind) => (kind.as_str(), ""),
        };
        let format = match format {
            AuthFormat::String => "string",
            AuthFormat::Hash => "hash",
        };
        let keeps = if end == End::AsBefore { "1" } else { "0" };
        let arguments = [kind, was, hash.unwrap_or_default(), format, keeps];
        let replaced = self.replace.run::<i64>(self.line.get().await?, &[&key], &arguments).await;
        Ok(self.line.heard(&key, replaced)? == 1)
    }

    /// What stands under a machine's key.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn look(&mut self, serial_no: &str) -> Result<Kept, RedisFault> {
        Ok(self.read(&[serial_no]).await?.pop().expect("invariant: one key, one answer"))
    }

    /// What stands under the keys of machines, in their order.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn read(&mut self, serial_nos: &[&str]) -> Result<Vec<Kept>, RedisFault> {
        let mut kept = Vec::with_capacity(serial_nos.len());
        for page in serial_nos.chunks(PAGE) {
            let keys: Vec<String> = page.iter().map(|serial_no| self.key(serial_no)).collect();
            for (key, (kind, left)) in keys.iter().zip(self.kinds(&keys).await?) {
                kept.push(Kept { entry: self.entry(key, &kind).await?, ends: left >= 0 });
            }
        }
        Ok(kept)
    }

    /// The types of keys, and the milliseconds that each has to live (less than 0: it does not end, or is not there), in their order.
    async fn kinds(&mut self, keys: &[String]) -> Result<Vec<(String, i64)>, RedisFault> {
        let mut asked = redis::pipe();
        for key in keys {
            asked.cmd("TYPE").arg(key).cmd("PTTL").arg(key);
        }
        let kinds = asked.query_async::<Vec<(String, i64)>>(self.line.get().await?).await;
        self.line.heard(&self.prefix.clone(), kinds)
    }

    async fn entry(&mut self, key: &str, kind: &str) -> Result<Entry, RedisFault> {
        Ok(match kind {
            "none" => Entry::None,
            "string" => {
                let value = redis::cmd("GET").arg(key).query_async(self.line.get().await?).await;
                self.line.heard::<Option<String>>(key, value)?.map_or(Entry::None, Entry::String)
            }
            "hash" => {
                let mut fields = redis::cmd("HMGET");
                fields.arg(key).arg(FIELD).arg(SUPERUSER);
                let value = fields.query_async::<(Option<String>, Option<String>)>(self.line.get().await?).await;
                let (hash, superuser) = self.line.heard(key, value)?;
                let superuser = superuser.is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
                Entry::Hash(hash, superuser)
            }
            other => Entry::Other(other.to_owned()),
        })
    }

    /// The names of all keys. It looks through the whole server, a part at a time.
    ///
    /// # Errors
    /// [`RedisFault`].
    pub async fn all(&mut self) -> Result<Found, RedisFault> {
        let (mut cursor, mut found) = (0_u64, Found::default());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}*", escaped(&self.prefix))).arg("COUNT").arg(1_000);
            let page = scan.query_async::<(u64, Vec<Vec<u8>>)>(self.line.get().await?).await;
            let (next, keys) = self.line.heard(&self.prefix.clone(), page)?;
            for name in keys.iter().filter_map(|key| key.strip_prefix(self.prefix.as_bytes())) {
                match String::from_utf8(name.to_owned()) {
                    Ok(serial_no) => found.serial_nos.push(serial_no),
                    Err(error) => found.no_text.push(error.into_bytes()),
                }
            }
            if next == 0 {
                found.serial_nos.sort_unstable();
                found.no_text.sort_unstable();
                // A key may be seen twice while the server grows.
                found.serial_nos.dedup();
                found.no_text.dedup();
                return Ok(found);
            }
            cursor = next;
        }
    }
}

fn put(pipeline: &mut Pipeline, key: &str, hash: Option<&str>, format: AuthFormat) {
    pipeline.cmd("DEL").arg(key).ignore();
    match (hash, format) {
        (None, _) => {}
        (Some(hash), AuthFormat::String) => {
            pipeline.cmd("SET").arg(key).arg(hash).ignore();
        }
        (Some(hash), AuthFormat::Hash) => {
            pipeline.cmd("HSET").arg(key).arg(FIELD).arg(hash).arg(SUPERUSER).arg("0").ignore();
        }
    }
}

/// A pattern that means the text itself.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
