//! Compiling beside messages: by a process that gave way before it began, as long as the machine has time to spare for it.

use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::launcher::{Answer, Launcher, Started};
use super::parent::{Ended, Work, wait};
use super::priority;
use super::process::Files;

/// How often it is looked whether the process gets enough: as long as it waits, so does the swap.
const LOOK: Duration = Duration::from_millis(10);
/// How long a launcher may take to start a process, and how long one must have been there before what it had says anything.
const SOON: Duration = Duration::from_millis(20);
/// For so long after one got too little none is tried; twice as long each time that the next one gets too little, too.
const PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(160);
/// How long a launcher may take to tell of an end.
const ANSWER: Duration = Duration::from_secs(1);

/// What has builds compiled beside messages.
pub(super) struct Beside(Mutex<Place>);

/// A launcher's.
#[derive(Default)]
struct Place {
    /// None while it is in use, and after it failed.
    launcher: Option<Launcher>,
    /// It gave way.
    ready: bool,
    /// What was ended and is not gone yet.
    dying: Vec<Dying>,
    /// When a process got too little, and for how long none is tried since.
    starved: Option<(Instant, Duration)>,
}

/// How it went with a process.
enum Went {
    Ended(ExitStatus),
    Starved,
    GivenUp,
    TooLate,
}

impl Beside {
    /// Starts a launcher, so that it is there before it is needed. None: the kernel does not tell what a process had, so nobody would notice where it
    /// gets too little.
    pub(super) fn start() -> Option<Self> {
        priority::had(rustix::process::getpid()).filter(|had| !had.is_zero())?;
        let mut place = Place::default();
        place.start();
        Some(Self(Mutex::new(place)))
    }

    /// Starts another launcher where the one before failed, so that it is there before it is needed.
    pub(super) fn renew(&self) {
        let mut place = self.place();
        place.dying.retain_mut(|dying| !dying.has_ended());
        if place.launcher.is_none() {
            place.start();
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles; none: this is no time for it.
    pub(super) fn run(&self, work: &Work<'_>) -> io::Result<Option<Ended>> {
        // Files are compiled one at a time: nobody else looks for it meanwhile.
        let taken = self.place().take(Instant::now());
        let Some(launcher) = taken else { return Ok(None) };
        let files = Files::new(work.bytes)?;
        let mut process = None;
        let went = follow(&launcher, &files, work, &mut process);
        let stays = match &went {
            // Where it gets too little the launcher does, too: its answer would take long.
            Err(_) | Ok(Went::Starved) => false,
            Ok(Went::Ended(_)) => true,
            Ok(Went::GivenUp | Went::TooLate) => end(&launcher, process.as_ref()).is_ok(),
        };
        if stays {
            self.place().launcher = Some(launcher);
        } else {
            let dying = Dying::begin(launcher, process);
            self.place().dying.push(dying);
        }
        match went {
            Ok(Went::Ended(status)) => {
                self.place().starved = None;
                Ok(Some(Ended::Status(status, files)))
            }
            // It had its time: another process would take as long again.
            Err(error) if work.began.elapsed() > priority::HEAD_START => Err(error),
            Err(error) => {
                tracing::warn!(%error, "a build is compiled at the priority of messages");
                Ok(None)
            }
            Ok(Went::Starved) => {
                tracing::debug!("the machine has no time to spare: a build is compiled at the priority of messages");
                self.place().starve(Instant::now());
                Ok(None)
            }
            Ok(Went::GivenUp) => Ok(Some(Ended::GivenUp)),
            Ok(Went::TooLate) => Ok(Some(Ended::TooLate)),
        }
    }
}

impl Place {
    /// A launcher that may be asked now.
    fn take(&mut self, now: Instant) -> Option<Launcher> {
        if !self.ready
            && let Some(launcher) = self.launcher.take_if(|one| wait(&[&*one], Duration::ZERO).unwrap_or(true))
            // It tells nothing else at first; where it is gone, the next one will tell it.
            && matches!(launcher.answer(), Ok(Answer::Ready))
        {
            self.launcher = Some(launcher);
            self.ready = true;
        }
        if self.ready && !self.is_starved(now) { self.launcher.take() } else { None }
    }

    fn is_starved(&self, now: Instant) -> bool {
        self.starved.is_some_and(|(then, pause)| now.saturating_duration_since(then) < pause)
    }

    fn starve(&mut self, now: Instant) {
        let pause = self.starved.map_or(PAUSE, |(_, pause)| (2 * pause).min(LONGEST_PAUSE));
        self.starved = Some((now, pause));
    }

    fn start(&mut self) {
        let launcher = Launcher::start();
        self.ready = false;
        self.launcher = launcher
            .inspect_err(|error| tracing::warn!(%error, "builds are compiled at the priority of messages"))
            .ok();
    }
}

/// Asks for a process, and stays with it until it has ended, or is to end.
fn follow(launcher: &Launcher, files: &Files, work: &Work<'_>, process: &mut Option<Started>) -> io::Result<Went> {
    launcher.ask(work.limits.into(), files)?;
    let mut began = Instant::now();
    loop {
        let early = began.elapsed() < priority::HEAD_START;
        let look = if early { LOOK } else { super::parent::LOOK };
        let told = match process {
            Some(process) => wait(&[launcher, &process.end], look)?,
            None => wait(&[launcher], look)?,
        };
        if told {
            // Where it is the process that has ended, the launcher tells how.
            if !wait(&[launcher], ANSWER)? {
                return Err(io::Error::other("what starts the compiling process does not answer"));
            }
            match launcher.answer()? {
                Answer::Started(started) => *process = Some(started),
                Answer::Ended(status) => return Ok(Went::Ended(status)),
                Answer::Ready => return Err(io::Error::other("what starts the compiling process is another one")),
            }
            began = Instant::now();
            continue;
        }
        if work.given_up.is_cancelled() {
            return Ok(Went::GivenUp);
        }
        if work.is_late() {
            return Ok(Went::TooLate);
        }
        let starved = match process {
            Some(process) => early && gets_too_little(priority::had(process.number), began.elapsed()),
            None => began.elapsed() >= SOON,
        };
        if starved {
            return Ok(Went::Starved);
        }
    }
}

/// Whether a process that has been there for so long, and always had something to do, got less than two thirds of one core. Where it is not told, it has
/// just ended.
fn gets_too_little(had: Option<Duration>, there: Duration) -> bool {
    there >= SOON && had.is_some_and(|had| had * 3 < there * 2)
}

/// Ends what the launcher started, which is ready for the next then. It is not, where it cannot say so.
fn end(launcher: &Launcher, process: Option<&Started>) -> io::Result<()> {
    let unanswered = || io::Error::other("it does not answer");
    let process = process.ok_or_else(unanswered)?;
    // It may have ended in this moment.
    let _ = pidfd_send_signal(&process.end, Signal::KILL);
    if !wait(&[launcher], ANSWER)? {
        return Err(unanswered());
    }
    match launcher.answer()? {
        Answer::Ended(_) => Ok(()),
        Answer::Started(_) | Answer::Ready => Err(unanswered()),
    }
}

/// A launcher that is ended, and what it started. Nobody waits for them: what gets too little of the processors takes long to end, too.
struct Dying {
    launcher: Launcher,
    process: Option<Started>,
}

impl Dying {
    fn begin(mut launcher: Launcher, process: Option<Started>) -> Self {
        // They may have ended already.
        launcher.kill();
        if let Some(process) = &process {
            let _ = pidfd_send_signal(&process.end, Signal::KILL);
        }
        Self { launcher, process }
    }

    fn has_ended(&mut self) -> bool {
        if !self.launcher.is_gone() {
            return false;
        }
        let Some(process) = &self.process else { return true };
        let ended = wait(&[&process.end], Duration::ZERO).unwrap_or(true);
        // Where the gateway is the first process of a container, what lost its parent is its own. By the pidfd: its number may be another's by now.
        let _ = waitid(WaitId::PidFd(process.end.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use sluicegate_core::settings::CompileLimits;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn a_process_gets_too_little_where_it_had_less_than_two_thirds_of_a_core() {
        let ms = Duration::from_millis;
        for (had, there, little) in
            [(0, 19, false), (19, 30, true), (20, 30, false), (400, 601, true), (900, 601, false)]
        {
            assert_eq!(gets_too_little(Some(ms(had)), ms(there)), little, "{had} of {there}");
        }
        assert!(!gets_too_little(None, ms(20)));
    }

    /// What becomes of a build whose launcher is stopped once it started this process.
    fn stopped(process: &str) -> (io::Result<Option<Ended>>, Place) {
        let mut command = Command::new(process);
        command.arg("60");
        let (launcher, _its) = Launcher::stopped(command);
        let beside = Beside(Mutex::new(Place { launcher: Some(launcher), ready: true, ..Place::default() }));
        let given_up = CancellationToken::new();
        let work = Work {
            bytes: b"a component",
            limits: CompileLimits::default(),
            given_up: &given_up,
            began: Instant::now(),
        };
        (beside.run(&work), beside.0.into_inner().expect("a place"))
    }

    #[test]
    fn a_launcher_that_is_stopped_in_the_middle_is_waited_for_for_a_second() {
        // It never has anything to do.
        let (ended, place) = stopped("sleep");
        assert!(matches!(ended, Ok(None)) && place.launcher.is_none() && place.is_starved(Instant::now()));
        // It has ended, and nobody tells how.
        let (ended, place) = stopped("true");
        let error = ended.err().expect("it had its time").to_string();
        assert!(error.contains("does not answer") && place.launcher.is_none() && place.starved.is_none(), "{error}");
    }

    #[test]
    fn after_one_that_got_too_little_none_is_tried_for_a_while_and_longer_each_time() {
        let mut place = Place::default();
        let mut now = Instant::now();
        assert!(!place.is_starved(now));
        for seconds in [10, 20, 40, 80, 160, 160] {
            place.starve(now);
            now += Duration::from_secs(seconds);
            assert!(place.is_starved(now - LOOK) && !place.is_starved(now), "{seconds}");
        }
    }
}
