//! A build's own samples must give what they promise before it goes live.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::fault::Fault;
use sluicegate_core::json;
use sluicegate_core::message::{Failure, Field, GuestCommand, Message, Output};
use sluicegate_samples::{Answer, Input, Sample, SampleJob, SamplePublication};
use tokio::time::timeout;

use super::generation::Generation;
use super::instance::Instance;
use super::refusal::{Problem, Refusal, Step, quoted};

/// How long all samples together may take.
const MAX_TIME: Duration = Duration::from_secs(30);

/// Waits for what guests do, on the caller's thread: one of their own, never one that polls sockets.
///
/// # Errors
/// [`Refusal`] at `rehearsed`, where the system gives no event loop.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| Refusal::new(Step::Rehearsed, Problem::Host(error.to_string())))?;
    Ok(runtime.block_on(work))
}

/// Runs every sample of the file, each on a fresh instance with the sample's own settings.
///
/// # Errors
/// [`Refusal`] at `rehearsed`, with the first sample that gave something else.
pub async fn rehearse(generation: &Generation) -> Result<usize, Refusal> {
    let refused = |problem| Refusal::new(Step::Rehearsed, problem);
    let samples = generation.samples();
    // Each may take as long as a call may; all together hold up every other reload.
    let all = async {
        for sample in samples {
            run(generation, sample).await?;
        }
        Ok(samples.len())
    };
    tokio::select! {
        ran = timeout(MAX_TIME, all) => match ran {
            Ok(ran) => ran.map_err(refused),
            Err(_) => Err(refused(Problem::Slow { samples: samples.len(), limit: MAX_TIME })),
        },
        () = generation.given_up() => Err(refused(Problem::GivenUp)),
    }
}

async fn run(generation: &Generation, sample: &Sample) -> Result<(), Problem> {
    let name = || quoted(&sample.name);
    let differs = |reason: String| Problem::Sample { sample: name(), reason: quoted(&reason) };
    let answer = answer(generation, sample).await.map_err(|unanswered| match unanswered {
        Unanswered::Fault(fault) => Problem::SampleFault { sample: name(), fault },
        Unanswered::NotJson(error) => differs(format!("a job of it is {error}")),
    })?;
    sample.judge(&answer).map_err(|mismatch| differs(mismatch.to_string()))
}

/// Why a sample has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The call gave none.
    #[error("the plugin {0}")]
    Fault(#[from] Fault),
    /// It is none that the gateway may pass on.
    #[error("the job is {0}")]
    NotJson(#[from] json::JsonError),
}

/// What a build answers to a sample, on a fresh instance with the sample's own settings.
///
/// # Errors
/// [`Unanswered`]
pub async fn answer(generation: &Generation, sample: &Sample) -> Result<Answer, Unanswered> {
    let settings = Arc::new(sample.settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect());
    let place = generation.place(true).await;
    // Each sample begins without any, and what it writes is nobody's.
    let state = generation.state.as_ref().map(|access| access.to_nothing());
    let mut instance = Instance::start(generation, settings, state, place, true).await?;
    Ok(match &sample.input {
        Input::Message(message) => {
            let fields = |fields: &indexmap::IndexMap<String, String>| {
                fields.iter().map(|(name, value)| Field { name: name.clone(), value: value.clone() }).collect()
            };
            let message = Message {
                topic: message.topic.clone(),
                captures: fields(&message.captures),
                payload: message.payload.clone().into(),
                properties: fields(&message.properties),
                received_at: message.received_at.clone(),
                id: format!("sample-{}", sample.name),
                attempt: message.attempt,
            };
            match instance.handle(&message, false).await? {
                Ok(outputs) => outputs_of(outputs)?,
                Err(Failure::Reject(reason)) => Answer::Reject(reason),
                Err(Failure::Retry(reason)) => Answer::Retry(reason),
            }
        }
        Input::Command(command) => {
            let command = GuestCommand {
                target: command.target.clone(),
                name: command.name.clone(),
                payload: command.payload.clone().into(),
                message_id: command.message_id.clone(),
            };
            match instance.validate(&command, false).await? {
                Ok(payload) => Answer::Payload(payload.to_vec()),
                Err(Failure::Reject(reason)) => Answer::Reject(reason),
                Err(Failure::Retry(reason)) => Answer::Retry(reason),
            }
        }
    })
}

fn outputs_of(outputs: Vec<Output>) -> Result<Answer, json::JsonError> {
    let (mut jobs, mut publications) = (Vec::new(), Vec::new());
    for output in outputs {
        match output {
            Output::Job(job) => {
                json::check(&job.payload)?;
                jobs.push(SampleJob { payload: job.payload.to_vec(), idempotency_key: job.idempotency_key });
            }
            Output::Publish(publication) => publications.push(SamplePublication {
                topic: publication.topic,
                payload: publication.payload.to_vec(),
                retain: publication.retain,
            }),
        }
    }
    Ok(Answer::Outputs { jobs, publications })
}
