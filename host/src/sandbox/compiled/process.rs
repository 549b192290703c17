//! What a process that compiles is given, whoever starts it: this program, the limits that it takes upon itself, three files, and nothing else.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, Command};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sluicegate_core::settings::CompileLimits;

/// This program, as it runs: a path may lead to another one by now, since packages are upgraded while gateways run.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";
/// What is read of what it says.
const MAX_WORDS: u64 = 1_024;

/// What it may have.
#[derive(Clone, Copy)]
pub(super) struct Task {
    /// Bytes.
    pub(super) memory: u64,
    /// Of the processor.
    pub(super) seconds: u64,
}

impl From<CompileLimits> for Task {
    fn from(limits: CompileLimits) -> Self {
        Self { memory: limits.memory.0, seconds: limits.time.as_secs().max(1) }
    }
}

/// A process that compiles, but for its three files. It ends with the one that started it.
pub(super) fn command(task: Task) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg("internal-compile");
    command.args([u64::from(std::process::id()), task.memory, task.seconds].map(|it| it.to_string()));
    // Nothing of this process's environment or folder.
    command.env_clear().current_dir("/");
    command
}

/// Files without a name, not pipes: nobody has to feed and drain the process, and what it wrote counts only once it ended well.
pub(super) struct Files {
    input: File,
    output: File,
    words: File,
}

impl Files {
    pub(super) fn new(component: &[u8]) -> io::Result<Self> {
        let file = |name: &str| memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
        let (mut input, output, words) = (file("component")?, file("code")?, file("words")?);
        input.write_all(component)?;
        input.rewind()?;
        Ok(Self { input, output, words })
    }

    /// Its standard input, output and error.
    pub(super) fn each(&self) -> [BorrowedFd<'_>; 3] {
        [self.input.as_fd(), self.output.as_fd(), self.words.as_fd()]
    }

    /// The end of what it said, and what it wrote.
    pub(super) fn read(mut self) -> io::Result<(String, File)> {
        let length = self.words.seek(SeekFrom::End(0))?;
        self.words.seek(SeekFrom::Start(length.saturating_sub(MAX_WORDS)))?;
        let mut last = Vec::new();
        self.words.take(MAX_WORDS).read_to_end(&mut last)?;
        Ok((String::from_utf8_lossy(&last).trim().escape_debug().to_string(), self.output))
    }
}

/// A process that does not outlive what waits for it.
pub(super) struct Reaped(pub(super) Child);

impl Reaped {
    /// Its number, and its pidfd, which can be read once it has ended.
    pub(super) fn number_and_end(&self) -> io::Result<(Pid, OwnedFd)> {
        let number = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| io::Error::other("no process"))?;
        Ok((number, pidfd_open(number, PidfdFlags::empty())?))
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
