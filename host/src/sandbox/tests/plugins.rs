//! The plugins of this project, as they are built.

use std::path::Path;

use super::*;
use crate::sandbox::{Pool, World, rehearse};

#[track_caller]
fn built(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/plugins").join(format!("{name}.wasm"));
    std::fs::read(&path).expect("config/plugins is built by `cargo xtask plugins`; type that first")
}

#[test]
fn each_keeps_what_its_samples_promise() {
    let plugins = [
        ("heartbeat", World::TopicHandler),
        ("error", World::TopicHandler),
        ("transaction", World::TopicHandler),
        ("acme-transform", World::TopicHandler),
        ("command-ack", World::TopicHandler),
        ("command-validation", World::CommandValidator),
    ];
    for (name, world) in plugins {
        let generation = build(&built(name), Limits::default());
        assert_eq!(generation.world(), world);
        let rehearsed = run(rehearse(&generation)).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert!(rehearsed > 2, "{name} has {rehearsed} samples");
    }
}

#[test]
fn a_heartbeat_passes_byte_for_byte() {
    let generation = build(&built("heartbeat"), Limits::default());
    let payload = r#"{ "temperature" : 12.30, "x":9007199254740993 }"#;
    let answer = run(async {
        let pool = Pool::new();
        let first = pool.handle(&generation, &message(payload)).await;
        // On a warm instance too.
        assert_eq!(pool.handle(&generation, &message(payload)).await, first);
        first
    });
    let [sluicegate_core::message::Output::Job(job)] = &answer.expect("an answer").expect("outputs")[..] else {
        panic!("one job");
    };
    assert_eq!(job.payload, payload);
}
