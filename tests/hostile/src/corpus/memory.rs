//! Memories and tables, one and several, up to the limit and beyond it.

use sluicegate::sandbox::Step;
use sluicegate_guests::{Guest, section};

use super::calls::{ECHO, doing};
use crate::case::{Case, End, Must, dead, harmless, refused};
use sluicegate_guests::ONE_JOB;

fn with(extra: &str) -> Guest {
    Guest { extra: extra.to_owned(), ..Guest::echo() }
}

/// A good plugin with more core modules in it, each instantiated so often.
fn composed(guest: &Guest, modules: &[&str], times: u8) -> Vec<u8> {
    let mut bytes = guest.handler();
    for (index, module) in (1_u8..).zip(modules) {
        section(&mut bytes, 1, &wat::parse_str(module).expect("a module"));
        let mut instances = vec![times];
        // Each of a module, with no arguments.
        (0..times).for_each(|_| instances.extend([0, index, 0]));
        section(&mut bytes, 2, &instances);
    }
    bytes
}

pub(super) fn cases() -> Vec<Case> {
    let beyond = || dead("needed more than 4MiB of memory");
    let grow =
        |pages: u32| format!("(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable))");
    // Each page is touched: it is there, and not only promised.
    let touch = "(local.set $at (i32.const 131072))
        (loop $again
          (i32.store8 (local.get $at) (i32.const 1))
          (local.set $at (i32.add (local.get $at) (i32.const 4096)))
          (br_if $again (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))";
    vec![
        Case::guest(
            "memory-up-to-the-limit",
            "grows to 4 MiB at once and touches every page",
            Must::Live(vec![End::AsItCame, End::Dead("needed more than".to_owned())]),
            doing(&format!("{} {touch}", grow(62))),
        ),
        Case::guest(
            "memory-one-page-too-much",
            "grows to 4 MiB and 64 KiB, and traps at the refusal",
            beyond(),
            doing(&grow(63)),
        ),
        Case::guest(
            "memory-survives-the-refusal",
            "the same, and goes on",
            harmless(),
            doing("(drop (memory.grow (i32.const 63)))"),
        ),
        Case::guest("memory-of-4-gib", "grows by 65,536 pages", beyond(), doing(&grow(65_536))),
        Case::guest(
            "memory-page-by-page",
            "grows by a page until it is refused, then traps",
            beyond(),
            doing("(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"),
        ),
        Case::guest(
            "memory-leaks",
            "grows by 1.25 MiB a call; the fourth is one too many, and it is made anew",
            Must::Live(vec![End::AsItCame, End::AsItCame, End::AsItCame, End::Dead("needed more than".to_owned())]),
            doing(&format!("{} {touch}", grow(20))),
        ),
        Case::guest(
            "memory-too-large-from-the-start",
            "begins with 65 pages",
            beyond(),
            Guest { pages: 65, ..Guest::echo() },
        ),
        Case::guest(
            "memory-of-4-gib-from-the-start",
            "begins with 65,536 pages",
            refused(Step::Compiled, "memory"),
            Guest { pages: 65_536, ..Guest::echo() },
        ),
        Case::guest(
            "two-memories-in-a-module",
            "two of 2.5 MiB in one module",
            refused(Step::Compiled, "defined memories count of 2"),
            Guest { pages: 40, ..with("(memory 40)") },
        ),
        Case::guest(
            "five-memories",
            "five of a page in one module",
            refused(Step::Compiled, "memor"),
            with("(memory 1) (memory 1) (memory 1) (memory 1)"),
        ),
        Case::file("two-memories-in-two-instances", "two core instances, each with 3 MiB", beyond(), || {
            composed(&Guest { pages: 48, ..Guest::echo() }, &["(module (memory 48))"], 1)
        }),
        Case::file(
            "grows-in-another-instance",
            "a second core instance whose `start` grows beyond the sum",
            beyond(),
            || {
                let module = "(module (memory 1) (func $start (if (i32.eq (memory.grow (i32.const 62)) (i32.const -1)) (then unreachable))) (start $start))";
                composed(&Guest::echo(), &[module], 1)
            },
        ),
        Case::file("forty-instances", "forty core instances of nothing", refused(Step::Compiled, "instances"), || {
            composed(&Guest::echo(), &["(module)"], 40)
        }),
        Case::guest(
            "data-beyond-its-memory",
            "a data segment at 128 KiB",
            dead("could not be instantiated"),
            with("(data (i32.const 131072) \"x\")"),
        ),
        Case::guest(
            "elements-beyond-its-table",
            "an element segment behind the table's end",
            dead("could not be instantiated"),
            with("(table 1 funcref) (func $f) (elem (i32.const 1) $f)"),
        ),
        Case::guest(
            "table-grows",
            "grows a table by 100,000,000, is refused, and goes on",
            harmless(),
            Guest {
                extra: "(table $t 1 funcref)".to_owned(),
                ..doing("(drop (table.grow $t (ref.null func) (i32.const 100000000)))")
            },
        ),
        Case::guest(
            "table-must-grow",
            "grows it by 20,000 and traps at the refusal",
            dead("trapped"),
            Guest {
                extra: "(table $t 1 funcref)".to_owned(),
                ..doing(
                    "(if (i32.eq (table.grow $t (ref.null func) (i32.const 20000)) (i32.const -1)) (then unreachable))",
                )
            },
        ),
        Case::guest(
            "tables-in-sum",
            "three tables of 8,000",
            dead("could not be instantiated"),
            with("(table 8000 funcref) (table 8000 funcref) (table 8000 funcref)"),
        ),
        Case::guest(
            "table-of-four-billion",
            "a table of 4,294,967,295 from the start",
            refused(Step::Compiled, "table"),
            with("(table 4294967295 funcref)"),
        ),
        Case::guest(
            "nine-tables",
            "nine tables of one",
            refused(Step::Compiled, "tables"),
            with(&"(table 1 funcref)".repeat(9)),
        ),
        Case::guest(
            "realloc-gives-zero",
            "`cabi_realloc` that always gives 0: all arguments lie upon each other",
            dead("the job is not JSON"),
            Guest { realloc: "(return (i32.const 0))".to_owned(), ..Guest::echo() },
        ),
        Case::guest(
            "realloc-gives-an-odd-address",
            "`cabi_realloc` that gives 8,193",
            dead("aligned"),
            Guest { realloc: "(return (i32.const 8193))".to_owned(), ..Guest::echo() },
        ),
        Case::guest(
            "realloc-gives-what-is-not-there",
            "`cabi_realloc` that gives 2,147,483,640",
            dead("realloc return: beyond end of memory"),
            Guest { realloc: "(return (i32.const 2147483640))".to_owned(), ..Guest::echo() },
        ),
        Case::guest(
            "keeps-what-was-sent-before",
            "answers every second message with the one before: an instance is warm",
            Must::Live(vec![End::AsItCame, End::Makes("{\"case\":\"keeps-what-was-sent-before\",\"call\":".to_owned())]),
            Guest::doing(&format!(
                "{ECHO}
                 (if (global.get $count)
                   (then (local.set $at (i32.const 65536)) (local.set $len (global.get $count)) (global.set $count (i32.const 0)))
                   (else (memory.copy (i32.const 65536) (local.get 4) (local.get 5)) (global.set $count (local.get 5))))
                 {ONE_JOB}"
            )),
        ),
        Case::file(
            "a-thousand-globals-of-v128",
            "vectors and 1,000 globals",
            harmless(),
            || with(&"(global (mut v128) (v128.const i64x2 1 2))".repeat(1_000)).handler(),
        ),
    ]
}
