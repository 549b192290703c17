//! The thread that owns the spool's files: many appends, one sync.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluicegate_core::settings::ByteSize;
use sluicegate_core::spooled::{Line, Record};
use tokio::sync::{mpsc, oneshot};

use super::SpoolError;
use super::store::{Depth, Recovered, Store, Waiting};
use crate::telemetry::causes::with_causes;
use crate::thread::Thread;

/// Requests that wait for the thread; who sends more waits, and with it the acknowledgements.
const ROOM: usize = 1_024;
/// The most requests of one sync.
const TOGETHER: usize = 256;
/// How often its depth is looked at under load.
const LOOK: Duration = Duration::from_millis(200);

enum Request {
    Append(Append),
    Read { line: Line, behind: Option<u64>, records: usize, bytes: usize, answer: oneshot::Sender<Vec<Record>> },
    Done { line: Line, numbers: Vec<u64> },
}

struct Append {
    records: Vec<Record>,
    /// The first ones may be written where there is no room for all.
    partly: bool,
    /// How many of the first are on the disk.
    answer: oneshot::Sender<Result<usize, SpoolError>>,
}

/// What the thread tells without being asked.
#[derive(Debug, Default)]
struct Shown {
    depth: Depth,
    /// Why the last append was refused, in one sentence, and when.
    refused: Option<(String, Instant)>,
}

/// Whoever has something for the spool tries again sooner: a refusal that is older is nobody's any more.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// The spool. Cheap to clone; its thread ends when all clones are gone.
#[derive(Debug, Clone)]
pub struct Spool {
    requests: mpsc::Sender<Request>,
    shown: Arc<Mutex<Shown>>,
    /// In bytes; the thread looks at it.
    max_size: Arc<AtomicU64>,
}

/// The running thread.
pub struct Writer(Thread<Result<(), SpoolError>>);

impl Spool {
    /// Opens the spool in a folder, and starts its thread.
    ///
    /// # Errors
    /// [`SpoolError`], where the folder or what stands in it cannot be used.
    pub fn open(folder: &Path, max_size: ByteSize) -> Result<(Self, Writer, Vec<Waiting>, Recovered), SpoolError> {
        let (mut store, recovered) = Store::open(folder, max_size)?;
        let waiting = store.take_waiting();
        let shown = Arc::new(Mutex::new(Shown { depth: store.depth(), refused: None }));
        let (requests, receiver) = mpsc::channel(ROOM);
        let (show, bound) = (shown.clone(), Arc::new(AtomicU64::new(max_size.0)));
        let max_size = bound.clone();
        let thread = Thread::spawn("spool", move || run(store, receiver, &show, &bound))
            .map_err(|source| SpoolError::Unusable { folder: folder.to_owned(), source })?;
        Ok((Self { requests, shown, max_size }, Writer(thread), waiting, recovered))
    }

    /// Writes records, all or none, and waits until the disk has them.
    ///
    /// # Errors
    /// [`SpoolError`]: none of them is in the spool.
    ///
    /// # Cancel safety
    /// Dropped, they may be written all the same.
    pub async fn append(&self, records: Vec<Record>) -> Result<(), SpoolError> {
        self.request(records, false).await.map(drop)
    }

    /// Writes as many of the first records as there is room for, and waits until the disk has them. Gives back how many: one
    /// at least, where there are any.
    ///
    /// # Errors
    /// [`SpoolError`]: none of them is in the spool.
    ///
    /// # Cancel safety
    /// Dropped, they may be written all the same.
    pub async fn append_first(&self, records: Vec<Record>) -> Result<usize, SpoolError> {
        self.request(records, true).await
    }

    async fn request(&self, records: Vec<Record>, partly: bool) -> Result<usize, SpoolError> {
        let (answer, answered) = oneshot::channel();
        let append = Request::Append(Append { records, partly, answer });
        self.requests.send(append).await.map_err(|_| SpoolError::Closed)?;
        answered.await.unwrap_or(Err(SpoolError::Closed))
    }

    /// The next records of a line, oldest first, behind a number: at most so many, and so many bytes, but one at least.
    /// None: nothing waits there.
    ///
    /// # Errors
    /// [`SpoolError::Closed`]: what waits there is not known.
    pub async fn read(
        &self,
        line: &Line,
        behind: Option<u64>,
        records: usize,
        bytes: usize,
    ) -> Result<Vec<Record>, SpoolError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Read { line: line.clone(), behind, records, bytes, answer };
        self.requests.send(request).await.map_err(|_| SpoolError::Closed)?;
        answered.await.map_err(|_| SpoolError::Closed)
    }

    /// These are done and never come back.
    pub async fn done(&self, line: Line, numbers: Vec<u64>) {
        // A closed spool: they come again after the restart.
        drop(self.requests.send(Request::Done { line, numbers }).await);
    }

    /// It may be so large from now on. What is larger by then shrinks as it is drained.
    pub fn bound(&self, max_size: ByteSize) {
        self.max_size.store(max_size.0, Ordering::Relaxed);
    }

    /// Shows how much stands in it, without keeping it open.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(self.shown.clone())
    }
}

/// Shows how much stands in the spool.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Mutex<Shown>>);

impl Watch {
    /// How much, and why the last append was refused, if it was.
    #[must_use]
    pub fn depth(&self) -> (Depth, Option<String>) {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = shown.refused.as_ref().filter(|(_, at)| at.elapsed() < FORGOTTEN);
        (shown.depth, refused.map(|(reason, _)| reason.clone()))
    }
}

impl Writer {
    /// Waits for its end.
    ///
    /// # Errors
    /// Where the disk failed, or the thread panicked.
    pub async fn join(self) -> Result<(), String> {
        self.0.join().await?.map_err(|error| with_causes(&error))
    }
}

fn run(
    mut store: Store,
    mut requests: mpsc::Receiver<Request>,
    shown: &Mutex<Shown>,
    max_size: &AtomicU64,
) -> Result<(), SpoolError> {
    let mut appends = Vec::new();
    let mut reads = Vec::new();
    let mut looked = Instant::now();
    while let Some(first) = requests.blocking_recv() {
        store.bound(ByteSize(max_size.load(Ordering::Relaxed)));
        let mut next = Some(first);
        let mut count = 0;
        // What is done first, since it makes room; then all appends with one sync; then what asks for records.
        while let Some(request) = next {
            match request {
                Request::Append(append) => appends.push(append),
                Request::Read { line, behind, records, bytes, answer } => {
                    reads.push((line, behind, records, bytes, answer));
                }
                Request::Done { line, numbers } => store.done(&line, &numbers),
            }
            count += 1;
            next = if count < TOGETHER { requests.try_recv().ok() } else { None };
        }
        let refused = append(&mut store, std::mem::take(&mut appends), shown)?;
        for (line, behind, records, bytes, answer) in reads.drain(..) {
            drop(answer.send(store.read(&line, behind, records, bytes)?));
        }
        // It looks at every line, and many may wait: not more often than anybody looks at it.
        let depth = (looked.elapsed() >= LOOK || requests.is_empty()).then(|| store.depth());
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(depth) = depth {
            shown.depth = depth;
            looked = Instant::now();
        }
        if let Some(refused) = refused {
            shown.refused = refused.map(|reason| (reason, Instant::now()));
        }
    }
    Ok(())
}

/// Appends all with one sync; where that is too much, one after another. Gives back what became of it, where something was
/// to be appended.
fn append(store: &mut Store, appends: Vec<Append>, shown: &Mutex<Shown>) -> Result<Option<Option<String>>, SpoolError> {
    if appends.is_empty() {
        return Ok(None);
    }
    let all: Vec<&Record> = appends.iter().flat_map(|append| &append.records).collect();
    let together = store.append(&all);
    let mut refused = None;
    match together {
        Ok(()) => {
            for Append { records, answer, .. } in appends {
                drop(answer.send(Ok(records.len())));
            }
        }
        Err(error @ SpoolError::Disk { .. }) => return Err(error),
        Err(_) => {
            for Append { records, partly, answer } in appends {
                let records: Vec<&Record> = records.iter().collect();
                let result = if partly {
                    store.append_first(&records)
                } else {
                    store.append(&records).map(|()| (records.len(), None))
                };
                match &result {
                    Err(SpoolError::Disk { what, folder, source }) => {
                        // The answer is dropped: nobody is told that it is in the spool.
                        let source = io::Error::new(source.kind(), source.to_string());
                        return Err(SpoolError::Disk { what, folder: folder.clone(), source });
                    }
                    Err(error) | Ok((_, Some(error))) => refused = Some(with_causes(error)),
                    Ok((_, None)) => {}
                }
                drop(answer.send(result.map(|(count, _)| count)));
            }
        }
    }
    let before = {
        let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.refused.as_ref().is_some_and(|(_, at)| at.elapsed() < FORGOTTEN)
    };
    match (&refused, before) {
        (Some(reason), false) => tracing::error!(%reason, "the spool takes nothing more; acknowledging stops"),
        (None, true) => tracing::info!("the spool takes messages again"),
        _ => {}
    }
    Ok(Some(refused))
}
