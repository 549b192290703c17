//! The process that compiles one file: this program again, with limits of its own. Its first acts are to make its threads, and to take the limits
//! upon itself; only then it reads a byte of the file.
//!
//! The file is its standard input, the code its standard output, which nothing else is written to: what a file says of itself ends up, escaped,
//! on standard error. How it ended is its exit code alone.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use rustix::process::{self, Pid, Resource, Rlimit, Signal};
use wasmtime::Engine;

use super::super::engine::{self, Allocation};
use super::super::generation::one_line;
use super::super::inspect::MAX_FILE_BYTES;
use super::priority;

/// The engine refuses the file; standard error says why.
pub(super) const REFUSED: u8 = 3;
/// It could not even begin; standard error says why.
pub(super) const NOT_BEGUN: u8 = 4;
/// Not even the file has room in the memory that it may have.
pub(super) const NO_ROOM: u8 = 5;
/// The largest code that is written: the gateway holds it in memory, while it loads it twice.
pub(super) const MAX_ARTEFACT_BYTES: u64 = 128 << 20;

/// Threads that compile, each a function at a time, where there are as many cores: a swap is live the sooner. More would take all cores of a small
/// machine as long as it has the priority of any other work. One that gave way leaves a core to messages: whatever the priority, two threads on two
/// cores were measured to take the p99 of a message's way to twice and more, and one to nothing that can be seen (docs/performance).
const THREADS: usize = 2;
/// Of each of them: as much as the first one has.
const STACK: usize = 8 << 20;
/// Of the thread that looks after the priority.
const SMALL_STACK: usize = 128 << 10;
/// Address space that the C library reserves for what this thread allocates, and its stack: they are nothing of what compiling may have.
const RESERVED: u64 = (64 << 20) + SMALL_STACK as u64;

/// Compiles standard input to standard output. `parent` is the process that started this one; `seconds` are of the processor. One that `gave_way` began
/// at a low priority.
#[must_use]
pub fn main(parent: u32, memory: u64, seconds: u64, gave_way: bool) -> ExitCode {
    if !gave_way {
        // Now or never: the limits forbid another thread.
        look_after_priority();
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = if gave_way { cores.saturating_sub(1) } else { cores };
    let threads = rayon::ThreadPoolBuilder::new().num_threads(cores.clamp(1, THREADS)).stack_size(STACK);
    let threads = threads.use_current_thread().build_global().map_err(io::Error::other);
    let memory = if gave_way { memory } else { memory.saturating_add(RESERVED) };
    if let Err(error) = threads.and_then(|()| confine(parent, memory, seconds)) {
        eprintln!("{error}");
        return NOT_BEGUN.into();
    }
    match compile() {
        Ok(Ok(artefact)) => match io::stdout().write_all(&artefact).and_then(|()| io::stdout().flush()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                NOT_BEGUN.into()
            }
        },
        Ok(Err(error)) => {
            eprintln!("{}", one_line(&error).escape_debug());
            REFUSED.into()
        }
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => NO_ROOM.into(),
        Err(error) => {
            eprintln!("{error}");
            NOT_BEGUN.into()
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it ends with the process, and nothing waits for it")]
fn look_after_priority() {
    let thread = std::thread::Builder::new().name("priority".to_owned()).stack_size(SMALL_STACK);
    if thread.spawn(priority::give_way_in_time).is_err() {
        // Nobody looks then: it gives way at once.
        priority::give_way();
    }
}

fn compile() -> io::Result<wasmtime::Result<Vec<u8>>> {
    let mut bytes = Vec::new();
    io::stdin().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(Engine::new(&engine::config(Allocation::OnDemand)).and_then(|engine| engine.precompile_component(&bytes)))
}

/// Takes the limits upon this process: nobody has to be trusted to have done it before.
fn confine(parent: u32, memory: u64, seconds: u64) -> io::Result<()> {
    // Not longer than the gateway: the signal comes when it ends, and where it ended before this line, another is the parent now.
    process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if process::getppid().map(Pid::as_raw_pid) != i32::try_from(parent).ok() {
        return Err(io::Error::other("the process that started this one is gone"));
    }
    let limits = [
        (Resource::As, memory, memory),
        // The signal of the first one tells what happened; the second is in case it is not enough.
        (Resource::Cpu, seconds, seconds + 1),
        (Resource::Fsize, MAX_ARTEFACT_BYTES, MAX_ARTEFACT_BYTES),
        (Resource::Core, 0, 0),
        // No other process, no other thread (where it is not root's), few files.
        (Resource::Nproc, 0, 0),
        (Resource::Nofile, 16, 16),
    ];
    for (resource, current, maximum) in limits {
        // A limit that the system set already and that is lower stays.
        let before = process::getrlimit(resource).maximum;
        let maximum = before.map_or(maximum, |before| before.min(maximum));
        process::setrlimit(resource, Rlimit { current: Some(current.min(maximum)), maximum: Some(maximum) })?;
    }
    // Where memory runs out for all, this process is the one to go. Not every system has it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}
