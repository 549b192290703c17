//! What a plugin says and asks: floods, forged lines, names that are none.

use sluicegate_guests::Guest;

use super::calls::doing;
use crate::case::{Case, dead, harmless};

const IMPORTS: &str = "(import \"sluicegate:plugin/host@0.1.0\" \"log\" (func $log (param i32 i32 i32)))
    (import \"sluicegate:plugin/host@0.1.0\" \"setting\" (func $setting (param i32 i32 i32)))";

/// Words that no line of the gateway's log may begin with.
pub const FORGED: &str = "2026-04-14T09:00:00Z ERROR sluicegate: FORGED";

fn saying(code: &str) -> Guest {
    Guest {
        imports: IMPORTS.to_owned(),
        pages: 4,
        extra: format!(
            "(data (i32.const 65536) \"\\0a\\0d\\1b[31m\\1b]0;title\\07\\0a{FORGED}\\0a\\e2\\80\\ae\") (data (i32.const 131072) \"a\\ff\")"
        ),
        ..doing(code)
    }
}

/// The same, so often.
fn again(times: u32, code: &str) -> Guest {
    saying(&format!(
        "(local.set $len (i32.const {times}))
         (loop $again {code}
           (local.set $len (i32.sub (local.get $len) (i32.const 1)))
           (br_if $again (local.get $len)))"
    ))
}

pub(super) fn cases() -> Vec<Case> {
    let log = |level: i64, at: i64, length: i64| {
        format!("(call $log (i32.const {level}) (i32.const {at}) (i32.const {length}))")
    };
    let setting = |length: i64, answer: i64| {
        format!("(call $setting (i32.const 65536) (i32.const {length}) (i32.const {answer}))")
    };
    let too_often = || dead("more than 1000 host calls in one call");
    vec![
        Case::guest(
            "log-flood",
            "900 lines of 2,000 bytes in one call",
            harmless(),
            again(900, &log(3, 65_536, 2_000)),
        ),
        Case::guest(
            "log-without-end",
            "logs for ever",
            too_often(),
            saying(&format!("(loop $again {} (br $again))", log(1, 65_536, 8))),
        ),
        Case::guest(
            "log-forged",
            "newlines, ANSI, a title, right to left: a forged line",
            harmless(),
            saying(&log(2, 65_536, 67)),
        ),
        Case::guest("log-of-60-kb", "a line of 60,000 bytes", harmless(), saying(&log(1, 65_536, 60_000))),
        Case::guest(
            "log-of-190-kb",
            "a line of 190,000 bytes, more than the host holds",
            dead("answered with more than 64KiB"),
            saying(&log(1, 65_536, 190_000)),
        ),
        Case::guest(
            "log-at-a-level-of-no-kind",
            "level 200",
            dead("answered with garbage"),
            saying(&log(200, 65_536, 8)),
        ),
        Case::guest(
            "log-beyond-its-memory",
            "a line at the end of the memory and beyond",
            dead("out of bounds"),
            saying(&log(1, 262_140, 8)),
        ),
        Case::guest("log-not-utf8", "a line of the byte 255", dead("utf-8"), saying(&log(1, 131_072, 2))),
        Case::guest(
            "settings-without-end",
            "asks for a setting for ever",
            too_often(),
            saying(&format!("(loop $again {} (br $again))", setting(8, 512))),
        ),
        Case::guest(
            "setting-of-a-long-name",
            "asks 900 times for a setting whose name has 60,000 bytes",
            harmless(),
            again(900, &setting(60_000, 512)),
        ),
        Case::guest(
            "setting-answered-nowhere",
            "wants the answer beyond its memory",
            dead("out of bounds"),
            saying(&setting(8, 262_144)),
        ),
        Case::guest(
            "setting-answered-at-an-odd-address",
            "wants the answer at an odd address",
            dead("aligned"),
            saying(&setting(8, 513)),
        ),
    ]
}
