//! WASI with nothing behind it: what a guest finds there, and what it cannot do.

use std::time::Instant;

use super::calls::logged;
use super::*;
use crate::sandbox::Pool;
use sluicegate_core::fault::Fault;
use sluicegate_guests::Guest;

const IMPORTS: &str = "
    import wasi:cli/environment@0.2.3;
    import wasi:cli/stdout@0.2.3;
    import wasi:cli/exit@0.2.3;
    import wasi:clocks/monotonic-clock@0.2.3;
    import wasi:clocks/wall-clock@0.2.3;
    import wasi:filesystem/preopens@0.2.3;
    import wasi:random/random@0.2.3;
    import wasi:sockets/tcp-create-socket@0.2.3;
    import wasi:sockets/udp-create-socket@0.2.3;
    import wasi:sockets/instance-network@0.2.3;
    import wasi:sockets/ip-name-lookup@0.2.3;";

/// As the real packages have them, as far as these tests need them.
const PACKAGES: &str = "
package wasi:io@0.2.3 {
    interface error { resource error; }
    interface poll { resource pollable { block: func(); } }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
    }
}
package wasi:cli@0.2.3 {
    interface environment {
        get-environment: func() -> list<tuple<string, string>>;
        get-arguments: func() -> list<string>;
    }
    interface exit { exit: func(status: result); }
    interface stdout {
        use wasi:io/streams@0.2.3.{output-stream};
        get-stdout: func() -> output-stream;
    }
}
package wasi:clocks@0.2.3 {
    interface monotonic-clock {
        use wasi:io/poll@0.2.3.{pollable};
        now: func() -> u64;
        subscribe-duration: func(when: u64) -> pollable;
    }
    interface wall-clock {
        record datetime { seconds: u64, nanoseconds: u32 }
        now: func() -> datetime;
    }
}
package wasi:filesystem@0.2.3 {
    interface types { resource descriptor; }
    interface preopens {
        use types.{descriptor};
        get-directories: func() -> list<tuple<descriptor, string>>;
    }
}
package wasi:random@0.2.3 {
    interface random { get-random-bytes: func(len: u64) -> list<u8>; }
}
package wasi:sockets@0.2.3 {
    interface network {
        resource network;
        enum error-code {
            unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout, concurrency-conflict,
            not-in-progress, would-block, invalid-state, new-socket-limit, address-not-bindable, address-in-use,
            remote-unreachable, connection-refused, connection-reset, connection-aborted, datagram-too-large,
            name-unresolvable, temporary-resolver-failure, permanent-resolver-failure,
        }
        enum ip-address-family { ipv4, ipv6 }
    }
    interface instance-network {
        use network.{network};
        instance-network: func() -> network;
    }
    interface tcp { resource tcp-socket; }
    interface udp { resource udp-socket; }
    interface tcp-create-socket {
        use network.{error-code, ip-address-family};
        use tcp.{tcp-socket};
        create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
    }
    interface udp-create-socket {
        use network.{error-code, ip-address-family};
        use udp.{udp-socket};
        create-udp-socket: func(address-family: ip-address-family) -> result<udp-socket, error-code>;
    }
    interface ip-name-lookup {
        use network.{network, error-code};
        resource resolve-address-stream;
        resolve-addresses: func(network: borrow<network>, name: string) -> result<resolve-address-stream, error-code>;
    }
}";

/// The function of each import: its interface, its name, its type, and what the guest calls it.
fn import(interface: &str, name: &str, called: &str, kind: &str) -> String {
    format!("(import \"wasi:{interface}@0.2.3\" \"{name}\" (func ${called} {kind}))")
}

/// Does this, then answers with the message's payload.
fn guest(imports: &[String], body: &str) -> Guest {
    Guest { imports: imports.concat(), ..Guest::doing(&format!("{body} {}", Guest::echo().body)) }
}

#[track_caller]
fn answer_of(guest: &Guest, limits: Limits) -> Result<(), Fault> {
    let generation = build(&guest.handler_importing(IMPORTS, PACKAGES), limits);
    run(async { Pool::new().handle(&generation, &message("{}")).await }).map(|answer| drop(answer.expect("outputs")))
}

/// Traps where the number at 516, a list's length, is not 0.
const EMPTY: &str = "(if (i32.load (i32.const 516)) (then unreachable))";

#[test]
fn there_are_no_files_no_environment_and_no_arguments() {
    let imports = [
        import("cli/environment", "get-environment", "environment", "(param i32)"),
        import("cli/environment", "get-arguments", "arguments", "(param i32)"),
        import("filesystem/preopens", "get-directories", "directories", "(param i32)"),
    ];
    let body: String = ["environment", "arguments", "directories"]
        .iter()
        .map(|name| format!("(i32.store (i32.const 516) (i32.const 1)) (call ${name} (i32.const 512)) {EMPTY}"))
        .collect();
    assert_eq!(answer_of(&guest(&imports, &body), limits()), Ok(()));
}

#[test]
fn there_are_no_sockets_and_no_names() {
    // The result at 512 must be an error; of sockets it is `access-denied`, the second.
    let refused = "(if (i32.ne (i32.load8_u (i32.const 512)) (i32.const 1)) (then unreachable))";
    let denied = format!("{refused} (if (i32.ne (i32.load8_u (i32.const 516)) (i32.const 1)) (then unreachable))");
    for (kind, family) in [("tcp", 0), ("udp", 0), ("tcp", 1), ("udp", 1)] {
        let (interface, name) = (format!("sockets/{kind}-create-socket"), format!("create-{kind}-socket"));
        let imports = [import(&interface, &name, "create", "(param i32 i32)")];
        let body = format!("(call $create (i32.const {family}) (i32.const 512)) {denied}");
        assert_eq!(answer_of(&guest(&imports, &body), limits()), Ok(()), "{kind}");
    }
    let imports = [
        import("sockets/instance-network", "instance-network", "network", "(result i32)"),
        import("sockets/ip-name-lookup", "resolve-addresses", "resolve", "(param i32 i32 i32 i32)"),
    ];
    let mut looks_up = guest(
        &imports,
        &format!("(call $resolve (call $network) (i32.const 600) (i32.const 9) (i32.const 512)) {refused}"),
    );
    looks_up.extra = "(data (i32.const 600) \"localhost\")".to_owned();
    assert_eq!(answer_of(&looks_up, limits()), Ok(()));
}

#[test]
fn clocks_are_coarse_and_random_numbers_bounded() {
    let imports = [
        import("clocks/monotonic-clock", "now", "uptime", "(result i64)"),
        import("clocks/wall-clock", "now", "wall", "(param i32)"),
        import("random/random", "get-random-bytes", "random", "(param i64 i32)"),
    ];
    // No part of a millisecond; after the year 2001; as many bytes as were asked for.
    let body = "(if (i64.ne (i64.rem_u (call $uptime) (i64.const 1000000)) (i64.const 0)) (then unreachable))
        (call $wall (i32.const 512))
        (if (i64.lt_u (i64.load (i32.const 512)) (i64.const 1000000000)) (then unreachable))
        (if (i32.rem_u (i32.load (i32.const 520)) (i32.const 1000000)) (then unreachable))
        (call $random (i64.const 100) (i32.const 512))
        (if (i32.ne (i32.load (i32.const 516)) (i32.const 100)) (then unreachable))";
    assert_eq!(answer_of(&guest(&imports, body), limits()), Ok(()));
    for many in ["65537", "-1"] {
        let body = format!("(call $random (i64.const {many}) (i32.const 512))");
        let fault = answer_of(&guest(&imports, &body), limits()).expect_err("too many");
        assert!(fault.to_string().contains("exceeds limit"), "{fault}");
    }
}

#[test]
fn sleeping_is_the_calls_time_and_holds_up_nobody() {
    let imports = [
        import("clocks/monotonic-clock", "subscribe-duration", "in", "(param i64) (result i32)"),
        import("io/poll", "[method]pollable.block", "block", "(param i32)"),
    ];
    // An hour.
    let sleeps = guest(&imports, "(call $block (call $in (i64.const 3600000000000)))");
    let limits = Limits { call_timeout: Duration::from_millis(300), ..limits() };
    let sleeping = build_as("sleeping", &sleeps.handler_importing(IMPORTS, PACKAGES), limits);
    let echo = build(&Guest::echo().handler(), super::limits());
    run(async {
        let pool = Pool::new();
        let (began, asleep) = (Instant::now(), message("{}"));
        let beside = async {
            tokio::task::yield_now().await;
            assert!(pool.handle(&echo, &message("{}")).await.is_ok());
            began.elapsed()
        };
        let (slept, took) = tokio::join!(pool.handle(&sleeping, &asleep), beside);
        assert_eq!(slept, Err(Fault::TimedOut(Duration::from_millis(300))));
        assert!(took < Duration::from_millis(250), "{took:?}");
        assert!(sleeping.usage().now().busy_ms < 250, "it waited, and cost nobody anything");
    });
    let short = guest(&imports, "(call $block (call $in (i64.const 1000000)))");
    assert_eq!(answer_of(&short, super::limits()), Ok(()));
}

#[test]
fn what_it_prints_is_a_line_of_its_log() {
    let imports = [
        import("cli/stdout", "get-stdout", "stdout", "(result i32)"),
        import("io/streams", "[method]output-stream.blocking-write-and-flush", "print", "(param i32 i32 i32 i32)"),
    ];
    let mut prints = guest(&imports, "(call $print (call $stdout) (i32.const 600) (i32.const 14) (i32.const 512))");
    prints.extra = "(data (i32.const 600) \"one\\0a\\1b[31mtwo\\ff\\0a\")".to_owned();
    let lines = logged(|| assert_eq!(answer_of(&prints, limits()), Ok(())));
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains("INFO sluicegate::plugin: one plugin=") && lines.contains(r"\u{1b}[31mtwo"), "{lines}");
    let silent = Limits { log_lines: 0, ..limits() };
    assert_eq!(logged(|| assert_eq!(answer_of(&prints, silent), Ok(()))), "");
}

#[test]
fn host_calls_and_handles_are_counted_there_too() {
    let now = [import("clocks/monotonic-clock", "now", "uptime", "(result i64)")];
    let floods = guest(&now, "(loop $again (drop (call $uptime)) (br $again))");
    let fault = answer_of(&floods, limits()).expect_err("a flood");
    assert!(fault.to_string().contains("host calls in one call (limits.host_calls)"), "{fault}");
    let stdout = [import("cli/stdout", "get-stdout", "stdout", "(result i32)")];
    let gathers = guest(&stdout, "(loop $again (drop (call $stdout)) (br $again))");
    let many = Limits { host_calls: 1_000_000, ..limits() };
    let fault = answer_of(&gathers, many).expect_err("too many handles");
    assert!(fault.to_string().contains("table"), "{fault}");
}

#[test]
fn its_exit_is_its_own() {
    let exit = [import("cli/exit", "exit", "exit", "(param i32)")];
    for status in [0, 1] {
        let fault = answer_of(&guest(&exit, &format!("(call $exit (i32.const {status}))")), limits());
        assert!(matches!(&fault, Err(Fault::Garbage(_) | Fault::Trap(_))), "{fault:?}");
    }
}
