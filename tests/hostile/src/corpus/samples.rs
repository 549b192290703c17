//! Samples and manifests: what a file says of itself.

use std::fmt::Write as _;

use sluicegate::sandbox::Step;
use sluicegate_guests::{Guest, custom};

use super::calls::doing;
use crate::case::{Case, Must, dead, harmless, refused};

/// A sample that an echo keeps.
pub(super) const ECHOED: &str =
    r#"[{"name":"one","message":{"topic":"t","payload":"{ }"},"expect":{"jobs":[{"payload":"{ }"}]}}]"#;

fn sampled(name: &str, made_of: &str, must: Must, samples: impl Fn() -> String + Send + Sync + 'static) -> Case {
    Case::file(name, made_of, must, move || Guest { samples: Some(samples()), ..Guest::echo() }.handler())
}

fn manifest(name: &str, made_of: &str, must: Must, manifest: impl Fn() -> String + Send + Sync + 'static) -> Case {
    Case::file(name, made_of, must, move || Guest { manifest: manifest(), ..Guest::echo() }.handler())
}

fn described(description: &str) -> String {
    format!("name = \"guest\"\nversion = \"1\"\ndescription = {description}\n")
}

/// So many samples that an echo keeps.
fn many(count: usize) -> String {
    let mut text = String::from("[");
    for number in 0..count {
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(
            text,
            r#"{comma}{{"name":"{number}","message":{{"topic":"t","payload":"1"}},"expect":{{"jobs":[{{"payload":"1"}}]}}}}"#
        );
    }
    text + "]"
}

pub(super) fn cases() -> Vec<Case> {
    let wrong = |part: &str| refused(Step::Verified, &format!("`sluicegate:samples`) are wrong: {part}"));
    let expecting = |payload: &str, expect: &str| {
        format!(r#"[{{"name":"one","message":{{"topic":"t","payload":"{payload}"}},"expect":{expect}}}]"#)
    };
    let lie = expecting("{}", r#"{"reject":"never"}"#);
    let lies = lie.clone();
    let colours = r#"[{"name":"\u001b[2J\nFORGED","message":{"topic":"t","payload":"1"},"expect":{"drop":true}}]"#;
    let base64 = r#"[{"name":"one","message":{"topic":"t","payload_base64":"!"},"expect":{"drop":true}}]"#;
    let large = move || expecting(&"1".repeat(8 << 20), r#"{"drop":true}"#);
    let mut cases = vec![
        sampled(
            "sample-lies",
            "a sample that promises what the code does not do",
            refused(Step::Rehearsed, "expected a rejection"),
            move || lie.clone(),
        ),
        Case::guest(
            "sample-traps",
            "a sample whose call traps",
            refused(Step::Rehearsed, "sample `one`: the plugin trapped"),
            Guest { samples: Some(ECHOED.to_owned()), ..doing("unreachable") },
        ),
        Case::guest(
            "sample-starts-with-a-trap",
            "a sample, and a `start` that traps",
            refused(Step::Rehearsed, "could not be instantiated"),
            Guest {
                samples: Some(ECHOED.to_owned()),
                extra: "(func $bad unreachable) (start $bad)".to_owned(),
                ..Guest::echo()
            },
        ),
        sampled(
            "sample-not-json-made",
            "a sample that promises a job which is no JSON",
            refused(Step::Rehearsed, "not JSON"),
            move || expecting("{x", r#"{"jobs":[{"payload":"{x"}]}"#),
        ),
        sampled("samples-not-json", "samples of words", wrong("expected"), || "hello".to_owned()),
        sampled("samples-of-no-shape", "a sample of nothing", wrong("missing field"), || "[{}]".to_owned()),
        sampled("samples-nested-a-million-deep", "1,000,000 arrays in each other", wrong(""), || "[".repeat(1_000_000)),
        sampled(
            "sample-with-a-million-objects-in-it",
            "an unknown field with 300,000 objects in each other",
            wrong(""),
            || format!("[{}", "{\"x\":".repeat(300_000)),
        ),
        sampled("sample-of-broken-base64", "a payload that is no base64", wrong("sample `one`"), move || {
            base64.to_owned()
        }),
        sampled(
            "sample-named-in-colours",
            "a sample's name with ANSI and a newline",
            refused(Step::Rehearsed, r"sample `\u{1b}[2J\nFORGED`"),
            move || colours.to_owned(),
        ),
        sampled(
            "sample-of-8-mib",
            "a sample whose payload is twice the plugin's memory",
            refused(Step::Rehearsed, "sample `one`"),
            large,
        ),
        sampled("samples-ten-thousand", "10,000 good samples", harmless(), || many(10_000)),
        sampled("samples-one-too-many", "10,001 good samples", wrong("at most 10000 samples"), || many(10_001)),
        sampled(
            "samples-of-20-mib",
            "20 MiB of words",
            refused(Step::Verified, "bytes of samples; a plugin may have 16777216"),
            || format!("\"{}\"", "x".repeat(20 << 20)),
        ),
        Case::file(
            "samples-twice",
            "two sections of samples, the first one a lie",
            refused(Step::Verified, "more than one custom section `sluicegate:samples`"),
            move || {
                let mut bytes = Guest { samples: Some(lies.clone()), ..Guest::echo() }.handler();
                custom(&mut bytes, "sluicegate:samples", ECHOED.as_bytes());
                bytes
            },
        ),
    ];
    cases.extend(manifests());
    cases
}

fn manifests() -> Vec<Case> {
    let wrong = |part: &str| refused(Step::Verified, &format!("`sluicegate:manifest`) is wrong: {part}"));
    let sizes = "name and version have 1 to 64 characters";
    vec![
        manifest("manifest-of-no-toml", "words", wrong(""), || "hello, I am a plugin".to_owned()),
        manifest("manifest-of-nothing", "no bytes", wrong("missing field"), String::new),
        manifest("manifest-of-a-long-description", "a description of 60 KB", wrong(sizes), || {
            described(&format!("\"{}\"", "x".repeat(60_000)))
        }),
        manifest(
            "manifest-of-26-mib",
            "2,000,000 keys",
            refused(Step::Verified, "bytes of manifest; a plugin may have 65536"),
            || (0..2_000_000).map(|key| format!("k{key:07} = 1\n")).collect::<String>() + &described("\"d\""),
        ),
        manifest("manifest-in-colours", "a description with ANSI", wrong(sizes), || described(r#""\u001b[31mred""#)),
        manifest("manifest-with-a-newline", "a name with a newline", wrong(sizes), || {
            "name = \"guest\\nERROR\"\nversion = \"1\"\ndescription = \"d\"".to_owned()
        }),
        manifest("manifest-with-more", "an unknown key", wrong("unknown field"), || {
            described("\"d\"") + "admin = true\n"
        }),
        manifest("manifest-nested-in-arrays", "a description of 60,000 arrays in each other", wrong(""), || {
            described(&"[".repeat(60_000))
        }),
        manifest("manifest-nested-in-tables", "a description of 20,000 tables in each other", wrong(""), || {
            described(&"{a=".repeat(20_000))
        }),
        manifest("manifest-of-dots", "a key of 30,000 names with dots between them", wrong(""), || {
            format!("{}a = 1\n{}", "a.".repeat(30_000), described("\"d\""))
        }),
        manifest("manifest-of-many-dots", "160 keys of 160 names", wrong(""), || {
            let keys = |key: usize| format!("{}k{key} = 1\n", "a.".repeat(160));
            (0..160).map(keys).collect::<String>() + &described("\"d\"")
        }),
        manifest("manifest-of-many-keys", "5,000 keys", wrong("unknown field"), || {
            (0..5_000).map(|key| format!("k{key} = 1\n")).collect::<String>() + &described("\"d\"")
        }),
        manifest("manifest-with-a-key-twice", "the name twice", wrong("duplicate key"), || {
            described("\"d\"") + "name = \"other\"\n"
        }),
        manifest(
            "manifest-of-another-plugin",
            "a good plugin with another name",
            refused(Step::Checked, "says that it is the plugin `other`"),
            || "name = \"other\"\nversion = \"1\"\ndescription = \"d\"\n".to_owned(),
        ),
        manifest(
            "manifest-named-as-a-path",
            "a name that leaves its folder",
            refused(Step::Checked, "../../etc/passwd"),
            || "name = \"../../etc/passwd\"\nversion = \"1\"\ndescription = \"d\"\n".to_owned(),
        ),
        Case::file("manifest-not-utf8", "the bytes 254, 255", wrong("it is not UTF-8"), || {
            let mut bytes = wat::parse_str("(component)").expect("a component");
            custom(&mut bytes, "sluicegate:manifest", &[0xfe, 0xff]);
            bytes
        }),
        Case::file("manifest-missing", "a component with no manifest", wrong("it is missing"), || {
            wat::parse_str("(component)").expect("a component")
        }),
        Case::file(
            "manifest-twice",
            "a good plugin, then another's manifest",
            refused(Step::Verified, "more than one custom section `sluicegate:manifest`"),
            || {
                let mut bytes = Guest::echo().handler();
                custom(&mut bytes, "sluicegate:manifest", described("\"d\"").replace("guest", "other").as_bytes());
                bytes
            },
        ),
        Case::file("manifest-too-many-sections", "a good plugin, then 200,000 custom sections", harmless(), || {
            let mut bytes = Guest::echo().handler();
            (0..200_000).for_each(|_| custom(&mut bytes, "x", b""));
            bytes
        }),
        Case::file("custom-section-of-30-mib", "a good plugin with 30 MiB of nothing", harmless(), || {
            let mut bytes = Guest::echo().handler();
            custom(&mut bytes, "x", &vec![0; 30 << 20]);
            bytes
        }),
        Case::guest(
            "name-of-a-function-in-colours",
            "a trap in a function whose name is ANSI and 100,000 long",
            dead(r"\u{1b}[2J"),
            Guest {
                extra: format!("(func $bad (@name \"\\1b[2J{}\") unreachable)", "x".repeat(99_000)),
                ..doing("(call $bad)")
            },
        ),
    ]
}
