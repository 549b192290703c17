//! Calls that do not end, or end badly; plugins that behave until nobody looks.

use sluicegate_guests::{Guest, ONE_JOB};

use super::samples::ECHOED;
use crate::alone::CALL_TIMEOUT;
use crate::case::{Case, End, Must, dead, harmless, refused};
use sluicegate::sandbox::Step;

pub(super) const SPIN: &str = "(loop $again (br $again))";
/// The answer is what came in.
pub(super) const ECHO: &str = "(local.set $at (local.get 4)) (local.set $len (local.get 5))";

/// One that echoes, but for one part.
fn with(part: impl FnOnce(&mut Guest)) -> Guest {
    let mut guest = Guest::echo();
    part(&mut guest);
    guest
}

/// Does this in the call.
pub(super) fn doing(code: &str) -> Guest {
    Guest::doing(&format!("{code} {ECHO} {ONE_JOB}"))
}

pub(super) fn cases() -> Vec<Case> {
    let timed_out = format!("gave no answer within {CALL_TIMEOUT:?}");
    let late = || dead(&timed_out);
    let stack = "call stack exhausted";
    // 115: `s` of `sample-…`, the id of a message that no machine sent.
    let live = |code: &str| {
        let unless_rehearsed = format!("(if (i32.ne (i32.load8_u (local.get 10)) (i32.const 115)) (then {code}))");
        Guest { samples: Some(ECHOED.to_owned()), ..doing(&unless_rehearsed) }
    };
    let at_call = |number: u32, code: &str| {
        doing(&format!(
            "(global.set $count (i32.add (global.get $count) (i32.const 1)))
             (if (i32.ge_u (global.get $count) (i32.const {number})) (then {code}))"
        ))
    };
    let then = |ends: &[End]| Must::Live(ends.to_vec());
    vec![
        Case::guest("spins-in-the-call", "an endless loop in `handle`", late(), doing(SPIN)),
        Case::guest(
            "spins-in-start",
            "an endless loop in the module's `start`",
            late(),
            with(|guest| guest.extra = format!("(func $spin {SPIN}) (start $spin)")),
        ),
        Case::guest(
            "spins-in-realloc",
            "an endless loop in `cabi_realloc`, while the message is lowered",
            late(),
            with(|guest| guest.realloc = SPIN.to_owned()),
        ),
        Case::guest(
            "spins-in-post-return",
            "a good answer, then an endless loop in post-return",
            late(),
            with(|guest| guest.post_return = SPIN.to_owned()),
        ),
        Case::guest(
            "spins-by-tail-calls",
            "two functions that call each other in tail position for ever",
            late(),
            Guest {
                extra: "(func $ping (return_call $pong)) (func $pong (return_call $ping))".to_owned(),
                ..doing("(call $ping)")
            },
        ),
        Case::guest(
            "spins-in-bulk",
            "fills its whole memory again and again with `memory.fill`",
            late(),
            doing("(loop $again (memory.fill (i32.const 16384) (i32.const 1) (i32.const 65536)) (br $again))"),
        ),
        Case::guest(
            "recurses-in-the-call",
            "a function that calls itself",
            dead(stack),
            Guest { extra: "(func $deep (call $deep))".to_owned(), ..doing("(call $deep)") },
        ),
        Case::guest(
            "recurses-in-start",
            "the same in `start`",
            dead("could not be instantiated"),
            with(|guest| guest.extra = "(func $deep (call $deep)) (start $deep)".to_owned()),
        ),
        Case::guest(
            "recurses-with-large-frames",
            "a function of 2,000 locals that calls itself",
            dead(stack),
            Guest {
                extra: format!(
                    "(func $deep (param i64) (result i64) (local {}) (i64.add (call $deep (local.get 0)) (local.get 0)))",
                    "i64 ".repeat(2_000)
                ),
                ..doing("(drop (call $deep (i64.const 1)))")
            },
        ),
        Case::guest(
            "recurses-through-a-table",
            "the same through `call_indirect`",
            dead(stack),
            Guest {
                extra: "(table 1 funcref) (elem (i32.const 0) $deep)
                        (func $deep (call_indirect (i32.const 0)))"
                    .to_owned(),
                ..doing("(call $deep)")
            },
        ),
        Case::guest("traps", "`unreachable` in `handle`", dead("wasm `unreachable` instruction"), doing("unreachable")),
        Case::guest(
            "divides-by-zero",
            "1 / 0",
            dead("integer divide by zero"),
            doing("(drop (i32.div_u (i32.const 1) (i32.const 0)))"),
        ),
        Case::guest(
            "overflows",
            "a float beyond all integers made one",
            dead("integer overflow"),
            doing("(drop (i32.trunc_f64_u (f64.const 1e300)))"),
        ),
        Case::guest(
            "calls-nothing",
            "`call_indirect` of an empty place in a table",
            dead("uninitialized element"),
            Guest { extra: "(table 1 funcref)".to_owned(), ..doing("(call_indirect (i32.const 0))") },
        ),
        Case::guest(
            "calls-beyond-a-table",
            "`call_indirect` of place 4,294,967,295",
            dead("undefined element"),
            Guest { extra: "(table 1 funcref)".to_owned(), ..doing("(call_indirect (i32.const -1))") },
        ),
        Case::guest(
            "calls-by-another-type",
            "`call_indirect` of a function of another type",
            dead("indirect call type mismatch"),
            Guest {
                extra: "(table 1 funcref) (func $one (param i64)) (elem (i32.const 0) $one)".to_owned(),
                ..doing("(call_indirect (i32.const 0))")
            },
        ),
        Case::guest(
            "traps-in-start",
            "`unreachable` in `start`",
            dead("could not be instantiated"),
            with(|guest| guest.extra = "(func $bad unreachable) (start $bad)".to_owned()),
        ),
        Case::guest(
            "traps-in-realloc",
            "`unreachable` in `cabi_realloc`",
            dead("trapped"),
            with(|guest| guest.realloc = "unreachable".to_owned()),
        ),
        Case::guest(
            "traps-in-post-return",
            "a good answer, then `unreachable` in post-return",
            dead("trapped"),
            with(|guest| guest.post_return = "unreachable".to_owned()),
        ),
        Case::guest(
            "always-asks-again",
            "asks for another attempt, for ever",
            dead("not now (the plugin asked for another attempt)"),
            Guest {
                extra: "(data (i32.const 528) \"not now\")".to_owned(),
                ..Guest::doing(
                    "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 1))
                     (i32.store (i32.const 1032) (i32.const 528)) (i32.store (i32.const 1036) (i32.const 7)) (i32.const 1024)",
                )
            },
        ),
        Case::guest("traps-live-only", "good in its samples, then `unreachable`", dead("trapped"), live("unreachable")),
        Case::guest("spins-live-only", "good in its samples, then an endless loop", late(), live(SPIN)),
        Case::guest(
            "lies-live-only",
            "good in its samples, then it answers with what is no JSON",
            dead("the job is not JSON"),
            live("(i32.store8 (local.get 4) (i32.const 33))"),
        ),
        Case::guest(
            "traps-from-the-third-call-on",
            "two good calls, then `unreachable`, and the same made anew",
            then(&[End::AsItCame, End::AsItCame, End::Dead("trapped".to_owned())]),
            at_call(3, "unreachable"),
        ),
        Case::guest(
            "spins-from-the-second-call-on",
            "one good call, then an endless loop, and the same made anew",
            then(&[End::AsItCame, End::Dead(timed_out.clone())]),
            at_call(2, SPIN),
        ),
        Case::guest(
            "reads-beyond-its-memory",
            "a load at 4,294,967,292",
            dead("out of bounds memory access"),
            doing("(drop (i32.load (i32.const -4)))"),
        ),
        Case::guest(
            "writes-beyond-its-memory",
            "a store with the largest offset there is",
            dead("out of bounds memory access"),
            doing("(i32.store offset=4294967295 (i32.const -1) (i32.const 1))"),
        ),
        Case::guest(
            "copies-beyond-its-memory",
            "`memory.copy` of 4 GiB",
            dead("out of bounds memory access"),
            doing("(memory.copy (i32.const 0) (i32.const 0) (i32.const -1))"),
        ),
        Case::guest(
            "rehearses-for-ever",
            "a sample that never ends",
            refused(Step::Rehearsed, &timed_out),
            Guest { samples: Some(ECHOED.to_owned()), ..doing(SPIN) },
        ),
        Case::guest("does-nothing-wrong", "answers with what came in", harmless(), Guest::echo()),
    ]
}
