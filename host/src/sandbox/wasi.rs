//! WASI preview 2, with nothing behind it: components from JavaScript and Python import it whole, whatever they do. Here are no files, no
//! sockets, no names, no environment, no arguments and no input. Clocks and random numbers work, sleeping counts as the call's time, and what is
//! written to standard output is a line of the plugin's log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWrite;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView, async_trait};

use super::bindings::handler::sluicegate::plugin::host::Level;
use super::guest::State;
use super::guest_log::GuestLog;
use crate::telemetry::clock;

/// Streams, pollables and such that an instance may hold at once.
pub(super) const MAX_HANDLES: usize = 1_000;
/// Random bytes that are given at once.
const MAX_RANDOM_BYTES: u64 = 64 << 10;
/// Bytes of standard output that make a line, if no newline does.
const MAX_LINE: usize = 1_024;
/// What clocks tell apart: finer ones would tell what the machine does beside it.
const TICK: Duration = Duration::from_millis(1);

/// What there is of it: of each, all interfaces of WASI 0.2. What else a component imports is refused when it is loaded.
const PACKAGES: [(&str, &[&str]); 6] = [
    (
        "cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("clocks", &["monotonic-clock", "wall-clock"]),
    ("filesystem", &["types", "preopens"]),
    ("io", &["error", "poll", "streams"]),
    ("random", &["random", "insecure", "insecure-seed"]),
    (
        "sockets",
        &["network", "instance-network", "tcp", "tcp-create-socket", "udp", "udp-create-socket", "ip-name-lookup"],
    ),
];

/// Whether it is an interface that is there.
pub(super) fn has(import: &str) -> bool {
    let parts = import.strip_prefix("wasi:").and_then(|rest| rest.split_once('/'));
    let Some((package, rest)) = parts else { return false };
    let Some((interface, version)) = rest.split_once('@') else { return false };
    version.starts_with("0.2.")
        && PACKAGES.iter().any(|(name, interfaces)| *name == package && interfaces.contains(&interface))
}

/// Gives all of it.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

/// One instance's. It is made when the guest asks for anything of it first: those that never do pay nothing.
pub(super) struct Wasi {
    context: WasiCtx,
    pub(super) table: ResourceTable,
}

impl Wasi {
    pub(super) fn new(log: &Arc<GuestLog>, handles: usize) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(handles);
        let context = WasiCtx::builder()
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .stdout(Words::new(log, Level::Info))
            .stderr(Words::new(log, Level::Warn))
            .max_random_size(MAX_RANDOM_BYTES)
            .wall_clock(Coarse)
            .monotonic_clock(Coarse)
            .build();
        Self { context, table }
    }
}

impl WasiView for State {
    /// Asked for once in each call of a function of it.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Wasi { context, table } = self.wasi();
        WasiCtxView { ctx: context, table }
    }
}

struct Coarse;

impl HostWallClock for Coarse {
    fn resolution(&self) -> Duration {
        TICK
    }

    fn now(&self) -> Duration {
        let now = clock::now().as_millisecond();
        Duration::from_millis(u64::try_from(now).unwrap_or(0))
    }
}

impl HostMonotonicClock for Coarse {
    fn resolution(&self) -> u64 {
        nanos(TICK)
    }

    fn now(&self) -> u64 {
        let now = nanos(clock::uptime());
        now - now % nanos(TICK)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Standard output or error: lines of the plugin's log, bounded as all of them are.
#[derive(Clone)]
struct Words {
    log: Arc<GuestLog>,
    level: Level,
    /// The line that has not come to its end. All streams of an instance write to one.
    line: Arc<Mutex<Vec<u8>>>,
}

impl Words {
    fn new(log: &Arc<GuestLog>, level: Level) -> Self {
        Self { log: log.clone(), level, line: Arc::default() }
    }

    fn line(&self) -> MutexGuard<'_, Vec<u8>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: &[u8]) {
        let mut line = self.line();
        for byte in bytes {
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() >= MAX_LINE {
                self.say(&mut line);
            }
        }
    }

    fn say(&self, line: &mut Vec<u8>) {
        if !line.is_empty() {
            self.log.line(self.level, &String::from_utf8_lossy(line));
            line.clear();
        }
    }
}

impl IsTerminal for Words {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Words {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// For WASI 0.3, which is not there.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::empty())
    }
}

#[async_trait]
impl Pollable for Words {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Words {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        let mut line = self.line();
        self.say(&mut line);
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(4 * MAX_LINE)
    }
}
