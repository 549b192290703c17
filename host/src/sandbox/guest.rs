//! What a store holds for its guest: what it may use, and what of that a call used.

use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;

use super::bindings::handler::sluicegate::plugin::host;
use super::generation::Generation;
use super::guest_log::GuestLog;
use super::http::{self, Behind, Http};
use super::limits::Allowance;
use super::state::Session;
use super::wasi::{self, Wasi};

/// Log lines of one call.
const MAX_LINES: u32 = 64;
/// Bytes of one log line, and of a failure's reason.
const MAX_TEXT: usize = 1_024;

/// What a store holds for its guest.
pub(super) struct State {
    pub(super) allowance: Allowance,
    settings: Arc<IndexMap<String, String>>,
    log: Arc<GuestLog>,
    pub(super) deadline: Instant,
    lines: u32,
    host_calls: u32,
    max_host_calls: u32,
    wasi: Option<Wasi>,
    pub(super) session: Option<Session>,
    pub(super) http: Http,
}

impl State {
    /// Of a copy that is about to be started: `start` functions are guest code too. In shadow there is nothing behind what was granted.
    pub(super) fn new(generation: &Generation, settings: Arc<IndexMap<String, String>>, in_shadow: bool) -> Self {
        let limits = &generation.limits;
        Self {
            allowance: Allowance::new(limits),
            settings,
            log: generation.log.clone(),
            deadline: Instant::now() + limits.call_timeout,
            lines: 0,
            host_calls: 0,
            max_host_calls: limits.host_calls,
            wasi: None,
            session: None,
            http: Http::new(match &generation.http {
                None => Behind::None,
                Some(_) if in_shadow => Behind::Shadow,
                Some(client) => Behind::Servers(client.clone()),
            }),
        }
    }

    /// A call begins.
    pub(super) fn begin(&mut self, session: Option<Session>) {
        (self.lines, self.host_calls) = (0, 0);
        self.session = session;
    }

    /// What the call has to do with the state, and until when it must be done.
    pub(super) fn session(&mut self) -> wasmtime::Result<(&mut Session, Instant)> {
        self.count_host_call()?;
        // It is linked where it was granted, and only there.
        let session = self.session.as_mut().ok_or_else(|| wasmtime::Error::msg("there is no state outside a call"))?;
        Ok((session, self.deadline))
    }

    /// Counts a host call that cannot be refused by itself: the next tick of the epoch ends the call.
    pub(super) fn wasi(&mut self) -> &mut Wasi {
        self.http().0
    }

    /// The same, for what needs both.
    pub(super) fn http(&mut self) -> (&mut Wasi, &mut Http) {
        self.host_calls = self.host_calls.saturating_add(1);
        let handles = if self.http.is_linked() { http::MAX_HANDLES } else { wasi::MAX_HANDLES };
        (self.wasi.get_or_insert_with(|| Wasi::new(&self.log, handles)), &mut self.http)
    }

    /// Whether the call made more of them than it may.
    pub(super) fn over_host_calls(&self) -> wasmtime::Result<()> {
        if self.host_calls > self.max_host_calls {
            let most = self.max_host_calls;
            return Err(wasmtime::Error::msg(format!("more than {most} host calls in one call (limits.host_calls)")));
        }
        Ok(())
    }

    /// Each of them may make the host copy and allocate.
    fn count_host_call(&mut self) -> wasmtime::Result<()> {
        self.host_calls = self.host_calls.saturating_add(1);
        self.over_host_calls()
    }
}

impl host::Host for State {
    fn log(&mut self, level: host::Level, message: String) -> wasmtime::Result<()> {
        self.count_host_call()?;
        self.lines += 1;
        if self.lines > MAX_LINES {
            return Ok(());
        }
        self.log.line(level, cut(&message));
        Ok(())
    }

    fn setting(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.count_host_call()?;
        Ok(self.settings.get(&name).cloned())
    }
}

/// The first [`MAX_TEXT`] bytes, at a character's end.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}
