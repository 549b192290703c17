//! What priority the process that compiles has, beside messages.
//!
//! It is that of any other work at first: on a machine without time to spare a swap takes seconds at a low one. As soon as it shows that there is
//! time to spare it gives way, which costs the swap nothing there; and it gives way after a second in any case.
//!
//! Nice values of its threads are not enough: where they take both of two cores, a thread that wakes up for a message was measured to wait for
//! milliseconds, whatever they are (docs/performance). Linux weighs sessions against one another first (sched(7), "The autogroup feature"), and
//! within a session of its own, at a low priority as a whole, what compiles is hardly noticed. Where control groups share the processors out, as
//! in a container and under some service managers, there are only the threads' values.

use std::io;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{getpriority_process, setpriority_pgrp, setsid};

/// For so long it has the priority of any other work at the most, which is enough for a usual plugin.
const HEAD_START: Duration = Duration::from_secs(1);
/// How often it is looked whether the machine has time to spare.
const LOOK: Duration = Duration::from_millis(20);
/// At 19 a build waits for a minute under full load, at 10 it has about a tenth of what messages have. The kernel takes the disk's priority from
/// this number, too.
const NICE: i32 = 10;
/// Where a session's nice value stands.
const AUTOGROUP: &str = "/proc/self/autogroup";
/// The kernel takes one of them in 100 ms from all who are not root.
const AGAIN: Duration = Duration::from_millis(110);
/// What it must have had of the processors before it says anything of the machine: of less, luck is most.
const LEAST_HAD: Duration = Duration::from_millis(50);
/// The machine has time to spare where the process waited for less than a quarter of what it had: all that others do on its cores makes it wait, and
/// under full load it waits for longer than it has.
const SPARE: u32 = 4;

/// Waits until this process is to give way, and has it do so.
pub(super) fn give_way_in_time() {
    let began = Instant::now();
    while began.elapsed() < HEAD_START && !has_time_to_spare() {
        thread::sleep(LOOK);
    }
    give_way();
}

/// Gives way to messages. What the system does not let it do costs them some time, and the build nothing.
pub(super) fn give_way() {
    // There is no such file where the kernel gives sessions nothing.
    let gateways = fs::read_to_string(AUTOGROUP);
    // It leads no group, so nothing forbids it. Its group is this process alone from now on, and a signal to the gateway's does not reach it.
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
    loop {
        match fs::write(AUTOGROUP, nice.to_string()) {
            // However many wait for their turn, this process ends with its file.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
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

/// Whether this process had the processors nearly whenever it wanted them; no, where the kernel does not tell.
fn has_time_to_spare() -> bool {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return false };
    let (mut had, mut waited) = (Duration::ZERO, Duration::ZERO);
    for thread in threads {
        let text = thread.and_then(|thread| fs::read_to_string(thread.path().join("schedstat")));
        let Some((of_thread, for_it)) = text.ok().as_deref().and_then(times) else { return false };
        had += of_thread;
        waited += for_it;
    }
    is_spare(had, waited)
}

/// What a thread had of the processors, and for how long it waited for one: the first two numbers, in nanoseconds, of `schedstat` (Linux,
/// Documentation/scheduler/sched-stats.rst).
fn times(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut numbers = schedstat.split_whitespace().map_while(|number| number.parse().ok().map(Duration::from_nanos));
    Some((numbers.next()?, numbers.next()?))
}

fn is_spare(had: Duration, waited: Duration) -> bool {
    had >= LEAST_HAD && waited * SPARE < had
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_time_to_spare_where_a_process_waits_for_less_than_a_quarter_of_what_it_had() {
        let ms = Duration::from_millis;
        assert!(is_spare(ms(50), ms(0)) && is_spare(ms(100), ms(24)));
        assert!(!is_spare(ms(49), ms(0)) && !is_spare(ms(100), ms(25)) && !is_spare(ms(0), ms(0)));
    }

    #[test]
    fn a_priority_is_lowered_and_never_raised() {
        assert_eq!([-5, 0, 9, 10, 15, 19].map(lowered), [10, 10, 10, 10, 15, 19]);
        assert_eq!(
            ["/autogroup-27 nice 0\n", "/autogroup-3 nice -5\n", "/autogroup-3 nice 15", ""].map(nice_of_session),
            [0, -5, 15, 0]
        );
    }

    #[test]
    fn the_kernel_tells_what_a_thread_had_and_waited_for() {
        assert_eq!(times("2500000 1000000 7\n"), Some((Duration::from_micros(2_500), Duration::from_millis(1))));
        for text in ["", "1", "1 x 2", "-1 2 3"] {
            assert_eq!(times(text), None, "{text}");
        }
        let own = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
        assert!(times(&own).is_some(), "{own}");
    }
}
