//! The sandbox against guests that do as they please.

mod calls;
mod faults;
mod http;
mod plugins;
mod refusals;
mod state;
mod wasi;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indexmap::IndexMap;
use sluicegate_core::message::{Field, Message};
use sluicegate_core::settings::{ByteSize, Grants, Limits};

use super::compiled::Claim;
use super::{Compiler, Generation, Refusal, Sandbox};

/// One engine for all tests: it reserves address space for a thousand instances.
pub(crate) fn sandbox() -> Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    let sandbox = SANDBOX.get_or_init(|| Sandbox::new(Compiler::Here, None).expect("an engine"));
    // A claim of its own: the turns are everyone's, and a claim that is given up for something more urgent stays so for all that share it.
    sandbox.clone().claiming(Claim::default())
}

fn limits() -> Limits {
    Limits {
        call_timeout: Duration::from_secs(2),
        memory: ByteSize(4 << 20),
        output: ByteSize(64 << 10),
        instances: 32,
        ..Limits::default()
    }
}

#[track_caller]
fn build(component: &[u8], limits: Limits) -> Arc<Generation> {
    build_as("guest", component, limits)
}

/// Under a name of its own, where what the plugin uses is looked at: that is counted by name.
#[track_caller]
fn build_as(name: &str, component: &[u8], limits: Limits) -> Arc<Generation> {
    let settings = IndexMap::from([("colour".to_owned(), "green".to_owned())]);
    Arc::new(sandbox().compile(component, settings, limits, &Grants::default(), name, 1).expect("it compiles"))
}

#[track_caller]
fn refusal(component: &[u8]) -> Refusal {
    sandbox()
        .compile(component, IndexMap::new(), limits(), &Grants::default(), "guest", 1)
        .err()
        .expect("it is refused")
}

fn message(payload: &str) -> Message {
    Message {
        topic: "machine/M-001/heartbeat".to_owned(),
        captures: vec![Field { name: "serial_no".to_owned(), value: "M-001".to_owned() }],
        payload: payload.to_owned().into(),
        properties: Vec::new(),
        received_at: "2026-04-14T09:00:00.000+08:00".to_owned(),
        id: "1-1".to_owned(),
        attempt: 1,
    }
}

#[track_caller]
fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(future)
}
