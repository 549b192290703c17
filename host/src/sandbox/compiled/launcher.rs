//! The process that starts those which compile, beside messages: it gave way once and for all, and what it starts begins like that.
//!
//! A process that gives way as its first act comes too late. It begins, and is given its program, with the priority of whoever starts it, and where
//! builds come one after another, messages were measured to wait for just that (docs/performance).
//!
//! The gateway asks over a socket, with the process's three files; the launcher tells which process has begun, and how it ended. It ends with the gateway,
//! and what it started ends with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::Pid;

use super::priority;
use super::process::{Files, Reaped, THIS_PROGRAM, Task, command};

/// The task's two numbers, little-endian.
const QUESTION: usize = 16;
/// What it is, and a number, little-endian.
const ANSWER: usize = 5;
const READY: u8 = 1;
const STARTED: u8 = 2;
const ENDED: u8 = 3;

/// The gateway's hold of a launcher, which ends with it.
pub(super) struct Launcher {
    socket: OwnedFd,
    process: Reaped,
}

/// What a launcher tells.
pub(super) enum Answer {
    /// It gave way, and may be asked.
    Ready,
    /// This process has begun.
    Started(Started),
    /// It has ended.
    Ended(ExitStatus),
}

/// A process that a launcher started.
pub(super) struct Started {
    pub(super) number: Pid,
    /// Its pidfd, which can be read once it has ended.
    pub(super) end: OwnedFd,
}

impl Launcher {
    pub(super) fn start() -> io::Result<Self> {
        let (socket, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let process = Command::new(THIS_PROGRAM)
            .arg("internal-launch")
            .env_clear()
            .current_dir("/")
            .stdin(its)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket, process: Reaped(process) })
    }

    /// Ends it.
    pub(super) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.process.0.kill();
    }

    /// Whether it has ended, and nothing is left of it.
    pub(super) fn is_gone(&mut self) -> bool {
        !matches!(self.process.0.try_wait(), Ok(None))
    }

    /// Asks for a process. Until it has ended nothing else may be asked.
    pub(super) fn ask(&self, task: Task, files: &Files) -> io::Result<()> {
        let mut question = [0; QUESTION];
        question[..8].copy_from_slice(&task.memory.to_le_bytes());
        question[8..].copy_from_slice(&task.seconds.to_le_bytes());
        tell(self.as_fd(), &question, &files.each())
    }

    /// Waits for what it tells next.
    pub(super) fn answer(&self) -> io::Result<Answer> {
        let mut answer = [0; ANSWER];
        let (length, files) = hear(self.as_fd(), &mut answer)?;
        let [kind, number @ ..] = answer;
        let number = i32::from_le_bytes(number);
        match (length, kind, Pid::from_raw(number), files.into_iter().next()) {
            (ANSWER, READY, ..) => Ok(Answer::Ready),
            (ANSWER, STARTED, Some(number), Some(end)) => Ok(Answer::Started(Started { number, end })),
            (ANSWER, ENDED, ..) => Ok(Answer::Ended(ExitStatus::from_raw(number))),
            _ => Err(io::Error::other("what starts the compiling process is gone")),
        }
    }
}

#[cfg(test)]
impl Launcher {
    /// One that started this process, and is stopped from then on; with its side of the socket.
    pub(super) fn stopped(mut process: Command) -> (Self, OwnedFd) {
        let (socket, its) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("two sockets");
        let process = Reaped(process.spawn().expect("it starts"));
        let (number, end) = process.number_and_end().expect("a process");
        tell(its.as_fd(), &answer(STARTED, number.as_raw_pid()), &[end.as_fd()]).expect("told");
        (Self { socket, process }, its)
    }
}

impl AsFd for Launcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the launcher does; standard input is its socket. It ends when the gateway does.
#[must_use]
pub fn main() -> ExitCode {
    priority::give_way();
    match serve(io::stdin().as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        // The gateway notices that it is gone, and starts the process itself. There is nobody else to tell.
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(socket: BorrowedFd<'_>) -> io::Result<()> {
    tell(socket, &answer(READY, 0), &[])?;
    while let Some((task, [input, output, words])) = question(socket)? {
        let child = command(task).arg("--gave-way").stdin(input).stdout(output).stderr(words).spawn()?;
        let mut child = Reaped(child);
        let (number, end) = child.number_and_end()?;
        tell(socket, &answer(STARTED, number.as_raw_pid()), &[end.as_fd()])?;
        let mut either = [PollFd::new(&end, PollFlags::IN), PollFd::new(&socket, PollFlags::IN)];
        retry_on_intr(|| poll(&mut either, None))?;
        // Nothing is asked while a process runs: what comes from the gateway is its end.
        if !either[1].revents().is_empty() {
            break;
        }
        tell(socket, &answer(ENDED, child.0.wait()?.into_raw()), &[])?;
    }
    Ok(())
}

/// None: the gateway is gone.
fn question(socket: BorrowedFd<'_>) -> io::Result<Option<(Task, [OwnedFd; 3])>> {
    let mut question = [0; QUESTION];
    let (length, files) = hear(socket, &mut question)?;
    if length == 0 {
        return Ok(None);
    }
    let (memory, seconds) = question.split_at(8);
    match (memory.try_into(), seconds.try_into(), files.try_into()) {
        (Ok(memory), Ok(seconds), Ok(files)) if length == QUESTION => {
            Ok(Some((Task { memory: u64::from_le_bytes(memory), seconds: u64::from_le_bytes(seconds) }, files)))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn answer(kind: u8, number: i32) -> [u8; ANSWER] {
    let mut answer = [kind; ANSWER];
    answer[1..].copy_from_slice(&number.to_le_bytes());
    answer
}

/// One message; the socket keeps them apart (unix(7), `SOCK_SEQPACKET`).
fn tell(socket: BorrowedFd<'_>, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(message)], &mut rights, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Waits for a message. Of no bytes: the other side is gone.
fn hear(socket: BorrowedFd<'_>, message: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received =
        retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(message)], &mut rights, RecvFlags::CMSG_CLOEXEC))?;
    let files = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok((received.bytes, files.flatten().collect()))
}
