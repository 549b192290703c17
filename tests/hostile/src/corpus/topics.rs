//! Publications: where a plugin would send what nobody granted it.

use sluicegate_guests::Guest;

use crate::case::{Case, End, Must, dead, harmless};

/// An answer of one publication on this topic, in WebAssembly's text; before it a job, where `job` says so.
fn publishes(topic: &str, length: i64, job: bool) -> Guest {
    let at = if job { 2048 + 24 } else { 2048 };
    let one = if job {
        "(i32.store8 (i32.const 2048) (i32.const 0)) (i32.store (i32.const 2052) (local.get 4))
         (i32.store (i32.const 2056) (local.get 5)) (i32.store8 (i32.const 2060) (i32.const 0))"
    } else {
        ""
    };
    Guest {
        pages: 4,
        extra: format!("(data (i32.const 65536) \"{topic}\")"),
        ..Guest::doing(&format!(
            "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const 2048))
             (i32.store (i32.const 1032) (i32.const {})) {one}
             (i32.store8 (i32.const {at}) (i32.const 1))
             (i32.store offset=4 (i32.const {at}) (i32.const 65536)) (i32.store offset=8 (i32.const {at}) (i32.const {length}))
             (i32.store offset=12 (i32.const {at}) (local.get 4)) (i32.store offset=16 (i32.const {at}) (local.get 5))
             (i32.store8 offset=20 (i32.const {at}) (i32.const 1)) (i32.const 1024)",
            1 + i32::from(job)
        ))
    }
}

fn case(name: &str, made_of: &str, topic: &str, length: i64, must: Must) -> Case {
    Case::guest(name, made_of, must, publishes(topic, length, false))
}

pub(super) fn cases() -> Vec<Case> {
    let no = |topic: &str| dead(&format!("publishes to `{topic}`, which is not granted"));
    let none = |why: &str| dead(&format!("publishes to a topic that is none: {why}"));
    let topic = |name: &str, made_of: &str, topic: &str| {
        case(name, made_of, topic, i64::try_from(topic.len()).expect("short"), no(topic))
    };
    vec![
        case("topic-of-everything", "publishes on `#`", "#", 1, none("it holds a wildcard")),
        case("topic-with-a-wildcard", "on `machine/+/command`", "machine/+/command", 17, none("it holds a wildcard")),
        case("topic-of-the-system", "on the broker's own topics", "$SYS/broker/uptime", 18, none("it begins with `$`")),
        case("topic-of-a-shared-subscription", "on `$share/…`", "$share/a/machine/x", 18, none("it begins with `$`")),
        topic("topic-of-another-machine", "a command to another machine", "machine/M-002/command"),
        topic("topic-of-its-own-route", "on what its own route takes, for ever", "hostile/H-topic-of-its-own-route"),
        topic("topic-granted-of-another-machine", "another machine's of what was granted", "granted/H-other/config"),
        Case::guest(
            "topic-granted",
            "its own machine's of what was granted, and a job",
            Must::Live(vec![End::Makes("published to granted/H-topic-granted/config".to_owned())]),
            publishes("granted/H-topic-granted/config", 30, true),
        )
        .in_gateway(harmless()),
        topic("topic-of-a-neighbour", "in a neighbour's name", "machine/G-0/heartbeat"),
        case("topic-with-nul", "a topic with NUL in it", "machine/M-1\\00/command", 20, none("it holds a control")),
        case("topic-with-a-newline", "a topic with a newline and ANSI", "a\\0a\\1b[2J", 6, none("it holds a control")),
        case("topic-of-no-bytes", "an empty topic", "", 0, none("it is empty")),
        case("topic-of-60-kb", "a topic of 60,000 bytes", "", 60_000, none("it holds a control")),
        case("topic-not-utf8", "a topic of the bytes 254, 255", "\\fe\\ff", 2, dead("utf-8")),
        case("topic-without-end", "a topic of 2 GiB", "x", 1 << 31, dead("out of bounds")),
        Case::guest(
            "topic-beside-a-job",
            "a good job and a publication: nothing of it goes out",
            no("machine/M-002/command"),
            publishes("machine/M-002/command", 21, true),
        ),
    ]
}
