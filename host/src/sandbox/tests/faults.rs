//! What a guest does to itself, and to nobody else.

use std::time::Instant;

use sluicegate_core::fault::Fault;

use super::*;
use crate::sandbox::Pool;
use sluicegate_guests::{Guest, ONE_JOB, section};

const SPIN: &str = "(loop $again (br $again))";

#[track_caller]
fn fault_of(guest: &Guest, limits: Limits) -> Fault {
    let generation = build(&guest.handler(), limits);
    run(async {
        let pool = Pool::new();
        let first = pool.handle(&generation, &message("{}")).await.expect_err("a fault");
        let second = pool.handle(&generation, &message("{}")).await.expect_err("a fault again");
        assert_eq!(first, second, "a fault leaves nothing behind");
        first
    })
}

fn quick() -> Limits {
    Limits { call_timeout: Duration::from_millis(50), ..limits() }
}

#[test]
fn a_guest_that_does_not_end_is_ended_wherever_it_spins() {
    let timed_out = Fault::TimedOut(quick().call_timeout);
    let body = format!("{SPIN} unreachable");
    assert_eq!(fault_of(&Guest::doing(&body), quick()), timed_out);
    let start = Guest { extra: format!("(func $spin {SPIN}) (start $spin)"), ..Guest::echo() };
    assert_eq!(fault_of(&start, quick()), timed_out);
    let realloc = Guest { realloc: SPIN.to_owned(), ..Guest::echo() };
    assert_eq!(fault_of(&realloc, quick()), timed_out);
    let post_return = Guest { post_return: SPIN.to_owned(), ..Guest::echo() };
    assert_eq!(fault_of(&post_return, quick()), timed_out);
}

#[test]
fn one_deadline_is_over_all_of_a_call() {
    let some = "(local.set $n (i32.const 200000000))
        (loop $again (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $again (local.get $n)))";
    let extra = format!("(func $some (local $n i32) {some})");
    let call_of = |start: &str, call: &str, call_timeout: Duration| {
        let guest = Guest {
            extra: format!("{extra} {start}"),
            body: format!("{call} {}", Guest::echo().body),
            ..Guest::echo()
        };
        let generation = build(&guest.handler(), Limits { call_timeout, ..limits() });
        run(async {
            let began = Instant::now();
            (Pool::new().handle(&generation, &message("{}")).await, began.elapsed())
        })
    };
    let alone = |_| match call_of("", "(call $some)", Duration::from_secs(60)) {
        (Ok(_), took) => took,
        (Err(fault), _) => panic!("{fault}"),
    };
    // Other tests run beside it and make it quick or slow; with a deadline for each part it would never be over.
    let ended = (0..5).any(|_| {
        let limit = alone(()).mul_f64(1.5);
        call_of("(start $some)", "(call $some)", limit).0 == Err(Fault::TimedOut(limit))
    });
    assert!(ended);
}

#[test]
fn host_calls_are_counted() {
    let guest = Guest {
        imports: "(import \"sluicegate:plugin/host@0.1.0\" \"log\" (func $log (param i32 i32 i32)))".to_owned(),
        body: "(loop $again (call $log (i32.const 0) (i32.const 0) (i32.const 8)) (br $again)) unreachable".to_owned(),
        ..Guest::echo()
    };
    let fault = fault_of(&guest, Limits { call_timeout: Duration::from_secs(60), ..quick() });
    assert!(fault.to_string().contains("more than 1000 host calls in one call"), "{fault}");
}

#[test]
fn memory_is_summed_and_bounded() {
    let out = Fault::OutOfMemory(limits().memory);
    let grow = "(if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))";
    assert_eq!(fault_of(&Guest::doing(&format!("{grow} unreachable")), limits()), out);
    assert_eq!(fault_of(&Guest { pages: 65, ..Guest::echo() }, limits()), out);
    let survives =
        Guest { body: format!("(drop (memory.grow (i32.const 64))) {}", Guest::echo().body), ..Guest::echo() };
    let generation = build(&survives.handler(), limits());
    run(async {
        let pool = Pool::new();
        for _ in 0..100 {
            assert!(pool.handle(&generation, &message("{}")).await.is_ok());
        }
    });
    // A composed component: each of its two memories alone would be granted.
    let mut composed = Guest { pages: 48, ..Guest::echo() }.handler();
    section(&mut composed, 1, &wat::parse_str("(module (memory 48))").expect("a module"));
    let instances = [1, 0, 1, 0]; // one, of the module 1, with no arguments
    section(&mut composed, 2, &instances);
    let generation = build(&composed, limits());
    assert_eq!(run(async { Pool::new().handle(&generation, &message("{}")).await }), Err(out));
    let table =
        Guest { extra: "(table 8000 funcref) (table 8000 funcref) (table 8000 funcref)".to_owned(), ..Guest::echo() };
    let fault = fault_of(&table, limits());
    assert!(matches!(fault, Fault::Instantiate(_)), "{fault}");
}

#[test]
fn a_trap_is_told_with_its_place() {
    let fault = fault_of(&Guest::doing("unreachable"), limits());
    assert_eq!(fault, Fault::Trap("wasm trap: wasm `unreachable` instruction executed in `guest_handle`".to_owned()));
    let start = Guest { extra: "(func $bad unreachable) (start $bad)".to_owned(), ..Guest::echo() };
    let fault = fault_of(&start, limits());
    assert!(matches!(fault, Fault::Instantiate(_)), "{fault}");
    let deep = Guest { extra: "(func $deep (call $deep))".to_owned(), ..Guest::doing("(call $deep) unreachable") };
    let fault = fault_of(&deep, limits());
    assert!(fault.to_string().contains("call stack exhausted"), "{fault}");
}

/// An answer of so many jobs, each of so many bytes from address 0.
fn jobs(count: u32, bytes: u32) -> Guest {
    Guest { pages: 48, ..Guest::many(count, bytes) }
}

#[test]
fn an_answer_is_bounded_by_its_sum() {
    let too_large = Fault::OutputTooLarge(limits().output);
    assert_eq!(fault_of(&jobs(1, (64 << 10) + 1), limits()), too_large);
    assert_eq!(fault_of(&jobs(1, 3 << 20), limits()), too_large);
    assert_eq!(fault_of(&jobs(3, 32 << 10), limits()), too_large);
    assert_eq!(fault_of(&jobs(100_000, 0), limits()), too_large);
    let generation = build(&jobs(2, 32 << 10).handler(), limits());
    let answer = run(async { Pool::new().handle(&generation, &message("{}")).await });
    assert_eq!(answer.expect("an answer").expect("outputs").len(), 2);
}

#[test]
fn an_answer_is_bounded_by_its_number_before_the_host_has_it() {
    let roomy = Limits { output: sluicegate_core::settings::ByteSize(1 << 20), ..limits() };
    assert_eq!(fault_of(&jobs(1_001, 0), roomy), Fault::TooManyOutputs(1_000));
    let generation = build(&jobs(1_000, 0).handler(), roomy);
    let answer = run(async { Pool::new().handle(&generation, &message("{}")).await });
    assert_eq!(answer.expect("an answer").expect("outputs").len(), 1_000);
    // Four billion of them, each of which is nothing, and a text of two billion bytes: refused by what they claim.
    let claims = |len: &str| {
        format!(
            "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const 8))
             (i32.store (i32.const 1032) (i32.const {len})) (i32.const 1024)"
        )
    };
    for len in ["-1", "0x7fffffff", "0x10000000"] {
        let fault = fault_of(&Guest::doing(&claims(len)), roomy);
        assert!(matches!(&fault, Fault::Garbage(text) if text.contains("out of bounds")), "{fault}");
    }
    let fault = fault_of(&Guest::doing(&format!("(local.set $len (i32.const 0x7fffffff)) {ONE_JOB}")), roomy);
    assert!(matches!(&fault, Fault::Garbage(text) if text.contains("out of bounds")), "{fault}");
}

#[test]
fn each_limit_is_the_settings() {
    let few = Limits { table_elements: 100, host_calls: 3, ..limits() };
    let table = |elements| Guest { extra: format!("(table {elements} funcref)"), ..Guest::echo() };
    assert!(matches!(fault_of(&table(101), few), Fault::Instantiate(_)));
    let grows = Guest {
        extra: "(table $t 100 funcref)".to_owned(),
        ..Guest::doing(&format!(
            "(if (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1)) (then unreachable)) {}",
            Guest::echo().body
        ))
    };
    let generation = build(&grows.handler(), few);
    assert!(run(async { Pool::new().handle(&generation, &message("{}")).await }).is_ok());
    let log = "(call $log (i32.const 0) (i32.const 0) (i32.const 8))";
    let calling = |times: usize| Guest {
        imports: "(import \"sluicegate:plugin/host@0.1.0\" \"log\" (func $log (param i32 i32 i32)))".to_owned(),
        ..Guest::doing(&format!("{} {}", log.repeat(times), Guest::echo().body))
    };
    let generation = build(&calling(3).handler(), few);
    assert!(run(async { Pool::new().handle(&generation, &message("{}")).await }).is_ok());
    let fault = fault_of(&calling(4), few);
    assert!(fault.to_string().contains("more than 3 host calls in one call (limits.host_calls)"), "{fault}");
}

#[test]
fn garbage_is_told_apart_from_a_trap() {
    #[track_caller]
    fn garbage(body: &str, part: &str) {
        let fault = fault_of(&Guest::doing(body), limits());
        assert!(matches!(&fault, Fault::Garbage(text) if text.contains(part)), "{fault}");
    }
    garbage("(i32.store8 (i32.const 1024) (i32.const 7)) (i32.const 1024)", "invalid");
    garbage("(i32.const 2147483644)", "out of bounds");
    garbage("(i32.const 1025)", "aligned");
    garbage(
        &format!("(local.set $at (i32.const 131000)) (local.set $len (i32.const 4096)) {ONE_JOB}"),
        "out of bounds",
    );
    garbage(
        "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 0))
         (i32.store8 (i32.const 16) (i32.const 255))
         (i32.store (i32.const 1032) (i32.const 16)) (i32.store (i32.const 1036) (i32.const 1)) (i32.const 1024)",
        "utf-8",
    );
}
