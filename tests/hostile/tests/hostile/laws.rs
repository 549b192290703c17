//! The fuzz targets' laws, on bytes that are nearly right: bounded, and without a nightly compiler.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use sluicegate_guests::Guest;
use sluicegate_hostile::laws;

/// Text of pieces that mean something to what reads it, and of some that mean nothing.
fn pieces(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => any::<char>().prop_map(|one| one.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Something good, with some of its bytes changed, taken away or put in.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let damage = prop::collection::vec((any::<Index>(), any::<u8>(), 0..3_u8), 0..8);
    damage.prop_map(move |damage| {
        let mut bytes = good.clone();
        for (at, byte, kind) in damage {
            let at = at.index(bytes.len().max(1));
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at.min(bytes.len()), byte),
            }
        }
        bytes
    })
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\"a\"",
    "\"\\u0000a\"",
    "\"\\ud83d\"",
    "\"\\ud83d\\ude00\"",
    "\\",
    "1",
    "-0",
    "1e999",
    "0.5",
    "true",
    "null",
    " ",
    "\n",
    "[[[[[[[[",
    "]]]]]]]]",
    "{\"a\":",
    "9007199254740993",
];
const COMMAND: &[&str] = &[
    "{",
    "}",
    ",",
    ":",
    "\"target\":\"M-1\"",
    "\"target\":\"M/1\"",
    "\"command\":\"reboot\"",
    "\"payload\":{}",
    "\"payload\":null",
    "\"message_id\":\"1\"",
    "\"expires_in\":60",
    "\"expires_at\":0",
    "\"x\":[1]",
    "\"payload\":",
    "\"\\u0070ayload\":1",
    " ",
    "\n",
    "1",
];
const TOPIC: &[&str] =
    &["machine", "/", "//", "+", "#", "$SYS", "{serial_no}", "{a}", "{", "}", "M-1", "\0", "heartbeat", "a"];
const SETTINGS: &[&str] = &[
    "[mqtt]\n",
    "[redis]\n",
    "[[routes]]\n",
    "[plugins.a]\n",
    "[plugins.a.limits]\n",
    "url = \"mqtt://h:1\"\n",
    "name = \"a\"\n",
    "topic = \"a/{serial_no}\"\n",
    "handlers = []\n",
    "path = \"a.wasm\"\n",
    "memory = \"4MiB\"\n",
    "attempts = 0\n",
    "= ",
    "\"",
    "${A}",
    "${A:-b}",
    "${file:/x}",
    "'''",
    "[",
    "]",
    "{",
    "}",
    "\n",
    "# c\n",
    "key_prefix = \"é\"\n",
    "qos = 1\n",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn settings(text in pieces(SETTINGS)) {
        laws::settings(&text);
    }

    #[test]
    fn settings_that_were_good(text in damaged(include_bytes!("../../../../config/sluicegate.toml").to_vec())) {
        laws::settings(&text);
    }

    #[test]
    fn topics(text in pieces(TOPIC)) {
        laws::topics(&text);
    }

    #[test]
    fn envelope(serial_no in any::<String>(), payload in pieces(JSON)) {
        laws::envelope(&[serial_no.replace('\0', "").as_bytes(), b"\0", &payload].concat());
    }

    #[test]
    fn output(text in pieces(JSON)) {
        laws::output(&text);
    }

    #[test]
    fn output_that_was_good(text in damaged(br#"{"a":[1,2.5e3,"\ud83d\ude00",{"b":null,"c":[]}],"d":true}"#.to_vec())) {
        laws::output(&text);
        laws::envelope(&[b"M-1\0", text.as_slice()].concat());
    }

    #[test]
    fn command(text in pieces(COMMAND)) {
        laws::command(&text);
    }

    #[test]
    fn command_that_was_good(
        text in damaged(br#"{"target":"M-001","command":"dispense","payload":{"slot_no":5},"message_id":"1","expires_in":60}"#.to_vec()),
    ) {
        laws::command(&text);
    }

    #[test]
    fn component_that_was_good(bytes in damaged(Guest::echo().handler())) {
        laws::component(&bytes);
    }

    #[test]
    fn component_cut(at in any::<Index>()) {
        let whole = Guest::echo().handler();
        laws::component(&whole[..at.index(whole.len())]);
    }

    #[test]
    fn component_with_any_words(manifest in any::<String>(), samples in any::<String>()) {
        laws::component(&Guest { manifest, ..Guest::echo() }.handler());
        laws::component(&Guest { samples: Some(samples), ..Guest::echo() }.handler());
    }
}

#[test]
fn component_with_words_without_end() {
    let keys = format!("\"\\u001b[2J\\n{}\" = 1\n", "x".repeat(1 << 20));
    laws::component(&Guest { manifest: keys, ..Guest::echo() }.handler());
    let field = format!("[{{\"\\u001b[2J{}\":1}}]", "x".repeat(1 << 20));
    laws::component(&Guest { samples: Some(field), ..Guest::echo() }.handler());
}
