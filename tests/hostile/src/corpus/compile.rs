//! Components that cost more to check or to compile than they are worth.
//!
//! Without limits all of them go live. Whether a gateway refuses one is a matter of its limits and of the machine: it names the limit then.

use std::fmt::Write as _;

use sluicegate::sandbox::Step;
use sluicegate_guests::{Guest, hard_to_compile, section};

use crate::case::{Case, Must, harmless, refused, refused_or_harmless};

/// In a gateway: the limits that it has for its compiler are what may refuse it, and nothing else.
fn within_limits() -> Must {
    refused_or_harmless(Step::Compiled, "(gateway.compile_")
}

/// However fast the machine is.
fn beyond_limits() -> Must {
    refused(Step::Compiled, "(gateway.compile_")
}

/// A good plugin with more in its module.
fn with(name: &str, made_of: &str, extra: impl Fn() -> String + Send + Sync + 'static) -> Case {
    let make = move || Guest { extra: extra(), ..Guest::echo() }.handler();
    Case::file(name, made_of, harmless(), make).in_gateway(within_limits())
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        with("one-huge-function", "a function of 25,000 additions", || {
            format!("(func (param i32) (result i32) (local.get 0) {})", "(i32.const 1) i32.add ".repeat(25_000))
        }),
        with("one-function-of-calls", "a function of 20,000 calls with many values alive", || {
            format!(
                "(func $many (param i64 i64 i64 i64) (result i64 i64 i64 i64) (local.get 0) (local.get 1) (local.get 2) (local.get 3))
                 (func (result i64 i64 i64 i64) (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4) {})",
                "call $many ".repeat(20_000)
            )
        }),
        with("many-functions", "8,000 functions", || "(func (result i32) (i32.const 1))".repeat(8_000)),
        with("blocks-in-each-other", "10,000 blocks in each other", || {
            format!("(func {} {})", "block ".repeat(10_000), "end ".repeat(10_000))
        }),
        with("loops-in-each-other", "2,000 loops in each other", || {
            format!("(func {} {})", "loop ".repeat(2_000), "end ".repeat(2_000))
        }),
        with("a-huge-table-of-branches", "a `br_table` of 100,000 targets", || {
            format!("(func (param i32) (block (block (br_table {} (local.get 0)))))", "0 1 ".repeat(50_000))
        })
        .refused("`br_table` has 99999 targets"),
        with("many-locals", "20 functions of 49,000 locals", || {
            format!("(func (local {}))", "i64 ".repeat(49_000)).repeat(20)
        }),
        with("many-parameters", "a function of 1,000 parameters and 1,000 results", || {
            let all = "i64 ".repeat(1_000);
            format!(
                "(func (param {all}) (result {all}) {})",
                (0..1_000).map(|n| format!("(local.get {n})")).collect::<String>()
            )
        }),
        with("many-elements", "2,000 element segments", || format!("(func $f) {}", "(elem func $f)".repeat(2_000))),
        with("many-data-segments", "20,000 data segments", || "(data \"x\")".repeat(20_000)),
        with("many-globals", "20,000 globals", || "(global i32 (i32.const 1))".repeat(20_000)),
        Case::file(
            "many-modules",
            "a good plugin with 800 modules in it",
            refused(Step::Verified, "modules and components; a plugin may have 100"),
            || {
                let mut component = Guest::echo().handler();
                let module = wat::parse_str("(module (func (result i32) (i32.const 1)))").expect("a module");
                (0..800).for_each(|_| section(&mut component, 1, &module));
                component
            },
        ),
        Case::file(
            "components-in-each-other",
            "a good plugin with 2,000 components in each other",
            refused(Step::Verified, "levels of components in one another"),
            || {
                let head = b"\0asm\x0d\0\x01\0";
                let inner = (0..2_000).fold(head.to_vec(), |inner, _| {
                    let mut outer = head.to_vec();
                    section(&mut outer, 4, &inner);
                    outer
                });
                let mut component = Guest::echo().handler();
                section(&mut component, 4, &inner);
                component
            },
        ),
        inside("types-that-double", "a type of 2^60 bytes, in 60 lines", false, || {
            let mut text = String::from("(component (type $t0 (tuple u8 u8))");
            for level in 1..60 {
                let _ = write!(text, "(type $t{level} (tuple $t{before} $t{before}))", before = level - 1);
            }
            text + ")"
        })
        .refused("effective type size exceeds the limit"),
        inside("types-that-are-wide", "a record of 1,000 records of 1,000 records of 1,000 numbers", false, || {
            let record = |of: &str| {
                let fields: String = (0..1_000).map(|field| format!("(field \"f{field}\" {of})")).collect();
                format!("(record {fields})")
            };
            format!("(component (type $a {}) (type $b {}) (type $c {}))", record("u8"), record("$a"), record("$b"))
        })
        .refused("effective type size exceeds the limit"),
        inside(
            "instances-of-instances",
            "components that instantiate the one before ten times, seven levels deep",
            false,
            || instances(6, 10),
        ),
        inside("instances-that-multiply", "such components, instantiated: 100,000 core instances", true, || {
            instances(5, 10)
        })
        .refused("core module instances, which exceeds the configured maximum of 16"),
        // Without a limit of memory it takes 600 bytes for each of them: 38 GB.
        inside("instances-without-end", "the same, of 64,000,000 core instances, in 2 KiB", true, || instances(6, 20))
            .in_gateway(beyond_limits())
            .only_in_gateway(),
        Case::file("hard-to-compile", "a function of 30,000 loops among 400 values", beyond_limits(), || {
            let mut component = Guest::echo().handler();
            section(&mut component, 1, &hard_to_compile(30_000));
            component
        })
        .only_in_gateway(),
    ]
}

/// Components that hold each other, the innermost with a core instance; each instantiates the one in it so often.
fn instances(levels: usize, times: usize) -> String {
    let mut text = String::from("(component $c (core module $m) (core instance (instantiate $m)))");
    for _ in 0..levels {
        text = format!("(component $c {text} {})", "(instance (instantiate $c))".repeat(times));
    }
    text
}

/// A good plugin with another component in it, which is instantiated or not.
fn inside(name: &str, made_of: &str, instantiated: bool, text: impl Fn() -> String + Send + Sync + 'static) -> Case {
    let make = move || {
        let mut component = Guest::echo().handler();
        section(&mut component, 4, &wat::parse_str(text()).expect("a component"));
        if instantiated {
            // One, of the component 0 (a plugin made of text has no other), with no arguments.
            section(&mut component, 5, &[1, 0, 0, 0]);
        }
        component
    };
    Case::file(name, made_of, harmless(), make).in_gateway(within_limits())
}
