//! Calling a handler natively, in a plugin's own tests.
#![cfg(not(target_arch = "wasm32"))]

pub(crate) mod state;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use sluicegate_samples::{Answer, Input, SampleJob, SamplePublication};

use crate::{Command, Failure, Field, Message, Output};
pub use state::{with_state, without_state};

thread_local! {
    static SETTINGS: RefCell<HashMap<String, String>> = RefCell::default();
}

pub(crate) fn setting(name: &str) -> Option<String> {
    SETTINGS.with_borrow(|settings| settings.get(name).cloned())
}

/// Runs `test` with these settings.
pub fn with_settings<T>(settings: &[(&str, &str)], test: impl FnOnce() -> T) -> T {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    SETTINGS.set(settings);
    let result = test();
    SETTINGS.take();
    result
}

#[cfg(feature = "http")]
type Server = Box<dyn Fn(&crate::http::Request) -> Result<crate::http::Answer, crate::http::NoAnswer>>;

#[cfg(feature = "http")]
thread_local! {
    static SERVER: RefCell<Option<Server>> = RefCell::default();
}

/// Runs `test` with a server that answers every request so. Without one there is nobody, as while a build is only tried.
#[cfg(feature = "http")]
pub fn with_server<T>(
    server: impl Fn(&crate::http::Request) -> Result<crate::http::Answer, crate::http::NoAnswer> + 'static,
    test: impl FnOnce() -> T,
) -> T {
    SERVER.set(Some(Box::new(server)));
    let result = test();
    SERVER.take();
    result
}

#[cfg(feature = "http")]
pub(crate) fn ask(request: &crate::http::Request) -> Result<crate::http::Answer, crate::http::NoAnswer> {
    let nobody = || crate::http::NoAnswer("http is not there while a build is only tried".to_owned());
    SERVER.with_borrow(|server| server.as_ref().ok_or_else(nobody)?(request))
}

/// A message of machine `M-001` on `machine/M-001/test`.
#[must_use]
pub fn message(payload: impl Into<Vec<u8>>) -> Message {
    Message {
        topic: "machine/M-001/test".to_owned(),
        captures: vec![Field { name: "serial_no".to_owned(), value: "M-001".to_owned() }],
        payload: payload.into(),
        properties: Vec::new(),
        received_at: "2026-04-14T09:00:00.000+08:00".to_owned(),
        id: "1-1".to_owned(),
        attempt: 1,
    }
}

/// The one job of an answer: its payload as text, and its key.
///
/// # Panics
/// Where the answer is anything else.
#[must_use]
#[track_caller]
pub fn one_job(answer: Result<Vec<Output>, Failure>) -> (String, Option<String>) {
    match answer.as_deref() {
        Ok([Output::Job(job)]) => (String::from_utf8_lossy(&job.payload).into_owned(), job.idempotency_key.clone()),
        other => panic!("expected one job, got {other:?}"),
    }
}

/// The reason of a rejection.
///
/// # Panics
/// Where the answer is anything else.
#[must_use]
#[track_caller]
pub fn rejection<T: std::fmt::Debug>(answer: Result<T, Failure>) -> String {
    match answer {
        Err(Failure::Reject(reason)) => reason,
        other => panic!("expected a rejection, got {other:?}"),
    }
}

/// Runs a handler on every file in `samples/` of its crate.
///
/// # Panics
/// Where a sample gives something else, cannot be read, or there is none.
#[track_caller]
pub fn handler_samples(crate_folder: &str, handle: impl Fn(Message) -> Result<Vec<Output>, Failure>) {
    samples(crate_folder, |input| match input {
        Input::Message(sample) => {
            let fields = |fields: &indexmap::IndexMap<String, String>| {
                fields.iter().map(|(name, value)| Field { name: name.clone(), value: value.clone() }).collect()
            };
            let message = Message {
                topic: sample.topic.clone(),
                captures: fields(&sample.captures),
                payload: sample.payload.clone(),
                properties: fields(&sample.properties),
                received_at: sample.received_at.clone(),
                id: "sample".to_owned(),
                attempt: sample.attempt,
            };
            answer(handle(message), |outputs| {
                let (mut jobs, mut publications) = (Vec::new(), Vec::new());
                for output in outputs {
                    match output {
                        Output::Job(job) => {
                            jobs.push(SampleJob { payload: job.payload, idempotency_key: job.idempotency_key });
                        }
                        Output::Publish(p) => {
                            publications.push(SamplePublication {
                                topic: p.topic,
                                payload: p.payload,
                                retain: p.retain,
                            });
                        }
                    }
                }
                Answer::Outputs { jobs, publications }
            })
        }
        Input::Command(_) => panic!("a handler's sample has a `message`"),
    });
}

/// Runs a validator on every file in `samples/` of its crate.
///
/// # Panics
/// Where a sample gives something else, cannot be read, or there is none.
#[track_caller]
pub fn validator_samples(crate_folder: &str, validate: impl Fn(Command) -> Result<Vec<u8>, Failure>) {
    samples(crate_folder, |input| match input {
        Input::Command(sample) => {
            let command = Command {
                target: sample.target.clone(),
                name: sample.name.clone(),
                payload: sample.payload.clone(),
                message_id: sample.message_id.clone(),
            };
            answer(validate(command), Answer::Payload)
        }
        Input::Message(_) => panic!("a validator's sample has a `command`"),
    });
}

fn answer<T>(result: Result<T, Failure>, good: impl FnOnce(T) -> Answer) -> Answer {
    match result {
        Ok(value) => good(value),
        Err(Failure::Reject(reason)) => Answer::Reject(reason),
        Err(Failure::Retry(reason)) => Answer::Retry(reason),
    }
}

#[track_caller]
fn samples(crate_folder: &str, call: impl Fn(&Input) -> Answer) {
    let folder = Path::new(crate_folder).join("samples");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("a folder `samples` beside Cargo.toml") {
        let path = entry.expect("a readable folder").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).expect("a readable sample");
        let sample = sluicegate_samples::parse_file(&name, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let settings: Vec<(&str, &str)> =
            sample.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = with_settings(&settings, || with_state(&[], || call(&sample.input)));
        if let Err(mismatch) = sample.judge(&answer) {
            panic!("{name}: {mismatch}");
        }
        count += 1;
    }
    assert!(count > 0, "{} holds no sample", folder.display());
}
