//! The files of a spool, from outside: what stands where, by the format that `host/src/spool/segment.rs` describes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ledger::Key;

/// What a file begins with.
const HEAD: usize = 32;
/// What a record begins with: state, `rec`, length, CRC-32.
const FRAME: usize = 12;
const DONE: u8 = 0xd0;

/// One file of it.
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What stands in it.
    pub bytes: Vec<u8>,
    /// Live records, in order.
    pub records: Vec<Record>,
    /// Where the last record ends.
    pub end: usize,
}

/// One record.
pub struct Record {
    /// Where its frame begins.
    pub at: usize,
    /// Where its body begins and ends.
    pub body: std::ops::Range<usize>,
    /// Of which message it is.
    pub key: Key,
}

/// All files of a spool, the oldest first.
///
/// # Panics
/// Where they cannot be read, or hold what is not of the machines under load.
#[must_use]
pub fn read(folder: &Path) -> Vec<File> {
    let entries = fs::read_dir(folder).expect("the spool's folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "segment"));
    paths.sort();
    paths.into_iter().map(file).collect()
}

fn file(path: PathBuf) -> File {
    let bytes = fs::read(&path).expect("a file of the spool");
    let (mut records, mut at) = (Vec::new(), HEAD);
    while bytes.get(at + 1..at + 4) == Some(b"rec") {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four bytes")) as usize;
        let body = at + FRAME..at + FRAME + length;
        if bytes[at] != DONE {
            records.push(Record { at, body: body.clone(), key: key(&bytes[body.clone()]) });
        }
        at = body.end.next_multiple_of(4);
    }
    File { path, bytes, records, end: at }
}

/// The message of a record: its envelope stands in it as it is.
fn key(body: &[u8]) -> Key {
    const BEGIN: &[u8] = br#"{"type":"#;
    let begin = body.windows(BEGIN.len()).position(|window| window == BEGIN).expect("an envelope");
    let mut values = serde_json::Deserializer::from_slice(&body[begin..]).into_iter::<Value>();
    let job = values.next().expect("an envelope").expect("JSON");
    Key::of(&job.to_string()).expect("a job of the machines under load")
}
