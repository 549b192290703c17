//! The handlers of a route, one after another: each job of one is a message of the next.

use std::cell::Cell;
use std::sync::Arc;

use sluicegate_core::fault::Fault;
use sluicegate_core::json;
use sluicegate_core::message::{Failure, Job, Message, Output, Publication};
use sluicegate_core::publishing::{self, PublishError};
use sluicegate_core::route::SERIAL_NO;

use crate::sandbox::{Generation, Pool};

/// The longest idempotency key, in bytes: a serial number and an id of 128 characters each, whatever script they are in.
const MAX_KEY_BYTES: usize = 1_024;
/// What a chain may make of one message on its way: jobs and publications, and bytes of their payloads.
const MAX_JOBS: usize = 1_000;
const MAX_BYTES: usize = 64 << 20;

/// What a chain made of a message.
pub enum Made {
    /// It took it.
    Outputs {
        /// So many jobs for the queue, in order; their payloads are JSON that every back end can read. None: dropped on purpose.
        jobs: Vec<Job>,
        /// For the broker, in order, each with who made it. They are sent before the jobs.
        publications: Vec<(Arc<Generation>, Publication)>,
    },
    /// A handler did not take it, or failed at it.
    Failed(Failed),
}

/// Which handler, and why.
#[derive(Debug)]
pub struct Failed {
    /// The plugin's name; empty where the route has no handler.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// What it said, or what it did.
    pub reason: Reason,
}

/// Why a handler did not take a message.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// It refused it for good.
    #[error("{0}")]
    Rejected(String),
    /// It could not take it now.
    #[error("{0} (the plugin asked for another attempt)")]
    Retry(String),
    /// The call gave no answer.
    #[error("the plugin {0}")]
    Fault(#[from] Fault),
    /// The answer is none that the gateway may pass on.
    #[error("the job is {0}")]
    NotJson(#[from] json::JsonError),
    /// The idempotency key is empty or too long.
    #[error("the plugin's idempotency key has {0} bytes; it must be 1 to {MAX_KEY_BYTES}")]
    Key(usize),
    /// The chain made more of one message than it may.
    #[error(
        "the chain made {jobs} jobs and publications of {bytes} bytes of one message; {MAX_JOBS} and 64 MiB are the most"
    )]
    TooMuch {
        /// How many jobs and publications.
        jobs: usize,
        /// How many bytes.
        bytes: usize,
    },
    /// It failed at everything, and was not repaired in time.
    #[error("the plugin failed at everything and was not repaired within a day")]
    Broken,
    /// It publishes, and may not.
    #[error(transparent)]
    NotGranted(#[from] PublishError),
    /// The broker does not take what it publishes.
    #[error("the broker does not take what the plugin publishes to `{topic}`: {reason}")]
    NotPublished {
        /// Where to.
        topic: String,
        /// In the broker's words.
        reason: String,
    },
}

impl From<Failure> for Reason {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reject(reason) => Self::Rejected(reason),
            Failure::Retry(reason) => Self::Retry(reason),
        }
    }
}

impl Reason {
    /// One word, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Retry(_) => "retry",
            Self::Fault(fault) => fault.kind(),
            Self::NotJson(_) => "not-json",
            Self::Key(_) => "key",
            Self::TooMuch { .. } => "too-much",
            Self::Broken => "broken",
            Self::NotGranted(_) => "not-granted",
            Self::NotPublished { .. } => "not-published",
        }
    }

    /// Whether another attempt may go well.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Retry(_) | Self::Fault(_) | Self::NotPublished { .. })
    }

    /// Whether neither the message nor the plugin is to blame, so that it is no attempt.
    #[must_use]
    pub fn is_nobodys(&self) -> bool {
        matches!(self, Self::Fault(fault) if fault.is_nobodys())
    }
}

/// What one handler did, for those who want to watch (`sluicegate try`).
pub trait Watch {
    /// A handler answered.
    fn handler(&mut self, generation: &Generation, answer: Result<&[Output], String>);
}

impl Watch for () {
    fn handler(&mut self, _: &Generation, _: Result<&[Output], String>) {}
}

/// Runs a message through a chain. `kept` is true from when its handlers begin to write what they keep.
///
/// # Cancel safety
/// Dropped, the instances in use are thrown away; nothing was sent. While `kept` is true, what they keep may be written.
pub async fn run(
    pool: &Pool,
    chain: &[Arc<Generation>],
    mut message: Message,
    kept: &Cell<bool>,
    watch: &mut impl Watch,
) -> Made {
    let mut jobs = vec![Job { payload: message.payload.clone(), idempotency_key: None }];
    let (mut publications, mut published) = (Vec::new(), 0);
    for (place, generation) in chain.iter().enumerate() {
        let last = place + 1 == chain.len();
        let (mut next, mut bytes) = (Vec::with_capacity(jobs.len()), 0);
        for job in jobs {
            message.payload = job.payload;
            match handle(pool, generation, &message, last, kept, watch).await {
                Ok(outputs) => outputs.into_iter().for_each(|output| match output {
                    Output::Job(job) => {
                        bytes += job.payload.len();
                        next.push(job);
                    }
                    Output::Publish(publication) => {
                        published += publication.payload.len();
                        publications.push((generation.clone(), publication));
                    }
                }),
                Err(reason) => {
                    // That nobody is to blame for, none of them is.
                    if !reason.is_nobodys() {
                        let counted = matches!(reason, Reason::Rejected(_) | Reason::Retry(_) | Reason::Fault(_));
                        blame(pool, &chain[..place + usize::from(!counted)]);
                    }
                    return Made::Failed(failed(generation, reason));
                }
            }
            let made = next.len() + publications.len();
            let bytes = published + bytes;
            if made > MAX_JOBS || bytes > MAX_BYTES {
                blame(pool, &chain[..=place]);
                return Made::Failed(failed(generation, Reason::TooMuch { jobs: made, bytes }));
            }
        }
        jobs = next;
    }
    // A route without handlers: what came may not be fit for an envelope.
    match jobs.iter().find_map(unfit).filter(|_| chain.is_empty()) {
        Some(reason) => Made::Failed(Failed { plugin: String::new(), version: String::new(), reason }),
        None => Made::Outputs { jobs, publications },
    }
}

/// A message failed although these handlers answered: one of them made of it what the next, or the queue, cannot take.
fn blame(pool: &Pool, chain: &[Arc<Generation>]) {
    if pool.counts() {
        chain.iter().for_each(|generation| generation.failed_behind());
    }
}

/// One handler; of the `last` of a chain the jobs go to the queue.
async fn handle(
    pool: &Pool,
    generation: &Arc<Generation>,
    message: &Message,
    last: bool,
    kept: &Cell<bool>,
    watch: &mut impl Watch,
) -> Result<Vec<Output>, Reason> {
    let mut refused = None;
    let called = pool.handle_if(generation, message, kept, |outputs| {
        refused = outputs.iter().find_map(|output| refusal(output, generation, message, last));
        refused.is_none()
    });
    let answer = match called.await {
        Ok(Ok(outputs)) => Ok(outputs),
        Ok(Err(failure)) => Err(failure.into()),
        Err(fault) => Err(fault.into()),
    };
    if pool.counts() {
        match &answer {
            Err(reason) if reason.is_nobodys() => {}
            // One that asks for another attempt at everything is as broken as one that traps.
            Err(Reason::Fault(_) | Reason::Retry(_)) => generation.faulted(machine(message)),
            _ => generation.answered(),
        }
    }
    watch.handler(generation, answer.as_deref().map_err(ToString::to_string));
    match refused {
        Some(reason) => Err(reason),
        None => answer,
    }
}

/// Why an output is none that the gateway may pass on.
fn refusal(output: &Output, generation: &Generation, message: &Message, last: bool) -> Option<Reason> {
    match output {
        Output::Job(job) if last => unfit(job),
        Output::Job(_) => None,
        Output::Publish(publication) => {
            let granted = &generation.grants().publish;
            publishing::check(granted, &publication.topic, &message.captures).err().map(Reason::NotGranted)
        }
    }
}

/// Whose poison it may be; the topic, where the route names no machine.
fn machine(message: &Message) -> &str {
    let named = message.captures.iter().find(|field| field.name == SERIAL_NO);
    named.map_or(message.topic.as_str(), |field| field.value.as_str())
}

fn unfit(job: &Job) -> Option<Reason> {
    if let Err(error) = json::check(&job.payload) {
        return Some(Reason::NotJson(error));
    }
    match job.idempotency_key.as_ref().map(String::len) {
        Some(length) if length == 0 || length > MAX_KEY_BYTES => Some(Reason::Key(length)),
        _ => None,
    }
}

fn failed(generation: &Generation, reason: Reason) -> Failed {
    Failed { plugin: generation.name().to_owned(), version: generation.version().to_owned(), reason }
}
