//! Imports that nobody granted, of packages that are known and unknown.
//!
//! What of WASI a gateway satisfies it satisfies with nothing behind it: a plugin that finds a file, an environment or a socket behind it traps.

use sluicegate::sandbox::Step;
use sluicegate_guests::Guest;
use sluicegate_guests::http::Asker;

use super::calls::doing;
use super::files::described;
use crate::case::{Case, harmless, refused};

/// A handler that imports a function of WASI, calls it and traps where `code` finds power behind it.
fn wasi(
    name: &str,
    import: &'static str,
    wit: &'static str,
    function: &'static str,
    core: &'static str,
    code: &'static str,
) -> Case {
    let interface = import.split('@').next().unwrap_or(import);
    Case::file(
        name,
        &format!("imports `{function}` of {interface}, and traps where it finds something behind it"),
        harmless(),
        move || {
            let (package, rest) = import.split_once('/').expect("a package");
            let (interface, version) = rest.split_once('@').expect("a version");
            Guest { imports: format!("(import \"{import}\" \"{function}\" (func $wasi {core}))"), ..doing(code) }
                .handler_importing(
                    &format!("import {import};"),
                    &format!("package {package}@{version} {{ interface {interface} {{ {wit} }} }}"),
                )
        },
    )
}

/// A component that imports something and is nothing else.
fn importing(name: &str, made_of: &str, words: &str, text: impl Fn() -> String + Send + Sync + 'static) -> Case {
    Case::file(name, made_of, refused(Step::Checked, words), move || described(&text()))
}

pub(super) fn cases() -> Vec<Case> {
    // A list at 512: it must be empty.
    let lists = "(call $wasi (i32.const 512)) (if (i32.load (i32.const 516)) (then unreachable))";
    let good = |import: &str| {
        format!(
            "(component (import \"{import}\" (instance (export \"get\" (func))))
               (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
               (func $f (canon lift (core func $i \"f\"))) (export \"handle\" (func $f)))"
        )
    };
    let mut cases = vec![
        wasi(
            "wasi-environment",
            "wasi:cli/environment@0.2.3",
            "get-environment: func() -> list<tuple<string, string>>;",
            "get-environment",
            "(param i32)",
            lists,
        ),
        wasi(
            "wasi-arguments",
            "wasi:cli/environment@0.2.0",
            "get-arguments: func() -> list<string>;",
            "get-arguments",
            "(param i32)",
            lists,
        ),
        wasi(
            "wasi-files",
            "wasi:filesystem/preopens@0.2.3",
            "use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
             interface types { resource descriptor;",
            "get-directories",
            "(param i32)",
            lists,
        ),
        wasi(
            "wasi-sockets",
            "wasi:sockets/tcp-create-socket@0.2.3",
            "use network.{error-code, ip-address-family}; use tcp.{tcp-socket};
             create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>; }
             interface tcp { resource tcp-socket; }
             interface network {
                 enum ip-address-family { ipv4, ipv6 }
                 enum error-code { unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout,
                     concurrency-conflict, not-in-progress, would-block, invalid-state, new-socket-limit,
                     address-not-bindable, address-in-use, remote-unreachable, connection-refused, connection-reset,
                     connection-aborted, datagram-too-large, name-unresolvable, temporary-resolver-failure,
                     permanent-resolver-failure }",
            "create-tcp-socket",
            "(param i32 i32)",
            "(call $wasi (i32.const 0) (i32.const 512)) (if (i32.eqz (i32.load8_u (i32.const 512))) (then unreachable))",
        ),
        wasi("wasi-exit", "wasi:cli/exit@0.2.3", "exit: func(status: result);", "exit", "(param i32)", ""),
        wasi(
            "wasi-random",
            "wasi:random/random@0.2.3",
            "get-random-u64: func() -> u64;",
            "get-random-u64",
            "(result i64)",
            "(drop (call $wasi))",
        ),
        wasi(
            "wasi-clock",
            "wasi:clocks/monotonic-clock@0.2.3",
            "now: func() -> u64;",
            "now",
            "(result i64)",
            "(drop (call $wasi))",
        ),
    ];
    let names = [
        "wasi:sockets/tcp@0.2.3",
        "wasi:http/outgoing-handler@0.2.3",
        "wasi:filesystem/types@0.2.3",
        "wasi:keyvalue/store@0.2.0",
    ];
    for name in names {
        let case = name.split('@').next().unwrap_or(name).replace([':', '/'], "-");
        // With a function in it that WASI does not have: even where the rest is satisfied, it is not.
        cases.push(importing(
            &case,
            &format!("imports {name} with a function of its own in it"),
            name.split('@').next().unwrap_or(name),
            move || good(name),
        ));
    }
    cases.push(Case::file(
        "wasi-http-without-a-grant",
        "calls a server over `wasi:http`, which nobody granted",
        refused(Step::Checked, "name the servers that it may call in plugins.NAME.grants.http"),
        Asker::handler,
    ));
    cases.extend([
        importing(
            "import-of-an-unknown-package",
            "imports `evil:corp/backdoor`",
            "it imports `evil:corp/backdoor@1.0.0`, which is not granted",
            move || good("evil:corp/backdoor@1.0.0"),
        ),
        importing(
            "import-of-an-unknown-interface",
            "imports `sluicegate:plugin/secrets`",
            "sluicegate:plugin/secrets@0.1.0",
            move || good("sluicegate:plugin/secrets@0.1.0"),
        ),
        importing(
            "import-of-a-later-version",
            "imports `sluicegate:plugin/host@0.2.0`",
            "it is built on `sluicegate:plugin/host@0.2.0`",
            move || good("sluicegate:plugin/host@0.2.0"),
        ),
        importing(
            "import-that-looks-alike",
            "imports `sluicegate:plugins/host`",
            "it imports `sluicegate:plugins/host@0.1.0`",
            move || good("sluicegate:plugins/host@0.1.0"),
        ),
        importing("import-of-a-function", "imports a function `exec`", "it imports `exec`", || {
            "(component (import \"exec\" (func)))".to_owned()
        }),
        importing("import-of-a-module", "imports a core module", "it imports `code`", || {
            "(component (import \"code\" (core module)))".to_owned()
        }),
        importing(
            "import-of-a-url",
            "imports what stands at a URL",
            "it imports `url=<https://evil.example/x.wasm>`",
            || "(component (import \"url=<https://evil.example/x.wasm>\" (component)))".to_owned(),
        ),
        importing("imports-ten-thousand", "imports 10,000 instances", "it imports `a:b/c0`", || {
            let imports: String = (0..10_000).map(|number| format!("(import \"a:b/c{number}\" (instance))")).collect();
            format!("(component {imports})")
        }),
        importing("import-of-another-function-of-the-host", "imports `host` with a function `shell` in it", "", || {
            good_with("shell")
        }),
        Case::file(
            "world-of-both",
            "exports `handle` and `validate`",
            refused(Step::Checked, "both `handle` and `validate`"),
            || described(&exporting(&["handle", "validate"])),
        ),
        Case::file("world-of-none", "exports `run`", refused(Step::Checked, "it exports `run`"), || {
            described(&exporting(&["run"]))
        }),
        Case::file(
            "world-without-exports",
            "exports nothing",
            refused(Step::Checked, "it exports no function"),
            || described(&exporting(&[])),
        ),
        Case::file(
            "world-of-another-type",
            "exports a `handle` that takes and gives nothing",
            refused(Step::Checked, "the engine refuses it"),
            || described(&exporting(&["handle"])),
        ),
        Case::file(
            "world-of-the-other-kind",
            "a good validator in a handler's place",
            refused(Step::Checked, "it is a command-validator"),
            Guest::echo_validator,
        ),
        Case::file(
            "world-of-ten-thousand-exports",
            "exports 10,000 functions, none of them known",
            refused(Step::Checked, "it exports"),
            || {
                let names: Vec<String> = (0..10_000).map(|number| format!("f{number}")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                described(&exporting(&names))
            },
        ),
    ]);
    cases
}

fn good_with(function: &str) -> String {
    format!(
        "(component (import \"sluicegate:plugin/host@0.1.0\" (instance (export \"{function}\" (func))))
           (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
           (func $f (canon lift (core func $i \"f\"))) (export \"handle\" (func $f)))"
    )
}

fn exporting(names: &[&str]) -> String {
    let exports: String = names.iter().map(|name| format!("(export \"{name}\" (func $f))")).collect();
    format!(
        "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
           (func $f (canon lift (core func $i \"f\"))) {exports})"
    )
}
