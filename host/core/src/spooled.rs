//! What stands in the spool, as bytes: a job that Redis did not take yet, or a message that is parked.
//!
//! The format has a version: a newer gateway reads what an older one left.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};

use crate::message::Field;

const VERSION: u8 = 1;
const JOB: u8 = 1;
const PARKED: u8 = 2;

/// Records that leave the spool in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Line {
    /// Jobs, or dead letters, for a list in Redis.
    List {
        /// Its whole key.
        key: Arc<str>,
        /// Of routes with `priority = "low"`: they wait in a line of their own.
        low: bool,
    },
    /// Messages of one machine and route.
    Machine {
        /// The route's name.
        route: Arc<str>,
        /// The machine's serial number.
        serial_no: Arc<str>,
    },
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it waits.
    pub line: Line,
    /// Its place in the line; unique there.
    pub number: u64,
    /// When its message arrived, in milliseconds since 1970.
    pub at: i64,
    /// What it is.
    pub body: Body,
}

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Its outcome is known and not in Redis yet.
    Job(Job),
    /// It is to be handled (again).
    Parked(Parked),
}

/// A message whose outcome is to be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The route that took it; none: no route did.
    pub route: Option<Arc<str>>,
    /// Whether it goes to the dead letters.
    pub dead: bool,
    /// What is appended to the list, in order.
    pub entries: Vec<Entry>,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is appended.
    pub value: Bytes,
    /// Under which key it is remembered, so that it is appended once.
    pub once: Option<Once>,
}

/// What makes an entry appear once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// The whole key in Redis.
    pub key: Arc<str>,
    /// How long it is remembered.
    pub for_: Duration,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its topic.
    pub topic: String,
    /// What was published.
    pub payload: Bytes,
    /// Its user properties.
    pub properties: Vec<Field>,
    /// When it arrived, in microseconds since 1970.
    pub received_at: i64,
    /// How often it was tried.
    pub attempts: u32,
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpooledError {
    /// A later version wrote it.
    #[error("a record of version {0}, which this version of sluicegate does not know; start the version that wrote it")]
    Version(u8),
    /// It ends too early, or holds what cannot be.
    #[error("not a record of the spool")]
    Malformed,
}

impl Record {
    /// Its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        match &self.line {
            Line::List { key, low } => {
                out.put_u8(JOB);
                put(out, key.as_bytes());
                out.put_u8(u8::from(*low));
            }
            Line::Machine { route, serial_no } => {
                out.put_u8(PARKED);
                put(out, route.as_bytes());
                put(out, serial_no.as_bytes());
            }
        }
        out.put_u64_le(self.number);
        out.put_i64_le(self.at);
        match &self.body {
            Body::Job(job) => {
                out.put_u8(JOB);
                put(out, job.route.as_deref().unwrap_or("").as_bytes());
                out.put_u8(u8::from(job.dead));
                put_count(out, job.entries.len());
                for entry in &job.entries {
                    put(out, &entry.value);
                    match &entry.once {
                        None => put(out, b""),
                        Some(once) => {
                            put(out, once.key.as_bytes());
                            out.put_u64_le(u64::try_from(once.for_.as_millis()).unwrap_or(u64::MAX));
                        }
                    }
                }
            }
            Body::Parked(parked) => {
                out.put_u8(PARKED);
                put(out, parked.topic.as_bytes());
                put(out, &parked.payload);
                put_count(out, parked.properties.len());
                for Field { name, value } in &parked.properties {
                    put(out, name.as_bytes());
                    put(out, value.as_bytes());
                }
                out.put_i64_le(parked.received_at);
                out.put_u32_le(parked.attempts);
            }
        }
    }

    /// Reads what [`Record::encode`] wrote.
    ///
    /// # Errors
    /// [`SpooledError`], where it is none.
    pub fn decode(bytes: Bytes) -> Result<Self, SpooledError> {
        let mut from = Reader(bytes);
        let version = from.u8()?;
        if version != VERSION {
            return Err(SpooledError::Version(version));
        }
        let line = match from.u8()? {
            JOB => Line::List { key: from.text()?.into(), low: from.u8()? == 1 },
            PARKED => Line::Machine { route: from.text()?.into(), serial_no: from.text()?.into() },
            _ => return Err(SpooledError::Malformed),
        };
        let number = from.u64()?;
        let at = from.u64()?.cast_signed();
        let body = match from.u8()? {
            JOB => Body::Job(from.job()?),
            PARKED => Body::Parked(from.parked()?),
            _ => return Err(SpooledError::Malformed),
        };
        Ok(Self { line, number, at, body })
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    // Invariant: a packet of MQTT holds less than 256 MiB, and an output is bounded by limits.output.
    out.put_u32_le(u32::try_from(count).unwrap_or(u32::MAX));
}

struct Reader(Bytes);

impl Reader {
    fn take(&mut self, count: usize) -> Result<Bytes, SpooledError> {
        if count > self.0.len() { Err(SpooledError::Malformed) } else { Ok(self.0.split_to(count)) }
    }

    fn u8(&mut self) -> Result<u8, SpooledError> {
        Ok(self.take(1)?.get_u8())
    }

    fn u32(&mut self) -> Result<u32, SpooledError> {
        Ok(self.take(4)?.get_u32_le())
    }

    fn u64(&mut self) -> Result<u64, SpooledError> {
        Ok(self.take(8)?.get_u64_le())
    }

    fn bytes(&mut self) -> Result<Bytes, SpooledError> {
        let count = usize::try_from(self.u32()?).map_err(|_| SpooledError::Malformed)?;
        self.take(count)
    }

    fn text(&mut self) -> Result<String, SpooledError> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| SpooledError::Malformed)
    }

    fn job(&mut self) -> Result<Job, SpooledError> {
        let route = self.text()?;
        let dead = self.u8()? == 1;
        let count = self.u32()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let value = self.bytes()?;
            let key = self.text()?;
            let once = if key.is_empty() {
                None
            } else {
                Some(Once { key: key.into(), for_: Duration::from_millis(self.u64()?) })
            };
            entries.push(Entry { value, once });
        }
        Ok(Job { route: (!route.is_empty()).then(|| route.into()), dead, entries })
    }

    fn parked(&mut self) -> Result<Parked, SpooledError> {
        let (topic, payload) = (self.text()?, self.bytes()?);
        let count = self.u32()?;
        let mut properties = Vec::new();
        for _ in 0..count {
            properties.push(Field { name: self.text()?, value: self.text()? });
        }
        let received_at = self.u64()?.cast_signed();
        Ok(Parked { topic, payload, properties, received_at, attempts: self.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn record() -> impl Strategy<Value = Record> {
        let once = prop::option::of(("[a-z]{1,9}", 0..u64::MAX))
            .prop_map(|once| once.map(|(key, millis)| Once { key: key.into(), for_: Duration::from_millis(millis) }));
        let entries = prop::collection::vec((bytes(), once).prop_map(|(value, once)| Entry { value, once }), 0..4);
        let job = (prop::option::of(".{1,9}"), any::<bool>(), entries)
            .prop_map(|(route, dead, entries)| Body::Job(Job { route: route.map(Into::into), dead, entries }));
        let properties = prop::collection::vec((".*", ".*").prop_map(|(name, value)| Field { name, value }), 0..3);
        let parked = (".*", bytes(), properties, any::<i64>(), any::<u32>()).prop_map(
            |(topic, payload, properties, received_at, attempts)| {
                Body::Parked(Parked { topic, payload, properties, received_at, attempts })
            },
        );
        let line = prop_oneof![
            (".*", any::<bool>()).prop_map(|(key, low)| Line::List { key: key.into(), low }),
            (".*", ".*")
                .prop_map(|(route, serial_no)| Line::Machine { route: route.into(), serial_no: serial_no.into() }),
        ];
        (line, any::<u64>(), any::<i64>(), prop_oneof![job, parked]).prop_map(|(line, number, at, body)| Record {
            line,
            number,
            at,
            body,
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(record in record()) {
            let mut out = Vec::new();
            record.encode(&mut out);
            prop_assert_eq!(Record::decode(out.into()), Ok(record));
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(bytes.into());
        }

        #[test]
        fn a_beginning_of_a_record_is_none(record in record(), cut in any::<prop::sample::Index>()) {
            let mut out = Vec::new();
            record.encode(&mut out);
            out.truncate(cut.index(out.len()));
            prop_assert!(Record::decode(out.into()).is_err());
        }
    }

    #[test]
    fn a_later_version_is_said_to_be_one() {
        assert_eq!(Record::decode(Bytes::from_static(&[9, 1])), Err(SpooledError::Version(9)));
    }
}
