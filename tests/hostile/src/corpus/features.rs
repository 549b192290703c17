//! Every feature of WebAssembly that the engine is told to leave out: a good plugin with one module more, which needs it.

use sluicegate::sandbox::Step;
use sluicegate_guests::{Guest, section};

use super::files::described;
use crate::case::{Case, refused};

fn module(name: &str, made_of: &str, words: &str, text: &'static str) -> Case {
    Case::file(name, made_of, refused(Step::Compiled, words), move || {
        let mut component = Guest::echo().handler();
        section(&mut component, 1, &wat::parse_str(text).expect("a module"));
        component
    })
}

fn component(name: &str, made_of: &str, words: &str, text: &'static str) -> Case {
    Case::file(name, made_of, refused(Step::Compiled, words), move || described(text))
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        module("feature-gc-struct", "a struct of the garbage collector", "gc", "(module (type (struct (field i32))))"),
        module("feature-gc-array", "an array of it, of 1,000,000,000", "gc", "(module (type $a (array i8)) (func (drop (array.new_default $a (i32.const 1000000000)))))"),
        module("feature-gc-test", "`ref.test`, which ended a process once", "gc", "(module (func (param anyref) (result i32) (ref.test i31ref (local.get 0))))"),
        module("feature-exceptions", "a tag, thrown", "exceptions", "(module (tag $t) (func (throw $t)))"),
        module("feature-shared-memory", "a shared memory", "threads", "(module (memory 1 1 shared))"),
        module("feature-atomics", "an atomic load", "threads", "(module (memory 1) (func (result i32) (i32.atomic.load (i32.const 0))))"),
        module("feature-memory64", "a memory of 64 bits", "memory64", "(module (memory i64 1))"),
        module("feature-table64", "a table of 64 bits", "memory64", "(module (table i64 1 funcref))"),
        module("feature-stack-switching", "a continuation", "", "(module (type $f (func)) (type (cont $f)))"),
        module("feature-function-references", "`call_ref`", "function references", "(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))"),
        module("feature-page-sizes", "pages of a byte", "custom page sizes", "(module (memory 1 (pagesize 1)))"),
        module("feature-relaxed-simd", "an instruction of relaxed SIMD", "relaxed", "(module (func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1))))"),
        module("feature-wide-arithmetic", "an addition of 128 bits", "", "(module (func (param i64 i64 i64 i64) (result i64 i64) (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3))))"),
        component(
            "feature-async",
            "an asynchronous `handle`",
            "",
            "(component (core module $m (func (export \"f\") (result i32) (i32.const 0))
                 (func (export \"c\") (param i32 i32 i32) (result i32) (i32.const 0)))
               (core instance $i (instantiate $m))
               (func $f async (canon lift (core func $i \"f\") async (callback (core func $i \"c\")))) (export \"handle\" (func $f)))",
        ),
        component("feature-streams", "a stream", "", "(component (type (stream u8)) (core func (canon stream.new 0)) (core module $m (func (export \"f\"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i \"f\"))) (export \"handle\" (func $f)))"),
        component("feature-error-context", "an error context", "", "(component (core func (canon error-context.drop)) (core module $m (func (export \"f\"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i \"f\"))) (export \"handle\" (func $f)))"),
    ]
}
