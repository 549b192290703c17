//! What priority the process that compiles has, beside messages.
//!
//! It is that of any other work at first: on a machine without time to spare a swap takes seconds at a low one. As soon as it shows that there is
//! time to spare it gives way, which costs the swap nothing there: what wakes up for a message would else wait for the compiler's slice to end,
//! 4 ms on many a kernel. And it gives way after a second in any case.
//!
//! Its threads' nice values alone would do little. Linux weighs sessions against one another first (sched(7), "The autogroup feature"), and a
//! thread that wakes up waits within its session though what runs is nicer. So what gives way leaves the gateway's session, too, for one that has
//! its nice value as a whole. Where control groups share the processors out, as in a container, there is only the threads'.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{getpgid, getppid, getpriority_process, setpgid, setpriority_pgrp, setsid};

/// For so long it has the priority of any other work at the most, which is enough for a usual plugin.
const HEAD_START: Duration = Duration::from_secs(1);
/// How often it is looked whether the machine has time to spare.
const LOOK: Duration = Duration::from_millis(20);
/// At 19 a build waits for a minute under full load, at 10 it has about a tenth of what messages have. The kernel takes the disk's priority from
/// this number, too.
const NICE: i32 = 10;
/// Where a session's nice value stands, how often it is written at the most, and how long after one another: the kernel takes one of them in 100 ms.
const AUTOGROUP: &str = "/proc/self/autogroup";
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(110);
/// What it must have had of the processors before it says anything of the machine.
const LEAST: Duration = Duration::from_millis(10);
/// The machine has time to spare where the process waited for less than half of what it had: all that others do on its cores makes it wait, and under
/// full load it waits for longer than it has.
const SPARE: u32 = 2;

/// Waits until this process is to give way, and has it do so. What the system does not let it do costs messages some time, and the build nothing.
pub(super) fn give_way_in_time() {
    let began = Instant::now();
    while began.elapsed() < HEAD_START && !has_time_to_spare() {
        std::thread::sleep(LOOK);
    }
    let _ = lower();
    let _ = leave_the_session();
}

/// Each thread has a nice value of its own, and this reaches them all: they are the whole group. Where the gateway has a higher one they keep that.
fn lower() -> rustix::io::Result<()> {
    if getpriority_process(None)? < NICE { setpriority_pgrp(None, NICE) } else { Ok(()) }
}

fn leave_the_session() -> io::Result<()> {
    // Who leads a group cannot begin a session: back into the gateway's first.
    setpgid(None, Some(getpgid(getppid())?))?;
    setsid()?;
    // There is no such file where the kernel knows no groups of sessions. Who is not root waits for others who wrote to theirs just now.
    let mut tries = 1;
    loop {
        match fs::write(AUTOGROUP, NICE.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < TRIES => std::thread::sleep(AGAIN),
            written => return written,
        }
        tries += 1;
    }
}

/// Whether this process had the processors nearly whenever it wanted them; no, where the kernel does not tell.
fn has_time_to_spare() -> bool {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return false };
    let (mut had, mut waited) = (Duration::ZERO, Duration::ZERO);
    for thread in threads {
        let text = thread.and_then(|thread| fs::read_to_string(thread.path().join("schedstat")));
        let Some((of_thread, before)) = text.ok().as_deref().and_then(times) else { return false };
        had += of_thread;
        waited += before;
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
    had >= LEAST && waited * SPARE < had
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_time_to_spare_where_a_process_waits_for_less_than_half_of_what_it_had() {
        let ms = Duration::from_millis;
        assert!(is_spare(ms(10), ms(0)) && is_spare(ms(100), ms(49)));
        assert!(!is_spare(ms(9), ms(0)) && !is_spare(ms(100), ms(50)) && !is_spare(ms(0), ms(0)));
    }

    #[test]
    fn the_kernel_tells_what_a_thread_had_and_waited_for() {
        assert_eq!(times("2500000 1000000 7\n"), Some((Duration::from_micros(2_500), Duration::from_millis(1))));
        for text in ["", "1", "1 x 2", "-1 2 3"] {
            assert_eq!(times(text), None, "{text}");
        }
        let own = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
        assert!(times(&own).is_some_and(|(had, _)| !had.is_zero()), "{own}");
    }
}
