//! The gateway's side of compiling: one process for one file. Whatever the compiler does there costs that process.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use sluicegate_core::settings::{ByteSize, CompileLimits};
use tokio_util::sync::CancellationToken;

use super::super::refusal::Problem;
use super::beside::Beside;
use super::child;
use super::precompiled::Artefact;
use super::process::{Files, Reaped, command};

/// The wall time of the process, in times of its processor time: at its low priority it waits for others.
const PATIENCE: u32 = 10;
/// It has at least so long: a machine may be busy for a while.
const LEAST_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether somebody still wants it.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// A file to compile.
pub(super) struct Work<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) limits: CompileLimits,
    pub(super) given_up: &'a CancellationToken,
    pub(super) began: Instant,
}

impl Work<'_> {
    pub(super) fn is_late(&self) -> bool {
        self.began.elapsed() >= patience(self.limits)
    }
}

/// How a process ended.
pub(super) enum Ended {
    /// By itself, and this is what it left.
    Status(ExitStatus, Files),
    TooLate,
    GivenUp,
}

/// Compiles a file in a process of its own, which ends when it is given up.
pub(super) fn compile(
    bytes: &[u8],
    limits: CompileLimits,
    given_up: &CancellationToken,
    beside: Option<&Beside>,
) -> Result<Artefact, Problem> {
    let work = Work { bytes, limits, given_up, began: Instant::now() };
    let failed = |error| Problem::Host(format!("the compiling process: {error}"));
    match run(&work, beside).map_err(failed)? {
        Ended::Status(status, files) => {
            let (words, output) = files.read().map_err(failed)?;
            judge(status, &words, limits)?;
            Artefact::left_by_the_child(output).map_err(|error| Problem::Host(format!("the compiled code: {error}")))
        }
        Ended::TooLate => Err(Problem::CompileWait { limit: patience(limits) }),
        Ended::GivenUp => Err(Problem::GivenUp),
    }
}

fn run(work: &Work<'_>, beside: Option<&Beside>) -> io::Result<Ended> {
    if work.given_up.is_cancelled() {
        return Ok(Ended::GivenUp);
    }
    let Some(beside) = beside else { return by_itself(work) };
    let ended = beside.run(work).and_then(|ended| ended.map_or_else(|| by_itself(work), Ok));
    beside.renew();
    ended
}

/// In a process that the gateway itself starts.
fn by_itself(work: &Work<'_>) -> io::Result<Ended> {
    let files = Files::new(work.bytes)?;
    let [input, output, words] = files.each().map(|file| file.try_clone_to_owned());
    let mut child = Reaped(command(work.limits.into()).stdin(input?).stdout(output?).stderr(words?).spawn()?);
    let (_, end) = child.number_and_end()?;
    while !wait(&[&end], LOOK)? {
        if work.given_up.is_cancelled() {
            return Ok(Ended::GivenUp);
        }
        if work.is_late() {
            return Ok(Ended::TooLate);
        }
    }
    Ok(Ended::Status(child.0.wait()?, files))
}

/// Whether one of them can be read within this time.
pub(super) fn wait(any: &[&dyn AsFd], limit: Duration) -> io::Result<bool> {
    let limit =
        Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() };
    let mut any: Vec<_> = any.iter().map(|one| PollFd::from_borrowed_fd(one.as_fd(), PollFlags::IN)).collect();
    match poll(&mut any, Some(&limit)) {
        Ok(0) | Err(Errno::INTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn patience(limits: CompileLimits) -> Duration {
    (limits.time * PATIENCE).max(LEAST_PATIENCE)
}

fn judge(status: ExitStatus, words: &str, limits: CompileLimits) -> Result<(), Problem> {
    let signal = status.signal().and_then(Signal::from_named_raw);
    match (status.code().map(u8::try_from), signal) {
        (Some(Ok(0)), _) => Ok(()),
        (Some(Ok(child::REFUSED)), _) if words.contains("Cannot allocate memory") => {
            Err(Problem::CompileMemory { limit: limits.memory })
        }
        (Some(Ok(child::REFUSED)), _) => Err(Problem::Engine(words.to_owned())),
        (Some(Ok(child::NO_ROOM)), _) => Err(Problem::CompileMemory { limit: limits.memory }),
        (Some(Ok(child::NOT_BEGUN)), _) => Err(Problem::Host(format!("the compiling process: {words}"))),
        (_, Some(Signal::XCPU)) => Err(Problem::CompileTime { limit: limits.time }),
        // How a program of Rust ends that gets no memory.
        (_, Some(Signal::ABORT)) if words.contains("memory allocation of") => {
            Err(Problem::CompileMemory { limit: limits.memory })
        }
        (_, Some(Signal::XFSZ)) => Err(Problem::TooMuchCode { max: ByteSize(child::MAX_ARTEFACT_BYTES) }),
        // Nobody here sends it once the process has ended: where a machine has no memory left, the system does.
        (_, Some(Signal::KILL)) => {
            Err(Problem::Host("the system killed the compiling process; the machine may be out of memory".to_owned()))
        }
        // Until it gives way it gets what is meant for all of the gateway's group: it says nothing of the file.
        (_, Some(signal @ (Signal::HUP | Signal::INT | Signal::QUIT | Signal::TERM))) => {
            Err(Problem::Host(format!("the compiling process was ended by the signal {}", signal.as_raw())))
        }
        _ if words.is_empty() => Err(Problem::Compiler(status.to_string())),
        _ => Err(Problem::Compiler(format!("{status}: {words}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_has_ten_times_the_processors_time_and_a_minute_at_least() {
        let patience =
            |seconds| patience(CompileLimits { time: Duration::from_secs(seconds), ..CompileLimits::default() });
        assert_eq!((patience(1), patience(120)), (Duration::from_secs(60), Duration::from_secs(1_200)));
    }

    #[test]
    fn what_ends_the_gateways_group_says_nothing_of_a_file() {
        let judged = |signal: Signal| {
            judge(ExitStatus::from_raw(signal.as_raw()), "", CompileLimits::default()).expect_err("it ended")
        };
        for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
            assert!(judged(signal).may_pass(), "{signal:?}");
        }
        assert!(!judged(Signal::SEGV).may_pass());
    }
}
