//! The gateway's side of compiling: one process for one file. Whatever the compiler does there costs that process.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use sluicegate_core::settings::{ByteSize, CompileLimits};
use tokio_util::sync::CancellationToken;

use super::super::refusal::Problem;
use super::child;
use super::precompiled::Artefact;

/// This program, as it runs: a path may lead to another one by now, since packages are upgraded while gateways run.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// The wall time of the process, in times of its processor time: at its low priority it waits for others.
const PATIENCE: u32 = 10;
/// It has at least so long: a machine may be busy for a while.
const LEAST_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether somebody still wants it.
const LOOK: Duration = Duration::from_millis(50);
/// What is read of what it says.
const MAX_WORDS: u64 = 1_024;

/// Compiles a file in a process of its own, which ends when it is given up.
pub(super) fn compile(bytes: &[u8], limits: CompileLimits, given_up: &CancellationToken) -> Result<Artefact, Problem> {
    let ended =
        run(bytes, limits, given_up).map_err(|error| Problem::Host(format!("the compiling process: {error}")))?;
    match ended {
        Ended::Status(status, words, output) => judge(status, &words, limits).and_then(|()| {
            Artefact::left_by_the_child(output).map_err(|error| Problem::Host(format!("the compiled code: {error}")))
        }),
        Ended::TooLate => Err(Problem::CompileWait { limit: patience(limits) }),
        Ended::GivenUp => Err(Problem::GivenUp),
    }
}

enum Ended {
    /// How, what it said, and what it wrote.
    Status(ExitStatus, String, File),
    TooLate,
    GivenUp,
}

fn run(bytes: &[u8], limits: CompileLimits, given_up: &CancellationToken) -> io::Result<Ended> {
    if given_up.is_cancelled() {
        return Ok(Ended::GivenUp);
    }
    // Files without a name, not pipes: nobody has to feed and drain the process, and what it wrote counts only once it ended well.
    let file = |name: &str| memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
    let (mut input, output, mut words) = (file("component")?, file("code")?, file("words")?);
    input.write_all(bytes)?;
    input.rewind()?;
    // Nothing of this process's environment, folder or files beyond these three.
    let child = Command::new(THIS_PROGRAM)
        .arg("internal-compile")
        .args([u64::from(std::process::id()), limits.memory.0, limits.time.as_secs().max(1)].map(|it| it.to_string()))
        .env_clear()
        .current_dir("/")
        .stdin(input)
        .stdout(output.try_clone()?)
        .stderr(words.try_clone()?)
        .spawn()?;
    let Some(status) = wait(Reaped(child), patience(limits), given_up)? else {
        return Ok(if given_up.is_cancelled() { Ended::GivenUp } else { Ended::TooLate });
    };
    let length = words.seek(SeekFrom::End(0))?;
    words.seek(SeekFrom::Start(length.saturating_sub(MAX_WORDS)))?;
    let mut last = Vec::new();
    words.take(MAX_WORDS).read_to_end(&mut last)?;
    Ok(Ended::Status(status, String::from_utf8_lossy(&last).trim().escape_debug().to_string(), output))
}

fn patience(limits: CompileLimits) -> Duration {
    (limits.time * PATIENCE).max(LEAST_PATIENCE)
}

/// A process that does not outlive what waits for it.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How it ended; none: it did not in time, or was given up, and was killed.
fn wait(mut child: Reaped, limit: Duration, given_up: &CancellationToken) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.0.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no process"))?;
    let end = pidfd_open(pid, PidfdFlags::empty())?;
    let began = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() || given_up.is_cancelled() {
            return Ok(None);
        }
        let left = left.min(LOOK);
        let left =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&left)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return child.0.wait().map(Some),
            Err(error) => return Err(error.into()),
        }
    }
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
