//! One case through the steps of a plugin's life and a few calls, in this process.

use std::cell::Cell;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indexmap::IndexMap;
use sluicegate::registry::{Wanted, load};
use sluicegate::sandbox::{Compiler, Generation, Pool, Refusal, Sandbox, World};
use sluicegate::uplink::chain::{self, Made};
use sluicegate_core::message::{Field, Message};
use sluicegate_core::settings::{ByteSize, Grants, Limits, Plugin};
use sluicegate_core::topic::TopicPattern;

use crate::case::{Case, End, Must};

/// Of one call. Long enough for an honest one on a busy machine.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(250);
/// How often a case is tried whose calls came too late where they must not: the machine was busy.
pub const TRIES: u32 = 3;
/// Of one instance.
pub const MEMORY: u64 = 4 << 20;
/// Of one call.
pub const OUTPUT: u64 = 64 << 10;

/// What it may publish to; it has a state, too: what nobody was granted harms nobody.
pub const PUBLISH: &str = "granted/{serial_no}/config";

/// The message of a call.
#[must_use]
pub fn payload(case: &str, call: usize) -> String {
    format!(r#"{{"case":"{case}","call":{call}}}"#)
}

/// The machine that sends it.
#[must_use]
pub fn machine(case: &str) -> String {
    format!("H-{case}")
}

fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::new(Compiler::Here, None).expect("an engine"))
}

/// Through all steps, as the registry does.
fn load(path: &Path) -> Result<Arc<Generation>, Refusal> {
    let limits =
        Limits { call_timeout: CALL_TIMEOUT, memory: ByteSize(MEMORY), output: ByteSize(OUTPUT), ..Limits::default() };
    let plugin = Plugin {
        path: path.to_owned(),
        digest: None,
        settings: IndexMap::new(),
        limits,
        rehearse: Default::default(),
        canary: None,
        probation: Default::default(),
        grants: Grants {
            state: true,
            publish: vec![TopicPattern::parse(PUBLISH).expect("a topic")],
            ..Grants::default()
        },
    };
    let wanted = Wanted {
        name: "hostile".to_owned(),
        plugin,
        trust: None,
        world: Some(World::TopicHandler),
        before: Some("guest".to_owned()),
    };
    let file = load::read(path)?;
    load::load(sandbox(), &wanted, &file, 1, |_| ()).map(|loaded| loaded.generation)
}

fn message(case: &str, call: usize) -> Message {
    let serial_no = machine(case);
    Message {
        topic: format!("hostile/{serial_no}"),
        captures: vec![Field { name: "serial_no".to_owned(), value: serial_no }],
        payload: payload(case, call).into(),
        properties: Vec::new(),
        received_at: "2026-04-14T09:00:00.000+08:00".to_owned(),
        id: (call + 1).to_string(),
        attempt: 1,
    }
}

/// What became of a case.
#[must_use]
pub fn outcome(case: &Case, folder: &Path) -> Must {
    let mut tries = 1;
    loop {
        let is = outcome_once(case, folder);
        if tries == TRIES || is_so(&case.must, &is) || !is_late(&is) {
            return is;
        }
        tries += 1;
    }
}

/// Whether a call of it gave no answer in time.
#[must_use]
pub fn is_late(is: &Must) -> bool {
    let late = |reason: &String| reason.contains("limits.call_timeout");
    match is {
        Must::Live(ends) => ends.iter().any(|end| matches!(end, End::Dead(reason) if late(reason))),
        Must::Refused(_, reason) => late(reason),
        Must::NotLive | Must::Either(..) => false,
    }
}

fn outcome_once(case: &Case, folder: &Path) -> Must {
    let path = folder.join(format!("{}.wasm", case.name));
    let _kept = case.make(&path);
    let generation = match load(&path) {
        Ok(generation) => generation,
        Err(refusal) => return Must::Refused(refusal.step, refusal.problem.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let pool = Pool::new();
    let call = |call| {
        let (chain, kept, mut nobody) = (std::slice::from_ref(&generation), Cell::new(false), ());
        let made = chain::run(&pool, chain, message(&case.name, call), &kept, &mut nobody);
        match runtime.block_on(made) {
            Made::Failed(failed) => End::Dead(failed.reason.to_string()),
            Made::Outputs { jobs, publications } => {
                let published =
                    publications.iter().map(|(_, publication)| format!("published to {}", publication.topic));
                let jobs = jobs.iter().map(|job| String::from_utf8_lossy(&job.payload).into_owned());
                let all = published.chain(jobs).collect::<Vec<_>>().join(" ");
                if all == payload(&case.name, call) { End::AsItCame } else { End::Makes(all) }
            }
        }
    };
    Must::Live((0..case.must.calls()).map(call).collect())
}

/// Whether what became of a case is what must; its reasons hold the words.
#[must_use]
pub fn is_so(must: &Must, is: &Must) -> bool {
    match (must, is) {
        (Must::Refused(step, words) | Must::Either(step, words), Must::Refused(at, reason)) => {
            step == at && reason.contains(words.as_str())
        }
        (Must::Live(_) | Must::Either(..), Must::Live(ends)) => {
            ends.iter().enumerate().all(|(call, end)| ended_so(must.end(call), end))
        }
        (Must::NotLive, Must::Refused(..)) => true,
        _ => false,
    }
}

/// The same of one call.
#[must_use]
pub fn ended_so(must: &End, is: &End) -> bool {
    match (must, is) {
        (End::Dead(words), End::Dead(reason)) => reason.contains(words.as_str()),
        // Of a long one its beginning is enough.
        (End::Makes(start), End::Makes(payload)) => payload.starts_with(start.as_str()),
        _ => must == is,
    }
}
