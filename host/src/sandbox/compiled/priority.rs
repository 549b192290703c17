//! What priority the process that compiles has, beside messages.
//!
//! It is that of any other work at first, since at a low one a swap took seconds on a machine without time to spare. Where there is time to spare
//! it makes no difference to the swap, and one to the messages: what wakes up for a message may wait for the end of a compiler's slice, though
//! another core is free. There it has a low priority, and leaves a core to others, as soon as that shows.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, getpriority_pgrp, setpriority_pgrp};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::child;

/// For so long it has the priority of any other work at the most, which is enough for a usual plugin.
pub(super) const HEAD_START: Duration = Duration::from_secs(1);
/// How often it is looked whether the machine has time to spare.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// From then on messages go before it; at 19 a build waits for a minute under full load, at 10 each of its threads has about a tenth of what a
/// message's thread has. The kernel takes the disk's priority from this number, too.
const NICE: i32 = 10;
/// What it must have had of the processors before it says anything of the machine.
const LEAST: Duration = Duration::from_millis(10);
/// The machine has time to spare where the process waited for less than half of what it had: all that others do on its cores makes it wait, and under
/// full load it waits for longer than it has.
const SPARE: u32 = 2;

/// Whether a process had the processors nearly whenever it wanted them; no, where the kernel does not tell.
pub(super) fn has_time_to_spare(process: Pid) -> bool {
    let Ok(threads) = threads(process) else { return false };
    let (mut had, mut waited) = (Duration::ZERO, Duration::ZERO);
    for thread in threads {
        let Some([of_thread, before]) = times(process, thread) else { return false };
        had += of_thread;
        waited += before;
    }
    is_spare(had, waited)
}

fn is_spare(had: Duration, waited: Duration) -> bool {
    had >= LEAST && waited * SPARE < had
}

/// What a thread had of the processors, and for how long it waited for one (`/proc/PID/task/TID/schedstat`).
fn times(process: Pid, thread: Pid) -> Option<[Duration; 2]> {
    let path = format!("/proc/{}/task/{}/schedstat", process.as_raw_pid(), thread.as_raw_pid());
    let text = fs::read_to_string(path).ok()?;
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok().map(Duration::from_nanos));
    Some([numbers.next()?, numbers.next()?])
}

fn threads(process: Pid) -> io::Result<Vec<Pid>> {
    let entries = fs::read_dir(format!("/proc/{}/task", process.as_raw_pid()))?;
    let id = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
    Ok(entries.filter_map(id).collect())
}

/// Lets messages go before a process that has a group of its own. Each thread has a priority and cores of its own, and this reaches them all.
pub(super) fn lower(process: Pid) {
    if let Err(error) = lower_group(process) {
        // It costs the traffic some time, and the build nothing.
        tracing::warn!(%error, "the process that compiles keeps its priority");
    }
    if let Err(error) = leave_a_core(process) {
        tracing::warn!(%error, "the process that compiles keeps all cores");
    }
}

/// Where the gateway has a lower one they keep that, which nobody but root may raise.
fn lower_group(group: Pid) -> rustix::io::Result<()> {
    match getpriority_pgrp(Some(group))? < NICE {
        true => setpriority_pgrp(Some(group), NICE),
        false => Ok(()),
    }
}

/// It keeps the last of its cores: as many as it has threads, and one less than there are.
fn leave_a_core(process: Pid) -> io::Result<()> {
    let all = sched_getaffinity(Some(process))?;
    let kept = usize::try_from(all.count()).map_or(1, |count| count.saturating_sub(1).clamp(1, child::THREADS));
    let mut cores = CpuSet::new();
    (0..CpuSet::MAX_CPU).rev().filter(|core| all.is_set(*core)).take(kept).for_each(|core| cores.set(core));
    for thread in threads(process)? {
        match sched_setaffinity(Some(thread), &cores) {
            // It ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};
    use std::time::Instant;

    use rustix::process::getpriority_process;

    use super::*;

    /// A process that does not outlive its test.
    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.kill().and_then(|()| self.0.wait()).expect("ended");
        }
    }

    fn start(command: &mut Command) -> (Ended, Pid) {
        let child = command.process_group(0).spawn().expect("a process");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("its number");
        (Ended(child), pid)
    }

    fn await_that(what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_priority_is_lowered_and_never_raised() {
        let own = getpriority_process(None).expect("its own");
        for nice in ["0", "15"] {
            let (_child, pid) = start(Command::new("nice").args(["-n", nice, "sleep", "60"]));
            let wanted = (own + nice.parse::<i32>().expect("a number")).min(19);
            // It is `nice` first, which then becomes the other.
            await_that("it never got its priority", || getpriority_process(Some(pid)) == Ok(wanted));
            lower(pid);
            assert_eq!(getpriority_process(Some(pid)), Ok(wanted.max(NICE)));
        }
    }

    #[test]
    fn a_core_is_left_to_others_where_there_are_several() {
        let (_child, pid) = start(Command::new("sleep").arg("60"));
        let before = sched_getaffinity(Some(pid)).expect("its cores").count();
        lower(pid);
        let after = sched_getaffinity(Some(pid)).expect("its cores").count();
        assert_eq!(after, before.saturating_sub(1).clamp(1, 2), "of {before}");
        // Once more changes nothing where there is one.
        lower(pid);
        assert!((1..=after).contains(&sched_getaffinity(Some(pid)).expect("its cores").count()));
    }

    #[test]
    fn what_has_to_wait_for_the_processors_says_that_there_is_no_time_to_spare() {
        let spins = || start(Command::new("sh").args(["-c", "while :; do :; done"]));
        let cores = std::thread::available_parallelism().expect("a number").get();
        // Three for each core: none of them has it for more than about a third of the time.
        let all: Vec<_> = (0..3 * cores).map(|_| spins()).collect();
        for (_, pid) in &all {
            // The first one may have been alone for a while.
            await_that("it never had to wait", || {
                times(*pid, *pid).is_some_and(|[had, _]| had > LEAST) && !has_time_to_spare(*pid)
            });
        }
        let ms = Duration::from_millis;
        assert!(is_spare(ms(10), ms(0)) && is_spare(ms(100), ms(49)));
        assert!(!is_spare(ms(9), ms(0)) && !is_spare(ms(100), ms(50)) && !is_spare(ms(0), ms(0)));
    }
}
