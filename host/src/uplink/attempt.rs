//! One message: its attempts, and what becomes of it when they fail.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sluicegate_core::breaker::Verdict;
use sluicegate_core::json;
use sluicegate_core::message::{Field, Message, Publication, SerialNo};
use sluicegate_core::settings::{OnFailure, Priority, WhenBehind};
use sluicegate_core::spooled::{Entry, Job, Once};
use sluicegate_core::ticket::Outcome;
use tokio::time::timeout;

use super::chain::{self, Failed, Made, Reason};
use super::lane::Tools;
use super::letter::Letter;
use super::publications::Refused;
use super::sink::Low;
use crate::live::Live;
use crate::sandbox::Generation;
use crate::telemetry::{clock, metrics};

/// A message that a route took.
pub(super) struct Subject<'a> {
    /// What it is handled with.
    pub live: &'a Arc<Live>,
    /// The place of its route.
    pub route: usize,
    /// The handlers that it goes through at each attempt.
    pub chain: Cow<'a, [Arc<Generation>]>,
    /// Its machine.
    pub serial_no: &'a SerialNo,
    /// What the topic's named levels are.
    pub captures: &'a [Field],
    /// Its topic.
    pub topic: &'a str,
    /// What was published.
    pub payload: &'a Bytes,
    /// Its user properties.
    pub properties: &'a [Field],
    /// When it arrived.
    pub received_at: Timestamp,
    /// Names it in the log, the same at each attempt.
    pub number: u64,
}

/// What is to be made durable.
pub(super) struct Verdicted {
    /// For which list (its whole key), and what.
    pub job: Option<(Arc<str>, Job)>,
    /// What it then is.
    pub outcome: Outcome,
    /// Of a route with `priority = "low"`.
    pub low: Option<Low>,
}

impl Verdicted {
    /// For the dead letters.
    pub(super) fn dead(live: &Live, letter: Job) -> Self {
        Self { job: Some((live.dead_letters(), letter)), outcome: Outcome::Dead, low: None }
    }

    fn dropped() -> Self {
        Self { job: None, outcome: Outcome::Dropped, low: None }
    }
}

/// What an attempt came to.
pub(super) enum Attempted {
    /// The outcome is known.
    Done(Verdicted),
    /// It failed, and may go well later.
    Failed(Failed),
    /// It was none: a plugin that fails at everything is not asked before so long, or its state is not to be had, or the broker is away.
    Wait(Duration),
}

/// How long what a message publishes may take; the broker is away then.
const PUBLISHING: Duration = Duration::from_secs(5);
/// And so much more for each publication, however far the broker is.
const ANSWER: Duration = Duration::from_millis(100);
/// Before a message is tried again that could not be, for what is nobody's fault: two seconds to six, so that not all come at once.
pub(super) fn away() -> Duration {
    Duration::from_millis(2_000 + u64::from(clock::chance() % 4_000))
}

impl Subject<'_> {
    /// One attempt, the first one being 1. `kept` is true from when its handlers begin to write what they keep.
    pub(super) async fn attempt(&self, tools: &Tools, attempt: u32, kept: &Cell<bool>) -> Attempted {
        for generation in self.chain.iter() {
            if let Verdict::Wait(delay) = generation.ask() {
                return Attempted::Wait(delay);
            }
        }
        let zone = self.live.settings.gateway.time_zone;
        let message = Message {
            topic: self.topic.to_owned(),
            captures: self.captures.to_vec(),
            payload: self.payload.clone(),
            properties: self.properties.to_vec(),
            received_at: clock::rfc3339_millis(self.received_at, zone),
            id: self.number.to_string(),
            attempt,
        };
        if attempt == 1 {
            tools.recent.note(&self.live.route_name(self.route), &message, clock::uptime());
        }
        match chain::run(&tools.pool, &self.chain, message, kept, &mut ()).await {
            Made::Outputs { jobs, publications } => {
                if let Some(attempted) = self.publish(tools, publications).await {
                    return attempted;
                }
                if jobs.is_empty() {
                    return Attempted::Done(Verdicted::dropped());
                }
                let at = clock::rfc3339(self.received_at, zone);
                let envelope = &self.live.routes.get(self.route).envelope;
                let entries = jobs.iter().map(|job| Entry {
                    value: envelope.write(self.serial_no.as_str(), &job.payload, &at),
                    once: job.idempotency_key.as_deref().and_then(|key| self.once(key)),
                });
                Attempted::Done(self.pushed(entries.collect()))
            }
            Made::Failed(failed) if failed.reason.is_nobodys() => {
                metrics::attempt_failed(&self.live.routes.get(self.route).route.name, failed.reason.kind());
                Attempted::Wait(away())
            }
            Made::Failed(failed) if failed.reason.may_pass() => {
                metrics::attempt_failed(&self.live.routes.get(self.route).route.name, failed.reason.kind());
                Attempted::Failed(failed)
            }
            Made::Failed(failed) => Attempted::Done(self.dead(&failed, attempt)),
        }
    }

    /// Sends what its handlers publish; nothing: the broker has all of it.
    ///
    /// # Cancel safety
    /// Dropped, any of it may be published.
    async fn publish(&self, tools: &Tools, made: Vec<(Arc<Generation>, Publication)>) -> Option<Attempted> {
        if made.is_empty() {
            return None;
        }
        let (by, publications): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        // Each waits for the broker's answer to the one before.
        let patience = PUBLISHING + ANSWER * u32::try_from(publications.len()).unwrap_or(u32::MAX);
        let refused = match timeout(patience, tools.publications.publish(publications)).await {
            Err(_) => return Some(Attempted::Wait(away())),
            Ok(answer) => answer.err(),
        };
        let published = refused.as_ref().map_or(by.len(), |refused| refused.place);
        by.iter().take(published).for_each(|generation| generation.published("published"));
        let Refused { place, topic, reason } = refused?;
        let by = by.get(place)?;
        by.published("refused");
        let reason = Reason::NotPublished { topic: topic.escape_debug().to_string(), reason };
        metrics::attempt_failed(&self.live.routes.get(self.route).route.name, reason.kind());
        Some(Attempted::Failed(Failed { plugin: by.name().to_owned(), version: by.version().to_owned(), reason }))
    }

    /// Whether a handler of its chain may publish.
    pub(super) fn may_publish(&self) -> bool {
        self.chain.iter().any(|generation| !generation.grants().publish.is_empty())
    }

    /// Its attempts are used up; none: it is never given up.
    pub(super) fn give_up(&self, failed: &Failed, attempts: u32) -> Option<Verdicted> {
        let route = &self.live.routes.get(self.route).route;
        match route.on_failure {
            OnFailure::Block => None,
            OnFailure::DeadLetter => Some(self.dead(failed, attempts)),
            OnFailure::Drop => {
                metrics::rejected(&route.name, failed.reason.kind());
                Some(Verdicted::dropped())
            }
            OnFailure::PassThrough => Some(self.passed_through(failed, attempts)),
        }
    }

    /// For how long a plugin of its chain has failed at everything; none: none does.
    pub(super) fn broken_for(&self) -> Option<Duration> {
        self.chain.iter().filter_map(|generation| generation.broken_for()).max()
    }

    fn once(&self, key: &str) -> Option<Once> {
        let (prefix, for_) = self.live.once(self.route)?;
        let serial_no = self.serial_no.as_str();
        // Both may hold colons, and one machine's key must never be another's: so the length of the first stands before it.
        Some(Once { key: format!("{prefix}{}:{serial_no}:{key}", serial_no.len()).into(), for_ })
    }

    fn pushed(&self, entries: Vec<Entry>) -> Verdicted {
        let route = &self.live.routes.get(self.route).route;
        let name = self.live.route_name(self.route);
        let low = (route.priority == Priority::Low).then(|| Low {
            latest: (route.when_behind == WhenBehind::Latest)
                .then(|| format!("{name}\0{}", self.serial_no.as_str()).into()),
        });
        let job = Job { route: Some(name), dead: false, entries };
        Verdicted { job: Some((self.live.queue(self.route), job)), outcome: Outcome::Pushed, low }
    }

    /// The payload as it came, where it can stand in an envelope.
    fn passed_through(&self, failed: &Failed, attempts: u32) -> Verdicted {
        if json::check(self.payload).is_err() {
            return self.dead(failed, attempts);
        }
        let at = clock::rfc3339(self.received_at, self.live.settings.gateway.time_zone);
        let envelope = &self.live.routes.get(self.route).envelope;
        let value = envelope.write_passed_through(self.serial_no.as_str(), self.payload, &at);
        self.pushed(vec![Entry { value, once: None }])
    }

    fn dead(&self, failed: &Failed, attempts: u32) -> Verdicted {
        let route = &self.live.routes.get(self.route).route.name;
        let reason = failed.reason.to_string();
        if matches!(failed.reason, Reason::Rejected(_)) {
            tracing::debug!(plugin = failed.plugin, serial_no = %self.serial_no, route, reason, "a message goes to the dead letters");
        } else {
            let kind = failed.reason.kind();
            // Once a message would be a flood: the counter tells how many, the letters which.
            tracing::debug!(plugin = failed.plugin, serial_no = %self.serial_no, route, attempts, "a message goes to the dead letters: {kind}");
        }
        metrics::rejected(route, failed.reason.kind());
        let letter = Letter {
            reason: &reason,
            route: Some(route),
            topic: self.topic,
            serial_no: Some(self.serial_no.as_str()),
            failed: Some(failed),
            attempts,
            received_at: self.received_at,
            properties: self.properties,
            payload: self.payload,
        };
        Verdicted::dead(self.live, letter.job(Some(route), self.live.zone()))
    }
}
