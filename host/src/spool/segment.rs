//! One file of the spool: records behind one another, each marked in place when it is done.
//!
//! ```text
//! file    sluicegate-spool-1 (32 bytes), then records, then zeros
//! record  state (1), `rec` (3), length (4), CRC-32 of length and body (4), body, padded to 4
//! ```
//!
//! The file has its whole size before the first record is written, so a full disk is met when it is made and never in the
//! midst of a record.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::FallocateFlags;

const HEAD: [u8; 32] = *b"sluicegate-spool-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const FRAME: usize = 12;
const MAGIC: [u8; 3] = *b"rec";
const ALIGN: usize = 4;
const LIVE: u8 = 1;
/// One value means done and every other one live: a flipped bit rather repeats a message than loses it.
const DONE: u8 = 0xd0;

/// The bytes that a record of this length takes in a file.
#[must_use]
pub(super) fn framed(body: usize) -> usize {
    (FRAME + body).next_multiple_of(ALIGN)
}

/// The least size of a file that can hold so many bytes of framed records.
pub(super) fn file_size(framed: usize) -> u64 {
    (HEAD.len() + framed) as u64
}

/// What stands in a file that was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Live records: offset and body.
    pub records: Vec<(u32, Bytes)>,
    /// Bytes that are no record, although records stand behind them.
    pub damaged: usize,
    /// Bytes at the end that are no record: a write that never ended.
    pub torn: usize,
}

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    pub path: PathBuf,
    file: File,
    /// Where the next record goes.
    used: u32,
    /// The file's size.
    pub size: u64,
    /// Records that are not done.
    pub live: usize,
    /// Their bytes.
    pub live_bytes: usize,
    /// Something in it could not be read: the file is kept for whoever wants to look.
    pub damaged: bool,
}

impl Segment {
    /// Makes one, with room for `size` bytes on the disk.
    pub(super) fn create(path: PathBuf, size: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let made = allocate(&file, size).and_then(|()| file.write_all_at(&HEAD, 0)).and_then(|()| file.sync_all());
        if let Err(error) = made {
            drop(std::fs::remove_file(&path));
            return Err(error);
        }
        Ok(Self { path, file, used: HEAD.len() as u32, size, live: 0, live_bytes: 0, damaged: false })
    }

    /// Reads one that was left, and gives back what it does not use.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Found)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = Bytes::from(std::fs::read(path)?);
        let (found, used) = scan(&bytes);
        let used = u32::try_from(used).map_err(|_| io::Error::other("the file is larger than 4 GiB"))?;
        file.set_len(u64::from(used))?;
        let live_bytes = found.records.iter().map(|(_, body)| framed(body.len())).sum();
        let damaged = found.damaged > 0;
        let size = u64::from(used);
        Ok((Self { path: path.to_owned(), file, used, size, live: found.records.len(), live_bytes, damaged }, found))
    }

    /// Room for framed bytes.
    pub(super) fn room(&self) -> usize {
        usize::try_from(self.size.saturating_sub(u64::from(self.used))).unwrap_or(0)
    }

    /// Writes records, framed and one behind the other, as [`frame`] made them. Not synced.
    pub(super) fn write(&mut self, framed: &[u8], records: usize) -> io::Result<u32> {
        let at = self.used;
        self.file.write_all_at(framed, u64::from(at))?;
        self.used += u32::try_from(framed.len()).map_err(|_| io::Error::other("a batch of more than 4 GiB"))?;
        self.live += records;
        self.live_bytes += framed.len();
        Ok(at)
    }

    /// Waits until the disk has what was written.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives back what it does not use; nothing is written behind any more.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        self.file.set_len(u64::from(self.used))?;
        self.size = u64::from(self.used);
        Ok(())
    }

    /// What stands behind this place was not to be written; the next record overwrites it.
    pub(super) fn rewind(&mut self, at: u32) {
        self.used = at;
    }

    /// A record's body; none: it is damaged.
    pub(super) fn read(&self, at: u32, length: u32) -> io::Result<Option<Bytes>> {
        let mut bytes = vec![0; FRAME + length as usize];
        self.file.read_exact_at(&mut bytes, u64::from(at))?;
        Ok(parse(&Bytes::from(bytes), 0).map(|(_, body)| body))
    }

    /// Marks a record as done. Not synced: what power loss undoes is a repeated message.
    pub(super) fn mark_done(&self, at: u32) -> io::Result<()> {
        self.file.write_all_at(&[DONE], u64::from(at))
    }

    /// A record of this length is done; `live` is what is left.
    pub(super) fn forget(&mut self, length: u32) {
        self.live -= 1;
        self.live_bytes -= framed(length as usize);
    }
}

/// What stands in a file, and its size; nothing is changed.
pub(super) fn look(path: &Path) -> io::Result<(Found, u64)> {
    let bytes = Bytes::from(std::fs::read(path)?);
    Ok((scan(&bytes).0, bytes.len() as u64))
}

fn allocate(file: &File, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        // Some file systems cannot: there the zeros are written.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 1 << 16];
            let mut at = 0;
            while at < size {
                let count = zeros.len().min(usize::try_from(size - at).unwrap_or(zeros.len()));
                file.write_all_at(&zeros[..count], at)?;
                at += count as u64;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts a record's frame and body behind `out`.
pub(super) fn frame(out: &mut Vec<u8>, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    out.push(LIVE);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(length, body).to_le_bytes());
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(body);
    hasher.finalize()
}

/// The record at a place: its state and its body.
fn parse(bytes: &Bytes, at: usize) -> Option<(u8, Bytes)> {
    let head = bytes.get(at..at + FRAME)?;
    let length: [u8; 4] = head[4..8].try_into().ok()?;
    let crc = u32::from_le_bytes(head[8..12].try_into().ok()?);
    let end = (at + FRAME).checked_add(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
    let body = bytes.get(at + FRAME..end)?;
    (head[1..4] == MAGIC && checksum(length, body) == crc).then(|| (head[0], bytes.slice(at + FRAME..end)))
}

/// Every live record, and where the last one ends.
fn scan(bytes: &Bytes) -> (Found, usize) {
    let mut found = Found::default();
    let mut at = HEAD.len().min(bytes.len());
    if bytes[..at] != HEAD[..at] {
        found.damaged += at;
    }
    let mut used = at;
    while at < bytes.len() {
        let next = (at..bytes.len()).step_by(ALIGN).find(|&place| parse(bytes, place).is_some());
        let Some(place) = next else { break };
        found.damaged += place - at;
        let Some((state, body)) = parse(bytes, place) else { break };
        at = place + framed(body.len());
        used = at.min(bytes.len());
        if state != DONE {
            found.records.push((u32::try_from(place).unwrap_or(u32::MAX), body));
        }
    }
    let rest = &bytes[used..];
    if let Some(last) = rest.iter().rposition(|&byte| byte != 0) {
        found.torn = last + 1;
    }
    (found, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_records(bodies: &[&[u8]]) -> (tempfile::TempDir, PathBuf, Vec<u32>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.segment");
        let mut segment = Segment::create(path.clone(), 4096).expect("made");
        let places = bodies
            .iter()
            .map(|body| {
                let mut out = Vec::new();
                frame(&mut out, body);
                segment.write(&out, 1).expect("written")
            })
            .collect();
        (folder, path, places)
    }

    fn bodies(found: &Found) -> Vec<&[u8]> {
        found.records.iter().map(|(_, body)| &body[..]).collect()
    }

    #[test]
    fn what_was_written_is_found_and_what_is_done_is_not() {
        let (_folder, path, places) = with_records(&[b"a", b"bb", b""]);
        let (segment, found) = Segment::open(&path).expect("opened");
        assert_eq!(bodies(&found), [&b"a"[..], b"bb", b""]);
        assert_eq!((found.damaged, found.torn), (0, 0));
        segment.mark_done(places[1]).expect("marked");
        assert_eq!(bodies(&Segment::open(&path).expect("opened").1), [&b"a"[..], b""]);
        assert_eq!(segment.read(places[1], 2).expect("read").expect("whole"), "bb");
    }

    #[test]
    fn a_flipped_bit_costs_its_own_record_and_is_told() {
        let (_folder, path, places) = with_records(&[b"first", b"second", b"third"]);
        let clean = std::fs::read(&path).expect("read");
        for bit in 0..8 * framed(6) {
            let mut bytes = clean.clone();
            bytes[places[1] as usize + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).expect("written");
            let (_, found) = Segment::open(&path).expect("opened");
            let bodies = bodies(&found);
            assert!(bodies.contains(&&b"first"[..]) && bodies.contains(&&b"third"[..]), "bit {bit}");
            // The state and the padding are not the message: flipped, they leave it whole.
            assert!(bodies.len() == 3 || found.damaged > 0, "bit {bit}");
        }
    }

    #[test]
    fn a_torn_end_is_cut_off_at_any_byte() {
        let (_folder, path, places) = with_records(&[b"first", b"second"]);
        let whole = std::fs::read(&path).expect("read");
        for end in places[1] as usize..places[1] as usize + FRAME + 6 {
            std::fs::write(&path, &whole[..end]).expect("written");
            let (_, found) = Segment::open(&path).expect("opened");
            assert_eq!(bodies(&found), [&b"first"[..]], "cut at {end}");
            assert_eq!(found.damaged, 0);
        }
    }

    #[test]
    fn a_file_of_anything_is_no_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.segment");
        for bytes in [&b""[..], b"rec", &[0; 100], &[0xff; 100]] {
            std::fs::write(&path, bytes).expect("written");
            assert!(Segment::open(&path).expect("opened").1.records.is_empty());
        }
    }
}
