//! What priority the process that compiles has, beside messages.
//!
//! A low one, as long as the machine has time to spare: that costs the swap nothing there. Where it has none a swap would take seconds at a low one,
//! and the process has that of any other work for its first second, which is enough for a usual plugin.
//!
//! Nice values of its threads are not enough: where they take both of two cores, a thread that wakes up for a message was measured to wait for
//! milliseconds, whatever they are (docs/performance). Linux weighs sessions against one another first (sched(7), "The autogroup feature"), and
//! within a session of its own, at a low priority as a whole, what compiles is hardly noticed. Where control groups share the processors out, as
//! in a container and under some service managers, there are only the threads' values.

use std::time::Duration;
use std::{fs, io, thread};

use rustix::process::{Pid, getpriority_process, setpriority_pgrp, setsid};

/// For so long a process has the priority of any other work at the most. One that gave way before has so long to show that it gets enough.
pub(super) const HEAD_START: Duration = Duration::from_secs(1);
/// At 19 a build waits for a minute under full load, at 10 it has about a tenth of what messages have. The kernel takes the disk's priority from
/// this number, too.
const NICE: i32 = 10;
/// Where a session's nice value stands.
const AUTOGROUP: &str = "/proc/self/autogroup";
/// The kernel takes one of them in 100 ms from all who are not root.
const AGAIN: Duration = Duration::from_millis(110);
/// However many wait for their turn.
const TRIES: u32 = 10;

/// Waits until this process is to give way, and has it do so.
pub(super) fn give_way_in_time() {
    thread::sleep(HEAD_START);
    give_way();
}

/// Gives way to messages. What the system does not let it do costs them some time, and the build nothing.
pub(super) fn give_way() {
    // There is no such file where the kernel gives sessions nothing.
    let gateways = fs::read_to_string(AUTOGROUP);
    // It leads no group, so nothing forbids it. A signal to the gateway's group does not reach it from now on.
    if setsid().is_ok() {
        let _ = lower_threads();
        let _ = gateways.and_then(|gateways| lower_session(lowered(nice_of_session(&gateways))));
    }
}

/// Each thread has a nice value of its own, and this reaches them all.
fn lower_threads() -> rustix::io::Result<()> {
    setpriority_pgrp(None, lowered(getpriority_process(None)?))
}

fn lower_session(nice: i32) -> io::Result<()> {
    let mut tries = 0..TRIES;
    loop {
        match fs::write(AUTOGROUP, nice.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries.next().is_some() => thread::sleep(AGAIN),
            written => return written,
        }
    }
}

/// `/autogroup-27 nice 0`, as the kernel writes it.
fn nice_of_session(text: &str) -> i32 {
    text.split_whitespace().last().and_then(|nice| nice.parse().ok()).unwrap_or(0)
}

/// A nice value that gives way: where a gateway has a higher one, that.
fn lowered(nice: i32) -> i32 {
    nice.max(NICE)
}

/// What all threads of a process had of the processors; none, where the kernel does not tell, or the process is gone.
pub(super) fn had(process: Pid) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok());
    texts.map(|text| time(&text)).reduce(|all, one| Some(all? + one?))?
}

/// What a thread had of the processors: the first number, in nanoseconds, of `schedstat` (Linux, Documentation/scheduler/sched-stats.rst).
fn time(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_lowered_and_never_raised() {
        assert_eq!([-5, 0, 9, 10, 15, 19].map(lowered), [10, 10, 10, 10, 15, 19]);
        assert_eq!(
            ["/autogroup-27 nice 0\n", "/autogroup-3 nice -5\n", "/autogroup-3 nice 15", ""].map(nice_of_session),
            [0, -5, 15, 0]
        );
    }

    #[test]
    fn the_kernel_tells_what_a_process_had() {
        assert_eq!(time("2500000 1000000 7\n"), Some(Duration::from_micros(2_500)));
        for text in ["", "x", "-1 2 3"] {
            assert_eq!(time(text), None, "{text}");
        }
        let own = had(rustix::process::getpid()).expect("Linux tells");
        assert!(!own.is_zero());
    }
}
