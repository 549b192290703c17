//! Components made of WebAssembly text, so that a test needs no guest compiler.

mod granted;
pub mod http;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const MANIFEST: &str = "name = \"guest\"\nversion = \"1.2.3\"\ndescription = \"A guest of the tests.\"\n";

/// What a guest consists of; each part may be replaced.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Imports of the core module.
    pub imports: String,
    /// Of its memory.
    pub pages: u32,
    /// Functions, globals, `start`.
    pub extra: String,
    /// After the arguments were lowered, before `answer`.
    pub realloc: String,
    /// The body of `handle` (parameters: topic 0 1, captures 2 3, payload 4 5, …) or `validate`; leaves the answer's address.
    pub body: String,
    /// In the post-return function.
    pub post_return: String,
    /// The manifest's text.
    pub manifest: String,
    /// The samples' text.
    pub samples: Option<String>,
}

/// `ok([job(payload)])`, the payload being where `$at` and `$len` say.
pub const ONE_JOB: &str = "
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (i32.const 1040))
    (i32.store (i32.const 1032) (i32.const 1))
    (i32.store8 (i32.const 1040) (i32.const 0))
    (i32.store (i32.const 1044) (local.get $at))
    (i32.store (i32.const 1048) (local.get $len))
    (i32.store8 (i32.const 1052) (i32.const 0))
    (i32.const 1024)";

impl Guest {
    /// A handler that does what the digit behind `{"do":` says: 0 one job with the payload as it is; 1 asks for another attempt, for
    /// ever; 2 traps; 3 rejects; 4 asks for another attempt until the third; 5 until the sixth; 6 drops.
    #[must_use]
    pub fn obedient() -> Self {
        let failure = |kind: u8, reason: &str| {
            format!(
                "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const {kind}))
                 (i32.store (i32.const 1032) (i32.const {})) (i32.store (i32.const 1036) (i32.const 7))
                 (return (i32.const 1024))",
                if reason == "refused" { 512 } else { 528 }
            )
        };
        let (reject, retry) = (failure(0, "refused"), failure(1, "not now"));
        let mut guest = Self::doing(&format!(
            r#"(local.set $len (i32.load8_u (i32.add (local.get 4) (i32.const 6))))
               (if (i32.eq (local.get $len) (i32.const 49)) (then {retry}))
               (if (i32.eq (local.get $len) (i32.const 50)) (then unreachable))
               (if (i32.eq (local.get $len) (i32.const 51)) (then {reject}))
               (if (i32.and (i32.eq (local.get $len) (i32.const 52)) (i32.lt_u (local.get 12) (i32.const 3))) (then {retry}))
               (if (i32.and (i32.eq (local.get $len) (i32.const 53)) (i32.lt_u (local.get 12) (i32.const 6))) (then {retry}))
               (if (i32.eq (local.get $len) (i32.const 54)) (then
                 (i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const 1040))
                 (i32.store (i32.const 1032) (i32.const 0)) (return (i32.const 1024))))
               (local.set $at (local.get 4)) (local.set $len (local.get 5)) {ONE_JOB}"#
        ));
        guest.extra = r#"(data (i32.const 512) "refused") (data (i32.const 528) "not now")"#.to_owned();
        guest
    }

    /// Answers with one job whose payload is the message's.
    #[must_use]
    pub fn echo() -> Self {
        Self {
            imports: String::new(),
            pages: 2,
            extra: String::new(),
            realloc: String::new(),
            body: format!("(local.set $at (local.get 4)) (local.set $len (local.get 5)) {ONE_JOB}"),
            post_return: String::new(),
            manifest: MANIFEST.to_owned(),
            samples: None,
        }
    }

    /// The same, after it slept for so long, as WASI has it.
    ///
    /// # Panics
    /// Never: it is WebAssembly.
    #[must_use]
    pub fn echo_after(millis: u32) -> Vec<u8> {
        Self::echo().after(millis)
    }

    /// A handler that sleeps so many milliseconds in each call before what it does.
    ///
    /// # Panics
    /// Never: it is WebAssembly.
    #[must_use]
    pub fn after(self, millis: u32) -> Vec<u8> {
        const WASI: &str = "
            package wasi:io@0.2.3 { interface poll { resource pollable { block: func(); } } }
            package wasi:clocks@0.2.3 {
                interface monotonic-clock { use wasi:io/poll@0.2.3.{pollable}; subscribe-duration: func(when: u64) -> pollable; }
            }";
        const IMPORTS: &str = r#"
            (import "wasi:clocks/monotonic-clock@0.2.3" "subscribe-duration" (func $after (param i64) (result i32)))
            (import "wasi:io/poll@0.2.3" "[method]pollable.block" (func $block (param i32)))
            (import "wasi:io/poll@0.2.3" "[resource-drop]pollable" (func $drop (param i32)))"#;
        let sleep = format!(
            "(local.set $at (call $after (i64.const {}))) (call $block (local.get $at)) (call $drop (local.get $at))",
            u64::from(millis) * 1_000_000
        );
        // Room for a large message.
        let guest = Self { imports: IMPORTS.to_owned(), pages: 64, body: format!("{sleep} {}", self.body), ..self };
        guest.handler_importing("import wasi:io/poll@0.2.3; import wasi:clocks/monotonic-clock@0.2.3;", WASI)
    }

    /// A validator that answers with the command's payload.
    #[must_use]
    pub fn echo_validator() -> Vec<u8> {
        Self::doing(
            "(i32.store8 (i32.const 1024) (i32.const 0))
             (i32.store (i32.const 1028) (local.get 4)) (i32.store (i32.const 1032) (local.get 5)) (i32.const 1024)",
        )
        .validator()
    }

    /// A handler that answers with so many jobs, each of so many bytes from address 0.
    #[must_use]
    pub fn many(jobs: u32, bytes: u32) -> Self {
        Self::doing(&format!(
            "(i32.store8 (i32.const 1024) (i32.const 0))
             (i32.store (i32.const 1028) (i32.const 65536))
             (i32.store (i32.const 1032) (i32.const {jobs}))
             (local.set $at (i32.const 65536))
             (local.set $len (i32.const {jobs}))
             (loop $again
               (i32.store8 (local.get $at) (i32.const 0))
               (i32.store offset=4 (local.get $at) (i32.const 0))
               (i32.store offset=8 (local.get $at) (i32.const {bytes}))
               (i32.store8 offset=12 (local.get $at) (i32.const 0))
               (local.set $at (i32.add (local.get $at) (i32.const 24)))
               (local.set $len (i32.sub (local.get $len) (i32.const 1)))
               (br_if $again (local.get $len)))
             (i32.const 1024)"
        ))
    }

    /// Does this instead.
    #[must_use]
    pub fn doing(body: &str) -> Self {
        Self { body: body.to_owned(), ..Self::echo() }
    }

    fn core(&self, export: &str, parameters: usize) -> Vec<u8> {
        let Self { imports, pages, extra, realloc, body, post_return, .. } = self;
        let parameters = "i32 ".repeat(parameters);
        let text = format!(
            "(module {imports}
               (memory (export \"memory\") {pages})
               (global $next (mut i32) (i32.const 8192))
               (global $count (mut i32) (i32.const 0))
               {extra}
               (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (local $at i32)
                 {realloc}
                 (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                 (global.set $next (i32.add (local.get $at) (local.get 3)))
                 (local.get $at))
               (func $guest_handle (export \"{export}\") (param {parameters}) (result i32) (local $at i32) (local $len i32)
                 {body})
               (func (export \"cabi_post_{export}\") (param i32)
                 (global.set $next (i32.const 8192))
                 {post_return}))"
        );
        wat::parse_str(text).expect("WebAssembly text")
    }

    /// As a component of the world topic-handler.
    ///
    /// # Panics
    /// Where it is no WebAssembly.
    #[must_use]
    pub fn handler(&self) -> Vec<u8> {
        self.component("topic-handler", self.core("handle", 13))
    }

    /// As a component of the world topic-handler with more imports in it (in WIT's words), of more packages.
    ///
    /// # Panics
    /// Where it is no WebAssembly, or there are no such packages.
    #[must_use]
    pub fn handler_importing(&self, imports: &str, packages: &str) -> Vec<u8> {
        let world = "world topic-handler {";
        let text = interface().replace(world, &format!("{world} {imports}"));
        self.component_of(&format!("{text}\n{packages}"), "topic-handler", self.core("handle", 13))
    }

    /// As a component of the world command-validator.
    ///
    /// # Panics
    /// Where it is no WebAssembly.
    #[must_use]
    pub fn validator(&self) -> Vec<u8> {
        self.component("command-validator", self.core("validate", 8))
    }

    fn component(&self, world: &str, core: Vec<u8>) -> Vec<u8> {
        self.component_of(&interface(), world, core)
    }

    /// As a component of a world of another interface.
    ///
    /// # Panics
    /// Where the interface is none.
    #[must_use]
    pub fn component_of(&self, wit: &str, world: &str, core: Vec<u8>) -> Vec<u8> {
        let mut component = encoded(wit, world, core);
        self.describe(&mut component);
        component
    }

    /// Adds the manifest and the samples.
    pub fn describe(&self, component: &mut Vec<u8>) {
        custom(component, "sluicegate:manifest", self.manifest.as_bytes());
        if let Some(samples) = &self.samples {
            custom(component, "sluicegate:samples", samples.as_bytes());
        }
    }
}

fn interface() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/plugin.wit");
    std::fs::read_to_string(path).expect("wit/plugin.wit")
}

/// A core module with one function, which takes a compiler long: `rounds` loops among 400 values. 8,000 of them take seconds, and more than 128
/// MiB, although they are 160 KiB.
///
/// # Panics
/// Where it is no WebAssembly.
#[must_use]
pub fn hard_to_compile(rounds: u32) -> Vec<u8> {
    let mut body = String::new();
    for round in 0..rounds {
        let (one, other) = (round * 7 % 400, round * 13 % 400);
        body.push_str(&format!(
            "(loop (local.set {one} (i64.add (i64.mul (local.get {one}) (local.get {other})) (i64.const {round})))
               (br_if 0 (i64.eqz (local.get {other}))))"
        ));
    }
    wat::parse_str(format!("(module (func (local {}) {body}))", "i64 ".repeat(400))).expect("WebAssembly text")
}

/// A custom section: its name, its content.
pub fn custom(component: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let mut content = Vec::new();
    leb128(&mut content, name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(bytes);
    section(component, 0, &content);
}

/// Any section: its id, its size, its content.
pub fn section(component: &mut Vec<u8>, id: u8, content: &[u8]) {
    component.push(id);
    leb128(component, content.len());
    component.extend_from_slice(content);
}

fn leb128(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A component without manifest and samples. Each is made once: whoever tries a thousand manifests has the same code a thousand times.
fn encoded(wit: &str, world: &str, core: Vec<u8>) -> Vec<u8> {
    type Made = HashMap<(String, String, Vec<u8>), Vec<u8>>;
    static MADE: LazyLock<Mutex<Made>> = LazyLock::new(Mutex::default);
    let made = || MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (wit.to_owned(), world.to_owned(), core);
    if let Some(component) = made().get(&key) {
        return component.clone();
    }
    let (mut resolve, mut core) = (Resolve::default(), key.2.clone());
    let package = resolve.push_str("plugin.wit", wit).expect("an interface");
    let world = resolve.select_world(&[package], Some(world)).expect("a world");
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let encoder = ComponentEncoder::default().module(&core);
    let component = encoder.and_then(|mut encoder| encoder.encode()).expect("a component");
    made().insert(key, component.clone());
    component
}
