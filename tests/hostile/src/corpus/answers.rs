//! Answers that are none, or are more than the host should hold.

use sluicegate_guests::{Guest, ONE_JOB};

use crate::case::{Case, dead, harmless};

/// `ok` of a list: where it begins, and how many outputs it says that it has.
fn outputs(at: i64, count: i64) -> Guest {
    Guest::doing(&format!(
        "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const {at}))
         (i32.store (i32.const 1032) (i32.const {count})) (i32.const 1024)"
    ))
}

/// One job whose payload begins and is as long as is said.
fn payload(at: i64, length: i64) -> Guest {
    Guest::doing(&format!("(local.set $at (i32.const {at})) (local.set $len (i32.const {length})) {ONE_JOB}"))
}

/// So many jobs, each of so many bytes from address 0, which hold `1`.
fn jobs(count: u32, bytes: u32) -> Guest {
    Guest { pages: 60, extra: "(data (i32.const 0) \"1\")".to_owned(), ..Guest::many(count, bytes) }
}

/// A failure (0 rejects, 1 asks again) whose reason is this text of WebAssembly, or lies where is said.
fn failure(kind: u8, reason: &str, length: i64) -> Guest {
    Guest {
        extra: format!("(data (i32.const 16384) \"{reason}\")"),
        ..Guest::doing(&format!(
            "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const {kind}))
             (i32.store (i32.const 1032) (i32.const 16384)) (i32.store (i32.const 1036) (i32.const {length})) (i32.const 1024)"
        ))
    }
}

/// An echo whose idempotency key is this text of WebAssembly.
fn keyed(key: &str, length: i64) -> Guest {
    Guest {
        extra: format!("(data (i32.const 16384) \"{key}\")"),
        ..Guest::doing(&format!(
            "(local.set $at (local.get 4)) (local.set $len (local.get 5)) {ONE_JOB}
             (i32.store8 (i32.const 1052) (i32.const 1)) (i32.store (i32.const 1056) (i32.const 16384))
             (i32.store (i32.const 1060) (i32.const {length}))"
        ))
    }
}

fn bytes(text: &[u8]) -> String {
    text.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// One job with these bytes as its payload.
fn job(text: &[u8]) -> Guest {
    Guest {
        pages: 4,
        extra: format!("(data (i32.const 65536) \"{}\")", bytes(text)),
        ..payload(65_536, i64::try_from(text.len()).expect("small"))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let large = || dead("answered with more than 64KiB");
    let beyond = || dead("out of bounds");
    let utf8 = || dead("utf-8");
    let mut cases = vec![
        Case::guest(
            "four-billion-outputs",
            "a list that says it has 4,294,967,295 outputs",
            beyond(),
            outputs(2048, -1),
        ),
        Case::guest("two-billion-outputs", "a list of 2,147,483,648", beyond(), outputs(2048, -2_147_483_648)),
        Case::guest(
            "a-million-outputs",
            "a list of 1,000,000 in a memory of 128 KiB",
            beyond(),
            outputs(2048, 1_000_000),
        ),
        Case::guest("a-hundred-thousand-jobs", "100,000 empty jobs, all there", large(), jobs(100_000, 0)),
        Case::guest(
            "more-jobs-than-there-may-be",
            "1,200 jobs of a byte",
            dead("answered with more than 1000 outputs (limits.outputs)"),
            jobs(1_200, 1),
        ),
        Case::guest("one-byte-too-much", "one job of 64 KiB and a byte", large(), jobs(1, (64 << 10) + 1)),
        Case::guest("three-mebibytes", "one job of 3 MiB", large(), jobs(1, 3 << 20)),
        Case::guest("too-much-in-sum", "three jobs of 32 KiB", large(), jobs(3, 32 << 10)),
        Case::guest(
            "a-string-of-500-mb",
            "a payload that says it has 500,000,000 bytes",
            beyond(),
            payload(0, 500_000_000),
        ),
        Case::guest("a-string-of-4-gb", "a payload of 4,294,967,295", beyond(), payload(0, -1)),
        Case::guest("a-list-that-wraps", "a payload at 4,294,967,280 of 32 bytes", beyond(), payload(-16, 32)),
        Case::guest("outputs-beyond-the-memory", "a list at 2,147,483,640", beyond(), outputs(0x7fff_fff8, 1)),
        Case::guest("outputs-misaligned", "a list at an odd address", dead("aligned"), outputs(2049, 1)),
        Case::guest(
            "answer-beyond-the-memory",
            "an answer at 2,147,483,644",
            beyond(),
            Guest::doing("(i32.const 2147483644)"),
        ),
        Case::guest(
            "answer-misaligned",
            "an answer at an odd address",
            dead("aligned"),
            Guest::doing("(i32.const 1025)"),
        ),
        Case::guest(
            "answer-at-the-last-byte",
            "an answer that begins in the memory and ends beyond it",
            beyond(),
            Guest::doing("(i32.const 131068)"),
        ),
        Case::guest(
            "result-of-no-kind",
            "7 where 0 is `ok` and 1 is `err`",
            dead("answered with garbage"),
            Guest::doing("(i32.store8 (i32.const 1024) (i32.const 7)) (i32.const 1024)"),
        ),
        Case::guest(
            "output-of-no-kind",
            "255 where 0 is a job and 1 a publication",
            dead("answered with garbage"),
            Guest { extra: "(data (i32.const 2048) \"\\ff\")".to_owned(), ..outputs(2048, 1) },
        ),
        Case::guest(
            "failure-of-no-kind",
            "9 where 0 is `reject` and 1 is `retry`",
            dead("answered with garbage"),
            failure(9, "x", 1),
        ),
        Case::guest(
            "option-of-no-kind",
            "5 where 0 is none and 1 is some",
            dead("answered with garbage"),
            Guest::doing(&format!(
                "(local.set $at (local.get 4)) (local.set $len (local.get 5)) {ONE_JOB} (i32.store8 (i32.const 1052) (i32.const 5))"
            )),
        ),
        Case::guest("reason-not-utf8", "a reason of the byte 255", utf8(), failure(0, "\\ff", 1)),
        Case::guest(
            "reason-of-surrogates",
            "a reason that holds U+D800 as three bytes",
            utf8(),
            failure(0, "\\ed\\a0\\80", 3),
        ),
        Case::guest("reason-overlong", "a reason that holds NUL as two bytes", utf8(), failure(0, "\\c0\\80", 2)),
        Case::guest("reason-cut", "a reason that ends within a character", utf8(), failure(1, "\\f0\\9f\\98", 3)),
        Case::guest("reason-without-end", "a reason of 1 GiB", beyond(), failure(0, "x", 1 << 30)),
        Case::guest(
            "reason-of-100-kb",
            "a reason of 110,000 bytes, more than is kept",
            dead("\0\0\0"),
            failure(0, "", 110_000),
        ),
        Case::guest(
            "reason-in-colours",
            "a reason with newlines and ANSI",
            dead("\u{1b}[2J\u{1b}[31mFORGED"),
            failure(0, "\\1b[2J\\1b[31mFORGED\\0a2026-04-14 ERROR FORGED", 33),
        ),
        Case::guest(
            "key-empty",
            "an idempotency key of no bytes",
            dead("key has 0 bytes; it must be 1 to 1024"),
            keyed("", 0),
        ),
        Case::guest("key-of-1025", "a key of 1,025 bytes", dead("key has 1025 bytes"), keyed("", 1_025)),
        Case::guest("key-of-60-kb", "a key of 60,000 bytes", dead("key has 60000 bytes"), keyed("", 60_000)),
        Case::guest("key-not-utf8", "a key of the bytes 254, 255", utf8(), keyed("\\fe\\ff", 2)),
        Case::guest(
            "key-of-another-machine",
            "a key that looks like another machine's, with NUL in it",
            harmless(),
            keyed("5:M-001:T1\\00*", 12),
        ),
    ];
    cases.extend(json());
    cases
}

/// What is to stand in an envelope.
fn json() -> Vec<Case> {
    let no = |part: &str| dead(&format!("the job is not JSON: {part}"));
    let keys = |count: usize| format!("{{{}\"a\":0}}", "\"a\":1,".repeat(count));
    let as_text = |text: &str| crate::case::Must::Live(vec![crate::case::End::Makes(text.chars().take(32).collect())]);
    vec![
        Case::guest("job-of-no-bytes", "a job of no bytes", no("EOF"), job(b"")),
        Case::guest("job-of-words", "a job of words", no("expected"), job(b"hello")),
        Case::guest("job-of-two-values", "two values in one job", no("trailing"), job(b"{}{}")),
        Case::guest(
            "job-that-breaks-out",
            "a job that ends the envelope and begins another",
            no("trailing"),
            job(br#"{},"serial_no":"M-2""#),
        ),
        Case::guest(
            "job-of-bytes",
            "bytes that are no UTF-8 within a string",
            dead("not UTF-8 from byte 6"),
            job(b"{\"a\":\"\xff\"}"),
        ),
        Case::guest("job-with-a-bom", "a byte order mark before the value", no("expected"), job(b"\xef\xbb\xbf{}")),
        Case::guest("job-of-nan", "NaN", no("expected"), job(b"NaN")),
        Case::guest(
            "job-nested-60000-deep",
            "60,000 arrays in each other",
            no("nested more than 64 deep"),
            job("[".repeat(60_000).as_bytes()),
        ),
        Case::guest(
            "job-nested-65-deep",
            "65 objects in each other, all closed",
            no("nested more than 64 deep"),
            job(format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65)).as_bytes()),
        ),
        Case::guest(
            "job-of-half-a-pair",
            "half of a surrogate pair",
            no("half of a surrogate pair"),
            job(br#"{"a":"\ud83d"}"#),
        ),
        Case::guest(
            "job-key-of-half-a-pair",
            "the same in a key",
            no("half of a surrogate pair"),
            job(br#"{"\ud83d":1}"#),
        ),
        Case::guest("job-of-the-other-half", "its second half alone", no(""), job(br#""\ude00""#)),
        Case::guest(
            "job-key-of-nul",
            "a key that begins with NUL",
            no("a key begins with NUL"),
            job(br#"{"\u0000a":1}"#),
        ),
        Case::guest(
            "job-with-a-raw-newline",
            "a control character within a string",
            no("control character"),
            job(b"\"a\nb\""),
        ),
        Case::guest(
            "job-of-a-huge-number",
            "a number of 60,000 digits",
            no("number out of range"),
            job("9".repeat(60_000).as_bytes()),
        ),
        Case::guest("job-of-a-huge-exponent", "1e999999999", no("number out of range"), job(b"1e999999999")),
        Case::guest(
            "job-of-10000-equal-keys",
            "an object with the key `a` 10,000 times",
            as_text(&keys(10_000)),
            job(keys(10_000).as_bytes()),
        ),
        Case::guest(
            "job-of-21000-arrays",
            "an array of 21,000 arrays",
            as_text(&format!("[{}1]", "[],".repeat(21_000))),
            job(format!("[{}1]", "[],".repeat(21_000)).as_bytes()),
        ),
        Case::guest(
            "job-of-spaces",
            "64 KiB, all of it space but one digit",
            as_text(&" ".repeat(64)),
            job(format!("{}1", " ".repeat(65_535)).as_bytes()),
        ),
    ]
}
