//! Both builds on a sample that one of them carries, each on a fresh instance with the sample's own settings.

use std::time::Instant;

use sluicegate_samples::{Answer, Input, Sample};

use super::report::{Gathered, Side};
use super::text;
use crate::sandbox::{Generation, answer};
use crate::uplink::chain::Reason;

/// Gives a sample to two builds of one world.
pub async fn sample(gathered: &mut Gathered, before: &Generation, now: &Generation, sample: &Sample) {
    let (about, payload) = match &sample.input {
        Input::Message(message) => (message.topic.clone(), &message.payload),
        Input::Command(command) => (format!("{} {}", command.target, command.name), &command.payload),
    };
    let (before, now) = (made(before, sample).await, made(now, sample).await);
    gathered.add(&format!("{}: {about}", sample.name), payload, before, now);
}

async fn made(build: &Generation, sample: &Sample) -> Side {
    let began = Instant::now();
    let answer = answer(build, sample).await;
    let took = began.elapsed();
    let (failed, lines) = match answer {
        Ok(Answer::Outputs { jobs, publications }) => {
            let jobs = jobs.iter().map(|job| text::job(&job.payload, job.idempotency_key.as_deref()));
            let published = publications.iter().map(|one| text::publication(&one.topic, &one.payload, one.retain));
            (false, text::or_dropped(jobs.chain(published)))
        }
        Ok(Answer::Payload(payload)) => (false, vec![text::payload(&payload)]),
        Ok(Answer::Reject(reason)) => (true, vec![text::failed(&Reason::Rejected(reason))]),
        Ok(Answer::Retry(reason)) => (true, vec![text::failed(&Reason::Retry(reason))]),
        Err(unanswered) => (true, vec![format!("failed: {unanswered}")]),
    };
    Side { failed, took, lines }
}
