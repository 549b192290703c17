//! Guests that use what is granted: a state of their own, topics to publish to.

use crate::{Guest, ONE_JOB};

const STATE: &str = r#"
    (import "sluicegate:plugin/state@0.1.0" "get" (func $get (param i32 i32 i32)))
    (import "sluicegate:plugin/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i64 i32)))
    (import "sluicegate:plugin/state@0.1.0" "delete" (func $delete (param i32 i32 i32)))
    (import "sluicegate:plugin/state@0.1.0" "increment" (func $increment (param i32 i32 i64 i32 i64 i32)))"#;

/// Finds the text that begins at `$k`: `$l` is how long it is, up to the next quotation mark.
const UNTIL_QUOTE: &str = "
    (block $found (loop $next
      (br_if $found (i32.eq (i32.load8_u (i32.add (local.get $k) (local.get $l))) (i32.const 34)))
      (local.set $l (i32.add (local.get $l) (i32.const 1)))
      (br $next)))";

impl Guest {
    /// A handler that does with its state what `{"do":"?","key":"KEY"` says, and answers with one job: `i` adds 1 and answers with the sum,
    /// `u` the same for half a second, `m` a hundred times; `g` answers with the value, or null; `s` keeps the payload, `e` for half a
    /// second, `d` deletes, and these answer with the payload. After adding 1, `x` rejects, `t` traps, `n` answers with no JSON, `a` asks for
    /// another attempt until the third, `w` never ends; `f` adds without end; `v` keeps 100,000 bytes, `h` a value of 512 MiB. Where the state
    /// says no, it asks for another attempt, with that reason.
    #[must_use]
    pub fn stateful() -> Self {
        let on = |letter: char, code: &str| {
            format!("(if (i32.eq (local.get $what) (i32.const {})) (then {code}))", letter as u32)
        };
        let failed = |at: u32| {
            format!(
                "(if (i32.load8_u (i32.const 2048)) (then (return (call $retry
                   (i32.load (i32.const {})) (i32.load (i32.const {}))))))",
                2048 + at,
                2052 + at
            )
        };
        let set = |ttl: u32, at: &str, len: &str| {
            format!(
                "(call $set (local.get $k) (local.get $l) {at} {len} (i32.const {}) (i64.const {ttl}) (i32.const 2048))
                 {} (return (call $job (local.get $p) (local.get $n)))",
                u32::from(ttl > 0),
                failed(8)
            )
        };
        let add = |ttl: u32| {
            format!(
                "(call $increment (local.get $k) (local.get $l) (i64.const 1) (i32.const {}) (i64.const {ttl}) (i32.const 2048)) {}",
                u32::from(ttl > 0),
                failed(12)
            )
        };
        let sum = "(return (call $number (i64.load (i32.const 2056))))";
        let steps = [
            on(
                'g',
                &format!(
                    "(call $get (local.get $k) (local.get $l) (i32.const 2048)) {}
                 (if (i32.eqz (i32.load8_u (i32.const 2052))) (then (return (call $job (i32.const 544) (i32.const 4)))))
                 (return (call $job (i32.load (i32.const 2056)) (i32.load (i32.const 2060))))",
                    failed(8)
                ),
            ),
            on('s', &set(0, "(local.get $p)", "(local.get $n)")),
            on('e', &set(500, "(local.get $p)", "(local.get $n)")),
            on('v', &set(0, "(i32.const 0)", "(i32.const 100000)")),
            on('h', &set(0, "(i32.const 0)", "(i32.const 536870912)")),
            on(
                'd',
                &format!(
                    "(call $delete (local.get $k) (local.get $l) (i32.const 2048)) {}
                 (return (call $job (local.get $p) (local.get $n)))",
                    failed(8)
                ),
            ),
            on(
                'm',
                &format!(
                    "(loop $more {} (local.set $count (i32.add (local.get $count) (i32.const 1)))
                   (br_if $more (i32.lt_u (local.get $count) (i32.const 100)))) {sum}",
                    add(0)
                ),
            ),
            on('f', &format!("(loop $more {} (br $more))", add(0))),
            on('u', &format!("{} {sum}", add(500))),
            add(0),
            on('x', "(return (call $reject (i32.const 512) (i32.const 7)))"),
            on('t', "unreachable"),
            on('n', "(return (call $job (i32.const 512) (i32.const 7)))"),
            on('w', "(loop $ever (br $ever))"),
            on(
                'a',
                "(if (i32.lt_u (local.get $attempt) (i32.const 3)) (then (return (call $retry (i32.const 528) (i32.const 7)))))",
            ),
            sum.to_owned(),
        ];
        Self {
            imports: STATE.to_owned(),
            pages: 4,
            extra: format!(
                r#"(data (i32.const 512) "refused") (data (i32.const 528) "not now") (data (i32.const 544) "null")
                   (func $job (param $at i32) (param $len i32) (result i32) {ONE_JOB})
                   (func $fail (param $kind i32) (param $at i32) (param $len i32) (result i32)
                     (i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (local.get $kind))
                     (i32.store (i32.const 1032) (local.get $at)) (i32.store (i32.const 1036) (local.get $len))
                     (i32.const 1024))
                   (func $reject (param i32 i32) (result i32) (call $fail (i32.const 0) (local.get 0) (local.get 1)))
                   (func $retry (param i32 i32) (result i32) (call $fail (i32.const 1) (local.get 0) (local.get 1)))
                   (func $number (param $n i64) (result i32) (local $at i32)
                     (local.set $at (i32.const 4000))
                     (loop $digit
                       (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                       (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10)))))
                       (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
                       (br_if $digit (i64.ne (local.get $n) (i64.const 0))))
                     (call $job (local.get $at) (i32.sub (i32.const 4000) (local.get $at))))
                   (func $do (param $p i32) (param $n i32) (param $attempt i32) (result i32)
                     (local $k i32) (local $l i32) (local $what i32) (local $count i32)
                     (local.set $what (i32.load8_u offset=7 (local.get $p)))
                     (local.set $k (i32.add (local.get $p) (i32.const 17)))
                     {UNTIL_QUOTE}
                     {})"#,
                steps.concat()
            ),
            ..Self::doing("(call $do (local.get 4) (local.get 5) (local.get 12))")
        }
    }

    /// A handler that publishes its payload to the topic in it and answers with one job: `{"to":"TOPIC"`, retained where `{"ko":"TOPIC"`,
    /// without a job where `{"on":"TOPIC"`, not at all where `{"no":`; where `{"tt":"TOPIC"`, once more in front of that.
    #[must_use]
    pub fn publishing() -> Self {
        Self {
            extra: format!(
                "(func $publication (param $at i32) (param $k i32) (param $l i32) (param $p i32) (param $n i32) (param $keep i32)
                   (i32.store8 (local.get $at) (i32.const 1))
                   (i32.store offset=4 (local.get $at) (local.get $k)) (i32.store offset=8 (local.get $at) (local.get $l))
                   (i32.store offset=12 (local.get $at) (local.get $p)) (i32.store offset=16 (local.get $at) (local.get $n))
                   (i32.store8 offset=20 (local.get $at) (local.get $keep)))
                 (func $do (param $p i32) (param $n i32) (result i32)
                   (local $k i32) (local $l i32) (local $first i32) (local $second i32) (local $at i32)
                   (local.set $first (i32.load8_u offset=2 (local.get $p)))
                   (local.set $second (i32.load8_u offset=3 (local.get $p)))
                   (local.set $at (i32.const 2048))
                   (if (i32.ne (local.get $first) (i32.const 110)) (then
                     (local.set $k (i32.add (local.get $p) (i32.const 7)))
                     {UNTIL_QUOTE}
                     (loop $again
                       (call $publication (local.get $at) (local.get $k) (local.get $l) (local.get $p) (local.get $n)
                         (i32.eq (local.get $first) (i32.const 107)))
                       (local.set $at (i32.add (local.get $at) (i32.const 24)))
                       (br_if $again (i32.and (i32.eq (local.get $second) (i32.const 116)) (i32.eq (local.get $at) (i32.const 2072)))))))
                   (if (i32.ne (local.get $first) (i32.const 111)) (then
                     (i32.store8 (local.get $at) (i32.const 0)) (i32.store offset=4 (local.get $at) (local.get $p))
                     (i32.store offset=8 (local.get $at) (local.get $n)) (i32.store8 offset=12 (local.get $at) (i32.const 0))
                     (local.set $at (i32.add (local.get $at) (i32.const 24)))))
                   (i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const 2048))
                   (i32.store (i32.const 1032) (i32.div_u (i32.sub (local.get $at) (i32.const 2048)) (i32.const 24)))
                   (i32.const 1024))"
            ),
            ..Self::doing("(call $do (local.get 4) (local.get 5))")
        }
    }
}
