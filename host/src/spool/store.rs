//! The files of the spool, and which record waits where. It blocks: its own thread calls it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Access;
use sluicegate_core::settings::ByteSize;
use sluicegate_core::spooled::{Body, Line, Record};

use super::SpoolError;
use super::segment::{self, Segment, file_size, framed};
use crate::lock::Lock;

/// The largest file, unless a record alone is larger.
const SEGMENT: u64 = 8 << 20;
const LEAST_SEGMENT: u64 = 64 << 10;

/// Where a record is.
#[derive(Debug, Clone, Copy)]
struct Slot {
    number: u64,
    segment: u32,
    at: u32,
    length: u32,
    /// When its message arrived, in seconds since 1970.
    since: u32,
}

/// What was found when the spool was opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Records that wait.
    pub records: usize,
    /// Bytes that could not be read, with records behind them.
    pub damaged: usize,
    /// Bytes of a write that never ended.
    pub torn: usize,
}

/// What an earlier run left in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub line: Line,
    /// The highest number in it.
    pub highest: u64,
    /// How many messages of which route.
    pub routes: Vec<(Option<Arc<str>>, usize)>,
}

impl Waiting {
    fn add(&mut self, record: &Record) {
        self.highest = self.highest.max(record.number);
        let route = match (&record.line, &record.body) {
            (Line::Machine { route, .. }, _) => Some(route.clone()),
            (_, Body::Job(job)) => job.route.clone(),
            (Line::List { .. }, Body::Parked(_)) => None,
        };
        match self.routes.iter_mut().find(|(other, _)| *other == route) {
            Some((_, messages)) => *messages += 1,
            None => self.routes.push((route, 1)),
        }
    }
}

/// How much stands in it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Depth {
    /// Records of lists.
    pub jobs: usize,
    /// Parked messages.
    pub parked: usize,
    /// Bytes on the disk.
    pub bytes: u64,
    /// When the oldest message arrived, in seconds since 1970; none: it is empty.
    pub oldest: Option<u32>,
}

/// The files and what stands in them.
///
/// Invariant: a record is in `lines` only after its file is synced, and until it is marked as done.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    /// Open all the time: to sync names must not take a file descriptor that there may not be.
    names: File,
    _lock: Lock,
    max_size: u64,
    segment_size: u64,
    /// By number; the last one is written to, once something was.
    segments: BTreeMap<u32, Segment>,
    active: Option<u32>,
    next: u32,
    lines: HashMap<Line, VecDeque<Slot>>,
    jobs: usize,
    parked: usize,
    /// What was there at the start; taken once.
    waiting: HashMap<Line, Waiting>,
}

impl Store {
    /// Opens the folder, making it where it is not there, and reads what was left.
    pub(super) fn open(folder: &Path, max_size: ByteSize) -> Result<(Self, Recovered), SpoolError> {
        let unusable = |source| SpoolError::Unusable { folder: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let lock = lock(folder)?;
        let mut store = Self {
            folder: folder.to_owned(),
            names: File::open(folder).map_err(unusable)?,
            _lock: lock,
            max_size: max_size.0,
            segment_size: (max_size.0 / 8).clamp(LEAST_SEGMENT, SEGMENT),
            segments: BTreeMap::new(),
            active: None,
            next: 1,
            lines: HashMap::new(),
            jobs: 0,
            parked: 0,
            waiting: HashMap::new(),
        };
        let recovered = store.recover()?;
        Ok((store, recovered))
    }

    /// Its bound from now on. The files that there are keep their size.
    pub(super) fn bound(&mut self, max_size: ByteSize) {
        self.max_size = max_size.0;
        self.segment_size = (max_size.0 / 8).clamp(LEAST_SEGMENT, SEGMENT);
    }

    fn recover(&mut self) -> Result<Recovered, SpoolError> {
        let unusable = |source| SpoolError::Unusable { folder: self.folder.clone(), source };
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(unusable)? {
            let name = entry.map_err(unusable)?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".segment")?.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        let mut recovered = Recovered::default();
        for number in numbers {
            let path = self.path(number);
            let (segment, found) =
                Segment::open(&path).map_err(|source| SpoolError::Unreadable { file: path.clone(), source })?;
            recovered.damaged += found.damaged;
            recovered.torn += found.torn;
            self.segments.insert(number, segment);
            self.next = number + 1;
            for (at, body) in found.records {
                let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
                let record =
                    Record::decode(body).map_err(|source| SpoolError::Foreign { file: path.clone(), source })?;
                let slot = Slot { number: record.number, segment: number, at, length, since: seconds(record.at) };
                if self.insert(&record.line, slot) {
                    let line = record.line.clone();
                    let none = || Waiting { line: line.clone(), highest: 0, routes: Vec::new() };
                    self.waiting.entry(line.clone()).or_insert_with(none).add(&record);
                } else {
                    // It was copied to another file, and the gateway died before this one was removed.
                    self.mark(slot);
                    self.forget(slot);
                }
            }
            self.remove_if_empty(number);
        }
        recovered.records = self.jobs + self.parked;
        Ok(recovered)
    }

    /// What an earlier run left, line by line.
    pub(super) fn take_waiting(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// Writes records and waits until the disk has them: all or none.
    ///
    /// # Errors
    /// [`SpoolError::Full`], [`SpoolError::DiskFull`], [`SpoolError::Unusable`]: nothing was written, and it may be tried
    /// again. [`SpoolError::Disk`]: nothing may be written any more.
    pub(super) fn append(&mut self, records: &[&Record]) -> Result<(), SpoolError> {
        let mut written: Vec<(Line, Slot)> = Vec::with_capacity(records.len());
        if let Err(error) = self.write(records, &mut written) {
            self.unwrite(written);
            return Err(error);
        }
        let mut touched: Vec<u32> = written.iter().map(|(_, slot)| slot.segment).collect();
        touched.dedup();
        for number in touched {
            self.on(number, |segment| segment.sync())?;
        }
        for (line, slot) in written {
            self.insert(&line, slot);
        }
        Ok(())
    }

    /// Appends as many of the first records as there is room for, and says why not all. A batch may be larger than the whole
    /// spool: as one it would never fit.
    ///
    /// # Errors
    /// As [`Store::append`], where there is no room for the first one.
    pub(super) fn append_first(&mut self, records: &[&Record]) -> Result<(usize, Option<SpoolError>), SpoolError> {
        let (mut count, mut reason) = (records.len(), None);
        loop {
            match self.append(&records[..count]) {
                Ok(()) => return Ok((count, reason)),
                Err(error) if error.may_pass() && count > 1 => (count, reason) = (count / 2, Some(error)),
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, records: &[&Record], written: &mut Vec<(Line, Slot)>) -> Result<(), SpoolError> {
        let mut out = Vec::new();
        let mut staged: Vec<(Line, Slot)> = Vec::new();
        let mut body = Vec::new();
        for record in records {
            body.clear();
            record.encode(&mut body);
            let room = self.active.and_then(|number| self.segments.get(&number)).map_or(0, Segment::room);
            if out.len() + framed(body.len()) > room {
                self.flush(&mut out, &mut staged, written)?;
                self.roll(framed(body.len()))?;
            }
            let slot = Slot {
                number: record.number,
                segment: self.active.unwrap_or_default(),
                at: u32::try_from(out.len()).unwrap_or(u32::MAX),
                length: u32::try_from(body.len()).unwrap_or(u32::MAX),
                since: seconds(record.at),
            };
            staged.push((record.line.clone(), slot));
            segment::frame(&mut out, &body);
        }
        self.flush(&mut out, &mut staged, written)
    }

    /// The batch did not fit: what was written of it is no record, and its place is free again.
    fn unwrite(&mut self, written: Vec<(Line, Slot)>) {
        // The last one first, so that each file ends where it ended before.
        for (_, slot) in written.into_iter().rev() {
            self.mark(slot);
            self.forget(slot);
            if let Some(segment) = self.segments.get_mut(&slot.segment) {
                segment.rewind(slot.at);
            }
            self.remove_if_empty(slot.segment);
        }
    }

    /// Writes what is staged for the active file: one write for many records.
    fn flush(
        &mut self,
        out: &mut Vec<u8>,
        staged: &mut Vec<(Line, Slot)>,
        written: &mut Vec<(Line, Slot)>,
    ) -> Result<(), SpoolError> {
        if staged.is_empty() {
            return Ok(());
        }
        let count = staged.len();
        let begin = self.on(self.active.unwrap_or_default(), |segment| segment.write(out, count))?;
        written.extend(staged.drain(..).map(|(line, slot)| (line, Slot { at: begin + slot.at, ..slot })));
        out.clear();
        Ok(())
    }

    /// The next records of a line, oldest first, behind a number; at most so many, and so many bytes, but one at least.
    ///
    /// # Errors
    /// [`SpoolError::Disk`].
    pub(super) fn read(
        &mut self,
        line: &Line,
        behind: Option<u64>,
        records: usize,
        bytes: usize,
    ) -> Result<Vec<Record>, SpoolError> {
        let mut out = Vec::new();
        let mut total = 0;
        let mut damaged = Vec::new();
        let Some(slots) = self.lines.get(line) else { return Ok(out) };
        let from = behind.map_or(0, |behind| slots.partition_point(|slot| slot.number <= behind));
        for slot in slots.range(from..) {
            total += slot.length as usize;
            if out.len() == records || (!out.is_empty() && total > bytes) {
                break;
            }
            let Some(segment) = self.segments.get(&slot.segment) else { continue };
            let body = segment.read(slot.at, slot.length).map_err(|source| self.disk("read", source))?;
            match body.map(Record::decode) {
                Some(Ok(record)) => out.push(record),
                Some(Err(_)) | None => damaged.push(*slot),
            }
        }
        for slot in damaged {
            let path = self.path(slot.segment);
            tracing::error!(file = %path.display(), offset = slot.at, "a record of the spool is damaged; the file is kept");
            if let Some(segment) = self.segments.get_mut(&slot.segment) {
                segment.damaged = true;
            }
            self.done(line, &[slot.number]);
        }
        Ok(out)
    }

    /// These are done: they never come back, except where power fails before the disk has the mark.
    pub(super) fn done(&mut self, line: &Line, numbers: &[u64]) {
        let Some(slots) = self.lines.get_mut(line) else { return };
        let mut gone = Vec::with_capacity(numbers.len());
        for number in numbers {
            if let Ok(index) = slots.binary_search_by_key(number, |slot| slot.number) {
                gone.extend(if index == 0 { slots.pop_front() } else { slots.remove(index) });
            }
        }
        if slots.is_empty() {
            self.lines.remove(line);
        } else if slots.capacity() > 64 && slots.len() * 4 < slots.capacity() {
            slots.shrink_to_fit();
        }
        *self.count(line) -= gone.len();
        for slot in &gone {
            self.forget(*slot);
        }
        for slot in &gone {
            // A file that goes as a whole needs no marks.
            let goes = self.active != Some(slot.segment)
                && self.segments.get(&slot.segment).is_some_and(|segment| segment.live == 0 && !segment.damaged);
            if !goes {
                self.mark(*slot);
            }
        }
        for slot in &gone {
            self.remove_if_empty(slot.segment);
        }
    }

    /// How much stands in it. Looks at every line for the oldest message.
    pub(super) fn depth(&self) -> Depth {
        Depth {
            jobs: self.jobs,
            parked: self.parked,
            bytes: self.size(),
            oldest: self.lines.values().filter_map(|slots| Some(slots.front()?.since)).min(),
        }
    }

    fn size(&self) -> u64 {
        self.segments.values().map(|segment| segment.size).sum()
    }

    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number:010}.segment"))
    }

    fn disk(&self, what: &'static str, source: io::Error) -> SpoolError {
        SpoolError::Disk { what, folder: self.folder.clone(), source }
    }

    fn on<T>(&mut self, number: u32, work: impl FnOnce(&mut Segment) -> io::Result<T>) -> Result<T, SpoolError> {
        let segment = self.segments.get_mut(&number).map_or(Err(io::Error::other("a file is gone")), work);
        segment.map_err(|source| self.disk("write", source))
    }

    /// Keeps a line in the order of its numbers; false: the number stands there already.
    fn insert(&mut self, line: &Line, slot: Slot) -> bool {
        let slots = match self.lines.get_mut(line) {
            Some(slots) => slots,
            None => self.lines.entry(line.clone()).or_default(),
        };
        match slots.binary_search_by_key(&slot.number, |other| other.number) {
            Ok(_) => return false,
            Err(index) if index == slots.len() => slots.push_back(slot),
            Err(index) => slots.insert(index, slot),
        }
        *self.count(line) += 1;
        true
    }

    fn count(&mut self, line: &Line) -> &mut usize {
        match line {
            Line::List { .. } => &mut self.jobs,
            Line::Machine { .. } => &mut self.parked,
        }
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(segment) = self.segments.get_mut(&slot.segment) {
            segment.forget(slot.length);
        }
    }

    fn mark(&self, slot: Slot) {
        if let Some(segment) = self.segments.get(&slot.segment)
            && let Err(error) = segment.mark_done(slot.at)
        {
            tracing::warn!(%error, "cannot mark a record of the spool as done; it may come again after a restart");
        }
    }

    /// Makes a new file that holds at least so many framed bytes.
    fn roll(&mut self, least: usize) -> Result<(), SpoolError> {
        let size = self.segment_size.max(file_size(least));
        if let Some(active) = self.active.take() {
            // What the last one does not use is given back.
            self.on(active, Segment::seal)?;
            self.remove_if_empty(active);
        }
        self.compact()?;
        if self.size() + size > self.max_size {
            return Err(SpoolError::Full(ByteSize(self.max_size)));
        }
        let number = self.next;
        let segment = Segment::create(self.path(number), size).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                SpoolError::DiskFull { folder: self.folder.clone(), source }
            }
            // Out of file descriptors, for one: it passes.
            _ => SpoolError::Unusable { folder: self.folder.clone(), source },
        })?;
        self.next += 1;
        self.segments.insert(number, segment);
        self.sync_names()?;
        self.active = Some(number);
        Ok(())
    }

    /// The name of a file has to outlive a power cut as well as what stands in it.
    fn sync_names(&self) -> Result<(), SpoolError> {
        self.names.sync_all().map_err(|source| self.disk("sync", source))
    }

    /// When the spool is nearly full, what still waits in files that are mostly done is copied together.
    fn compact(&mut self) -> Result<(), SpoolError> {
        let live: u64 = self.segments.values().map(|segment| segment.live_bytes as u64).sum();
        if self.size() * 4 < self.max_size * 3 || live * 2 > self.size() {
            return Ok(());
        }
        let mut sparse: Vec<u32> = Vec::new();
        let mut bytes = 0;
        for (number, segment) in &self.segments {
            let fits = bytes + segment.live_bytes as u64 <= self.segment_size / 2;
            if Some(*number) != self.active && segment.live_bytes as u64 * 4 < segment.size && fits {
                bytes += segment.live_bytes as u64;
                sparse.push(*number);
            }
        }
        if sparse.len() < 2 {
            return Ok(());
        }
        let moving: Vec<(Line, Slot)> = self
            .lines
            .iter()
            .flat_map(|(line, slots)| slots.iter().map(move |slot| (line.clone(), *slot)))
            .filter(|(_, slot)| sparse.contains(&slot.segment))
            .collect();
        let number = self.next;
        let mut out = Vec::new();
        let mut places = Vec::new();
        for (_, slot) in &moving {
            places.push(u32::try_from(out.len()).unwrap_or(u32::MAX));
            let body = self.segments.get(&slot.segment).map(|segment| segment.read(slot.at, slot.length));
            if let Some(Ok(Some(body))) = body {
                segment::frame(&mut out, &body);
            } else {
                // Damaged: whoever reads it says so; here nothing is moved.
                return Ok(());
            }
        }
        // One file more for a moment, to have many less.
        let Ok(mut copy) = Segment::create(self.path(number), file_size(out.len())) else { return Ok(()) };
        let written = copy.write(&out, moving.len()).and_then(|begin| copy.sync().map(|()| begin));
        let begin = written.map_err(|source| self.disk("write", source))?;
        self.next += 1;
        self.segments.insert(number, copy);
        // Before the files that it was copied from go.
        self.sync_names()?;
        for ((line, slot), place) in moving.into_iter().zip(places) {
            let slots = self.lines.entry(line).or_default();
            if let Ok(index) = slots.binary_search_by_key(&slot.number, |other| other.number) {
                slots[index] = Slot { segment: number, at: begin + place, ..slot };
            }
            if let Some(segment) = self.segments.get_mut(&slot.segment) {
                segment.forget(slot.length);
            }
        }
        for number in sparse {
            self.remove_if_empty(number);
        }
        Ok(())
    }

    fn remove_if_empty(&mut self, number: u32) {
        if self.active == Some(number) || self.segments.get(&number).is_none_or(|segment| segment.live > 0) {
            return;
        }
        let Some(segment) = self.segments.remove(&number) else { return };
        let removed = if segment.damaged {
            fs::rename(&segment.path, segment.path.with_extension("damaged"))
        } else {
            fs::remove_file(&segment.path)
        };
        if let Err(error) = removed {
            tracing::warn!(file = %segment.path.display(), %error, "cannot remove a file of the spool that is done");
        }
    }
}

fn seconds(millis: i64) -> u32 {
    u32::try_from(millis / 1_000).unwrap_or(0)
}

fn lock(folder: &Path) -> Result<Lock, SpoolError> {
    let unusable = |source| SpoolError::Unusable { folder: folder.to_owned(), source };
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
    Lock::take(file).map_err(|error| match error {
        TryLockError::WouldBlock => SpoolError::InUse(folder.to_owned()),
        TryLockError::Error(source) => unusable(source),
    })
}

/// Whether a gateway could use this folder, as far as can be told without touching it: one may be using it now.
///
/// # Errors
/// [`SpoolError::Unusable`], where it could not be made or written.
pub fn usable(folder: &Path) -> Result<(), SpoolError> {
    let unusable = |source: io::Error| SpoolError::Unusable { folder: folder.to_owned(), source };
    // What is not there would be made in the nearest folder above it that is.
    let missing = |path: &&Path| fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let there = folder.ancestors().find(|path| !missing(path)).filter(|path| !path.as_os_str().is_empty());
    let there = there.unwrap_or(Path::new("."));
    if !fs::metadata(there).map_err(unusable)?.is_dir() {
        return Err(unusable(io::ErrorKind::NotADirectory.into()));
    }
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(there, all).map_err(|error| unusable(error.into()))
}

/// What waits in the folder of a gateway that does not run; nothing is changed.
///
/// # Errors
/// [`SpoolError`], where it cannot be read, or a gateway uses it.
pub fn look(folder: &Path) -> Result<(Depth, Recovered), SpoolError> {
    let unusable = |source| SpoolError::Unusable { folder: folder.to_owned(), source };
    let _lock = if folder.join("lock").exists() { Some(lock(folder)?) } else { None };
    let (mut depth, mut recovered) = (Depth::default(), Recovered::default());
    for entry in fs::read_dir(folder).map_err(unusable)? {
        let path = entry.map_err(unusable)?.path();
        if path.extension().is_none_or(|ending| ending != "segment") {
            continue;
        }
        let (found, size) =
            segment::look(&path).map_err(|source| SpoolError::Unreadable { file: path.clone(), source })?;
        depth.bytes += size;
        recovered.damaged += found.damaged;
        recovered.torn += found.torn;
        for (_, body) in found.records {
            let record = Record::decode(body).map_err(|source| SpoolError::Foreign { file: path.clone(), source })?;
            match record.line {
                Line::List { .. } => depth.jobs += 1,
                Line::Machine { .. } => depth.parked += 1,
            }
            let since = seconds(record.at);
            depth.oldest = Some(depth.oldest.map_or(since, |oldest| oldest.min(since)));
        }
    }
    recovered.records = depth.jobs + depth.parked;
    Ok((depth, recovered))
}
