//! What a guest is handed and what it answers, between the interface's types and the host's own; and why it gave no answer.

use sluicegate_core::fault::Fault;
use sluicegate_core::message::{Failure, Field, GuestCommand, Job, Message, Output, Publication};
use sluicegate_core::settings::Limits;
use wasmtime::{Store, Trap, WasmBacktrace};

use super::bindings::handler::sluicegate::plugin::types;
use super::generation::one_line;
use super::guest::{State, cut};

/// What the host may hold for a guest's answer beyond the payloads: names, keys, topics.
const ANSWER_ALLOWANCE: u64 = 64 << 10;

/// What the host may allocate while it takes an answer: the engine asks before it does, for what it becomes here, which is several times what it is
/// in the guest.
pub(super) fn fuel(limits: &Limits) -> usize {
    let outputs = limits.outputs.saturating_mul(size_of::<types::Output>());
    usize::try_from(limits.output.0 + ANSWER_ALLOWANCE).unwrap_or(usize::MAX).saturating_add(outputs)
}

/// A message, as the guest is handed it.
pub(super) fn lower(message: &Message) -> types::Message {
    let fields = |fields: &[Field]| {
        fields.iter().map(|field| types::Field { name: field.name.clone(), value: field.value.clone() }).collect()
    };
    types::Message {
        topic: message.topic.clone(),
        captures: fields(&message.captures),
        payload: message.payload.to_vec(),
        properties: fields(&message.properties),
        received_at: message.received_at.clone(),
        id: message.id.clone(),
        attempt: message.attempt,
    }
}

/// A command, as the guest is handed it.
pub(super) fn lower_command(command: &GuestCommand) -> types::Command {
    types::Command {
        target: command.target.clone(),
        name: command.name.clone(),
        payload: command.payload.to_vec(),
        message_id: command.message_id.clone(),
    }
}

/// A handler's answer, where it is within the limits.
pub(super) fn lift(outputs: Vec<types::Output>, limits: &Limits) -> Result<Vec<Output>, Fault> {
    let size: usize = outputs
        .iter()
        .map(|output| match output {
            types::Output::Job(job) => job.payload.len() + job.idempotency_key.as_ref().map_or(0, String::len),
            types::Output::Publish(publication) => publication.payload.len() + publication.topic.len(),
        })
        .sum();
    if outputs.len() > limits.outputs {
        return Err(Fault::TooManyOutputs(limits.outputs));
    }
    if size as u64 > limits.output.0 {
        return Err(Fault::OutputTooLarge(limits.output));
    }
    let lift = |output| match output {
        types::Output::Job(job) => {
            Output::Job(Job { payload: job.payload.into(), idempotency_key: job.idempotency_key })
        }
        types::Output::Publish(publication) => Output::Publish(Publication {
            topic: publication.topic,
            payload: publication.payload.into(),
            retain: publication.retain,
        }),
    };
    Ok(outputs.into_iter().map(lift).collect())
}

/// A failure; its reason is cut.
pub(super) fn lift_failure(failure: types::Failure) -> Failure {
    match failure {
        types::Failure::Reject(reason) => Failure::Reject(cut(&reason).to_owned()),
        types::Failure::Retry(reason) => Failure::Retry(cut(&reason).to_owned()),
    }
}

/// Why there was no answer.
pub(super) fn fault(error: &wasmtime::Error, store: &Store<State>, limits: Limits) -> Fault {
    let trap = error.downcast_ref::<Trap>();
    let text = one_line(error);
    match trap {
        Some(Trap::Interrupt) => Fault::TimedOut(limits.call_timeout),
        _ if store.data().allowance.refused => Fault::OutOfMemory(limits.memory),
        // The engine's type for it is private; a test with an endless answer pins the words.
        _ if text.contains("hostcall fuel") || text.contains("fuel allocated for hostcalls") => {
            Fault::OutputTooLarge(limits.output)
        }
        // The trap's own words; what surrounds them is a backtrace.
        Some(trap) => Fault::Trap(match function(error) {
            Some(name) => format!("{trap} in `{name}`"),
            None => trap.to_string(),
        }),
        None => Fault::Garbage(text),
    }
}

/// The guest's function that trapped, where its names are in the file. They are the guest's words.
fn function(error: &wasmtime::Error) -> Option<String> {
    let name = error.downcast_ref::<WasmBacktrace>()?.frames().first()?.func_name()?;
    Some(name.chars().take(128).flat_map(char::escape_debug).collect())
}
