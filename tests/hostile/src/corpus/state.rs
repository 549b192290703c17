//! What was granted, and more than that: keys that leave the plugin's own, floods, values without end, state where no call is.
//!
//! A guest traps where it is given what it must not have.

use sluicegate_guests::Guest;

use super::calls::{SPIN, doing};
use crate::alone::CALL_TIMEOUT;
use crate::case::{Case, Must, dead, harmless};

const IMPORTS: &str = "(import \"sluicegate:plugin/state@0.1.0\" \"get\" (func $get (param i32 i32 i32)))
    (import \"sluicegate:plugin/state@0.1.0\" \"set\" (func $set (param i32 i32 i32 i32 i32 i64 i32)))
    (import \"sluicegate:plugin/state@0.1.0\" \"delete\" (func $delete (param i32 i32 i32)))
    (import \"sluicegate:plugin/state@0.1.0\" \"increment\" (func $increment (param i32 i32 i64 i32 i64 i32)))";

/// Its memory: at 65,536 a key that is to leave the plugin's own, at 66,000 two bytes that are no UTF-8, at 66,010 `n`.
fn keeping(code: &str) -> Guest {
    Guest {
        imports: IMPORTS.to_owned(),
        pages: 62,
        extra: "(data (i32.const 65536) \"}:key:x/../../mqtt_incoming_jobs\\00\\0d\\0aFLUSHALL\\0d\\0a\") (data (i32.const 66000) \"\\fe\\ff\")
                (data (i32.const 66010) \"n\")"
            .to_owned(),
        ..doing(code)
    }
}

/// Traps where the last answer was good.
const REFUSED: &str = "(if (i32.eqz (i32.load8_u (i32.const 2048))) (then unreachable))";
/// Traps where it was not.
const TAKEN: &str = "(if (i32.load8_u (i32.const 2048)) (then unreachable))";

fn set(key: u32, length: i64, size: i64, ttl: Option<i64>) -> String {
    let (there, ttl) = (u32::from(ttl.is_some()), ttl.unwrap_or(0));
    format!(
        "(call $set (i32.const {key}) (i32.const {length}) (i32.const 70000) (i32.const {size}) (i32.const {there}) (i64.const {ttl}) (i32.const 2048))"
    )
}

fn add(by: i64) -> String {
    format!(
        "(call $increment (i32.const 66010) (i32.const 1) (i64.const {by}) (i32.const 0) (i64.const 0) (i32.const 2048))"
    )
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, made_of: &str, must: Must, code: &str| Case::guest(name, made_of, must, keeping(code));
    let too_often = || dead("more than 1000 host calls in one call");
    let delete = "(call $delete (i32.const 66010) (i32.const 1) (i32.const 2048))";
    vec![
        case(
            "state-key-traversal",
            "reads, sets and deletes a key that is to leave its own",
            harmless(),
            &format!(
                "(call $get (i32.const 65536) (i32.const 45) (i32.const 2048)) {TAKEN} {} {TAKEN}
                 (call $delete (i32.const 65536) (i32.const 45) (i32.const 2048)) {TAKEN}",
                set(65_536, 45, 10, None)
            ),
        ),
        case("state-key-of-no-bytes", "an empty key", harmless(), &format!("{} {REFUSED}", set(65_536, 0, 1, None))),
        case(
            "state-key-of-60-kb",
            "a key of 60,000 bytes",
            harmless(),
            &format!("{} {REFUSED}", set(131_072, 60_000, 1, None)),
        ),
        case("state-key-not-utf8", "a key of the bytes 254, 255", dead("utf-8"), &set(66_000, 2, 1, None)),
        case("state-key-without-end", "a key of 2 GiB", dead("out of bounds"), &set(65_536, 1 << 31, 1, None)),
        case(
            "state-value-of-100-kb",
            "a value of 100,000 bytes",
            harmless(),
            &format!("{} {REFUSED}", set(66_010, 1, 100_000, None)),
        ),
        case("state-value-of-3-mib", "a value of 3 MiB", dead("limits.output"), &set(66_010, 1, 3 << 20, None)),
        case("state-value-of-500-mb", "a value of 500 MB", dead("out of bounds"), &set(66_010, 1, 500 << 20, None)),
        case(
            "state-for-no-time",
            "a time to live of 0 ms, and of half a billion years",
            harmless(),
            &format!("{} {REFUSED} {} {REFUSED}", set(66_010, 1, 1, Some(0)), set(66_010, 1, 1, Some(-1))),
        ),
        case(
            "state-of-a-thousand-keys",
            "sets 900 keys in one call",
            harmless(),
            &format!(
                "(local.set $len (i32.const 900))
                 (loop $again
                   (i32.store8 (i32.const 66012) (i32.add (i32.const 48) (i32.and (local.get $len) (i32.const 15))))
                   (i32.store8 (i32.const 66013) (i32.add (i32.const 48) (i32.shr_u (local.get $len) (i32.const 4))))
                   {}
                   (local.set $len (i32.sub (local.get $len) (i32.const 1)))
                   (br_if $again (local.get $len)))
                 {REFUSED}",
                set(66_012, 2, 10, Some(1_000))
            ),
        ),
        case(
            "state-increment-flood",
            "increments without end",
            too_often(),
            &format!("(loop $again {} (br $again))", add(1)),
        ),
        case(
            "state-set-flood",
            "sets 1,000 bytes without end",
            too_often(),
            &format!("(loop $again {} (br $again))", set(66_010, 1, 1_000, None)),
        ),
        case(
            "state-get-flood",
            "reads without end",
            too_often(),
            "(loop $again (call $get (i32.const 66010) (i32.const 1) (i32.const 2048)) (br $again))",
        ),
        case(
            "state-beyond-64-bits",
            "adds the largest number twice",
            harmless(),
            &format!("{delete} {} {TAKEN} {} {REFUSED} {delete}", add(i64::MAX), add(i64::MAX)),
        ),
        case(
            "state-added-to-text",
            "adds to what is no number",
            harmless(),
            &format!("{} {TAKEN} {} {REFUSED} {delete}", set(66_010, 1, 3, None), add(1)),
        ),
        case("state-then-trap", "increments, then `unreachable`", dead("trapped"), &format!("{} unreachable", add(1))),
        case(
            "state-then-spin",
            "increments, then an endless loop",
            dead(&format!("gave no answer within {CALL_TIMEOUT:?}")),
            &format!("{} {SPIN}", add(1)),
        ),
        Case::guest("state-in-start", "increments in the module's `start`", dead("could not be instantiated"), {
            let mut guest = keeping("");
            guest.extra += &format!("(func $early {}) (start $early)", add(1));
            guest
        }),
        Case::guest("state-in-realloc", "increments while its message is lowered", dead("cannot leave component"), {
            let mut guest = keeping("");
            guest.realloc = add(1);
            guest
        }),
        Case::guest("state-in-post-return", "increments in post-return", dead("cannot leave component"), {
            let mut guest = keeping("");
            guest.post_return = add(1);
            guest
        }),
    ]
}
