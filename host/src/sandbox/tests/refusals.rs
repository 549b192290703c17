//! What never goes live.

use super::*;
use crate::sandbox::{Problem, Step, World, inspect};
use sluicegate_guests::http::Asker;
use sluicegate_guests::{Guest, section};

#[track_caller]
fn refused(component: &[u8], step: Step, part: &str) {
    let refusal = refusal(component);
    assert_eq!(refusal.step, step, "{refusal}");
    assert!(refusal.to_string().contains(part), "{refusal}");
}

#[test]
fn what_is_no_component() {
    refused(b"", Step::Verified, "not a WebAssembly component: ");
    refused(b"#!/bin/sh\n", Step::Verified, "not a WebAssembly component: magic header not detected: bad magic number");
    refused(&[0; 4096], Step::Verified, "not a WebAssembly component: ");
    refused(&wat::parse_str("(module)").expect("a module"), Step::Verified, "a core WebAssembly module");
    let whole = Guest::echo().handler();
    for length in [7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        assert_eq!(refusal(&whole[..length]).step, Step::Verified, "{length} bytes of it");
    }
    let mut large = whole;
    large.resize((inspect::MAX_FILE_BYTES + 1) as usize, 0);
    refused(&large, Step::Verified, "a plugin may have 33554432");
}

#[test]
fn what_says_nothing_of_itself() {
    let component = wat::parse_str("(component)").expect("a component");
    refused(&component, Step::Verified, "`sluicegate:manifest`) is wrong: it is missing");
    let wrong = |manifest: &str| Guest { manifest: manifest.to_owned(), ..Guest::echo() }.handler();
    refused(&wrong("name = 1"), Step::Verified, "invalid type");
    refused(
        &wrong("name = \"a\"\nversion = \"1\"\ndescription = \"\\u001b[31m\""),
        Step::Verified,
        "control character",
    );
    let samples = Guest { samples: Some("[{}]".to_owned()), ..Guest::echo() };
    refused(&samples.handler(), Step::Verified, "`sluicegate:samples`) are wrong");
}

#[track_caller]
fn described(text: &str) -> Vec<u8> {
    let mut component = wat::parse_str(text).expect("a component");
    Guest::echo().describe(&mut component);
    component
}

#[test]
fn what_implements_no_world_or_two() {
    let lift = |names: &[&str]| {
        let exports: String = names.iter().map(|name| format!("(export \"{name}\" (func $f))")).collect();
        described(&format!(
            "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
               (func $f (canon lift (core func $i \"f\"))) {exports})"
        ))
    };
    refused(&lift(&[]), Step::Checked, "it exports no function");
    refused(&lift(&["run"]), Step::Checked, "it exports `run`; a plugin exports either");
    refused(&lift(&["handle", "validate"]), Step::Checked, "both `handle` and `validate`");
    refused(&lift(&["handle"]), Step::Checked, "the engine refuses it: ");
}

#[test]
fn what_imports_more_than_was_granted() {
    let import = |name: &str| described(&format!("(component (import \"{name}\" (instance)))"));
    refused(
        &Asker::handler(),
        Step::Checked,
        "it imports `wasi:http/types@0.2.3`, which is not granted; name the servers that it may call in plugins.NAME.grants.http",
    );
    for name in [
        "wasi:http/incoming-handler@0.2.3",
        "wasi:http/types@0.3.0",
        "wasi:nn/tensor@0.2.0",
        "wasi:filesystem/preopens@0.3.0",
        "wasi:cli/run@0.2.0",
        "wasi:keyvalue/store",
    ] {
        refused(&import(name), Step::Checked, &format!("it imports `{name}`, which is not granted; there are"));
    }
    refused(
        &Guest::stateful().handler(),
        Step::Checked,
        "it imports `sluicegate:plugin/state@0.1.0`, which is not granted; set grants.state = true",
    );
    refused(&import("sluicegate:plugin/types@0.2.0"), Step::Checked, "built on `sluicegate:plugin/types@0.2.0`");
    let unknown = described(
        "(component (import \"sluicegate:plugin/secrets@0.1.0\" (instance (export \"get\" (func))))
           (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
           (func $f (canon lift (core func $i \"f\"))) (export \"handle\" (func $f)))",
    );
    refused(&unknown, Step::Checked, "sluicegate:plugin/secrets@0.1.0");
}

/// A good plugin with one more module inside it, which nobody instantiates: it is refused all the same.
#[track_caller]
fn refused_module(text: &str, part: &str) {
    let mut component = Guest::echo().handler();
    section(&mut component, 1, &wat::parse_str(text).expect("a module"));
    refused(&component, Step::Compiled, part);
}

#[test]
fn what_needs_a_feature_that_is_off() {
    refused_module("(module (type (struct (field i32))))", "gc");
    refused_module("(module (func (param anyref) (result i32) (ref.test i31ref (local.get 0))))", "gc");
    refused_module("(module (tag (param i32)))", "exceptions");
    refused_module("(module (memory 1 1 shared))", "threads");
    refused_module("(module (memory 1) (func (result i32) (i32.atomic.load (i32.const 0))))", "threads");
    refused_module("(module (memory i64 1))", "memory64");
    refused_module(
        "(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))",
        "function references",
    );
    refused_module("(module (memory 1 (pagesize 1)))", "custom page sizes");
    refused_module("(module (type $f (func)) (type (cont $f)))", "");
    refused_module("(module (memory 5) (memory 5) (memory 5) (memory 5) (memory 5))", "");
}

#[test]
fn what_is_too_much_to_compile() {
    let with = |sections: &[(u8, Vec<u8>)]| {
        let mut component = Guest::echo().handler();
        for (id, content) in sections {
            section(&mut component, *id, content);
        }
        component
    };
    let module = |text: &str| (1, wat::parse_str(text).expect("a module"));
    let large = format!("(module (func {}))", "nop ".repeat(1 << 20));
    refused(&with(&[module(&large)]), Step::Verified, "bytes in one function; a plugin may have 1048576");
    let many = format!("(module {})", "(func)".repeat(50_001));
    refused(&with(&[module(&many), module(&many)]), Step::Verified, "functions; a plugin may have 100000");
    let empty: Vec<_> = (0..100).map(|_| module("(module)")).collect();
    refused(&with(&empty), Step::Verified, "modules and components; a plugin may have 100");
    let nested = format!("{}{}", "(component ".repeat(10), ")".repeat(10));
    let nested = (4, wat::parse_str(nested).expect("a component"));
    refused(&with(&[nested]), Step::Verified, "levels of components in one another");
    let resources = wat::parse_str("(component (type $r (resource (rep i32))) (core func (canon resource.new $r)))");
    refused(&with(&[(4, resources.expect("a component"))]), Step::Verified, "resources of its own (`resource.new`)");
}

#[test]
fn asynchronous_components() {
    let component = described(
        "(component (core module $m (func (export \"f\") (result i32) (i32.const 0))
             (func (export \"c\") (param i32 i32 i32) (result i32) (i32.const 0)))
           (core instance $i (instantiate $m))
           (func $f async (canon lift (core func $i \"f\") async (callback (core func $i \"c\")))) (export \"handle\" (func $f)))",
    );
    assert_eq!(refusal(&component).step, Step::Compiled);
}

#[test]
fn what_a_good_one_says_of_itself() {
    let component = Guest::echo().handler();
    let inspection = inspect::inspect(&component).expect("a plugin");
    assert_eq!(inspection.world, World::TopicHandler);
    assert_eq!((inspection.manifest.name.as_str(), inspection.manifest.version.as_str()), ("guest", "1.2.3"));
    assert_eq!(inspection.size, component.len() as u64);
    assert_eq!(inspection.digest, inspect::digest(&component));
}

#[test]
fn what_breaks_its_own_promise() {
    let rehearsed = |expect: &str| {
        let samples = format!(r#"[{{"name":"one","message":{{"topic":"t","payload":"{{ }}"}},"expect":{expect}}}]"#);
        let guest = Guest { samples: Some(samples), ..Guest::echo() };
        run(crate::sandbox::rehearse(&build(&guest.handler(), limits())))
    };
    assert_eq!(rehearsed(r#"{"jobs":[{"payload":"{ }"}]}"#), Ok(1));
    let refusal = rehearsed(r#"{"jobs":[{"payload":"{}"}]}"#).expect_err("other bytes");
    assert_eq!(refusal.to_string(), "not rehearsed: sample `one`: expected the job `{}`, got the job `{ }`");
    let trap = Guest {
        samples: Some(r#"[{"name":"one","message":{"topic":"t","payload":""},"expect":{"drop":true}}]"#.to_owned()),
        ..Guest::doing("unreachable")
    };
    let refusal = run(crate::sandbox::rehearse(&build(&trap.handler(), limits()))).expect_err("it traps");
    assert!(matches!(refusal.problem, Problem::SampleFault { .. }), "{refusal}");
    let garbage = Guest {
        samples: Some(
            r#"[{"name":"one","message":{"topic":"t","payload":"{x"},"expect":{"jobs":[{"payload":"{x"}]}}]"#
                .to_owned(),
        ),
        ..Guest::echo()
    };
    let refusal = run(crate::sandbox::rehearse(&build(&garbage.handler(), limits()))).expect_err("no JSON");
    assert!(refusal.to_string().contains("not JSON"), "{refusal}");
}
