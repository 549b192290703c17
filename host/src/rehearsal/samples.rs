//! Both builds on a sample that one of them carries, each on a fresh instance with the sample's own settings.

use std::time::Instant;

use sluicegate_samples::{Answer, Input, Sample};

use super::report::{Gathered, Side};
use super::shadow::{line, publishes};
use crate::sandbox::{Generation, answer};

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
            let jobs = jobs.iter().map(|job| line(&job.payload, job.idempotency_key.as_deref()));
            let published = publications.iter().map(|one| publishes(&one.topic, &one.payload, one.retain));
            let mut lines: Vec<String> = jobs.chain(published).collect();
            if lines.is_empty() {
                lines.push("dropped".to_owned());
            }
            (false, lines)
        }
        Ok(Answer::Payload(payload)) => (false, vec![format!("payload {}", String::from_utf8_lossy(&payload))]),
        Ok(Answer::Reject(reason)) => (true, vec![format!("failed: {reason}")]),
        Ok(Answer::Retry(reason)) => (true, vec![format!("failed: {reason} (the plugin asked for another attempt)")]),
        Err(unanswered) => (true, vec![format!("failed: {unanswered}")]),
    };
    Side { failed, took, lines }
}
