//! Each command is validated in the sandbox and published; one machine's commands one after another. It runs on a thread of its own,
//! since it runs guests.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sluicegate_core::backoff::Backoff;
use sluicegate_core::command::{Command, Expires};
use sluicegate_core::dead_letter::{DeadLetter, Kind, text_or_base64};
use sluicegate_core::message::{Failure, GuestCommand};
use sluicegate_core::order::Lanes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::lease::Held;
use super::settle::{Outcome, Told};
use super::take::{Taken, UnderWay};
use crate::live::Current;
use crate::mqtt::publish::{Answer, Publisher};
use crate::sandbox::Pool;
use crate::telemetry::clock;

/// Commands that wait for a subscriber beside `commands.in_flight`, so that machines that are away hold up no others.
const WAITING: usize = 10_000;

/// The thread that works commands.
pub struct Worker {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

/// What a command is worked with.
#[derive(Clone)]
pub struct Tools {
    /// The validator and the topic.
    pub current: Current,
    /// To the broker.
    pub publisher: Publisher,
    /// To the settling.
    pub told: mpsc::Sender<Told>,
    /// The lease.
    pub held: Arc<Held>,
    /// What is under way.
    pub under_way: Arc<UnderWay>,
    /// The gateway ends: what is not sent yet is left where it stands.
    pub stop: CancellationToken,
}

impl Worker {
    /// Starts the thread; it ends when every sender of `taken` is gone and what was taken is settled, or at `abandon`: what
    /// is not settled then stands in the processing list.
    ///
    /// # Errors
    /// Where the system gives no thread.
    #[expect(clippy::disallowed_methods, reason = "`Worker::join` joins it")]
    pub fn spawn(taken: mpsc::Receiver<Taken>, tools: Tools, abandon: CancellationToken) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new().name("commands".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = abandon.cancelled() => {}
                    () = run(taken, tools) => {}
                }
            });
            // Dropped without this message, the sender says that the thread panicked.
            let _ = end.send(());
        })?;
        Ok(Self { thread, ended })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it panicked.
    pub async fn join(self) -> Result<(), String> {
        match self.ended.await {
            Ok(()) => Ok(()),
            Err(_) => self.thread.join().map_err(|_| "the thread panicked".to_owned()),
        }
    }
}

async fn run(mut taken: mpsc::Receiver<Taken>, tools: Tools) {
    let pool = Rc::new(Pool::new());
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut machines: Lanes<String, Taken> = Lanes::default();
    let mut under_way = FuturesUnordered::new();
    let mut number = 0;
    let mut open = true;
    let begin = |taken| work(pool.clone(), tools.clone(), waiting.clone(), taken);
    while open || !under_way.is_empty() {
        tokio::select! {
            Some(target) = under_way.next() => {
                if let Some(next) = machines.leave(&target) {
                    under_way.push(begin(next));
                }
            }
            next = taken.recv(), if open => {
                let Some(taken) = next else {
                    open = false;
                    continue;
                };
                let live = tools.current.load();
                if live.number != number {
                    number = live.number;
                    pool.retain(|generation| live.serves(generation));
                }
                // What is no command has no machine, and waits for none.
                let target = taken.command.as_ref().map_or_else(|_| String::new(), |command| command.target.clone());
                if let Some(first) = machines.enter(target, taken) {
                    under_way.push(begin(first));
                }
            }
        }
    }
}

async fn work(pool: Rc<Pool>, tools: Tools, waiting: Arc<Semaphore>, mut taken: Taken) -> String {
    let (target, outcome) = match taken.command.clone() {
        Ok(_) if taken.duplicate => (None, Some(plain("duplicate", "a command with this message_id was sent already"))),
        Ok(command) => {
            let outcome = attempt(&pool, &tools, &waiting, &command, &mut taken).await;
            (Some(command.target), outcome)
        }
        Err(error) => (None, Some(dead(&tools, &taken, None, "rejected", &error.to_string(), None))),
    };
    let target =
        target.or_else(|| taken.command.as_ref().ok().map(|command| command.target.clone())).unwrap_or_default();
    match outcome {
        // The settling ends after this thread.
        Some(outcome) => drop(tools.told.send(Told::Done(taken, outcome)).await),
        // It stands in a processing list: this instance's, or that of whoever took it over.
        None => tools.under_way.remove(&taken),
    }
    target
}

/// Until when a command may be sent.
struct Deadline<'a> {
    taken: &'a Taken,
    expires: Expires,
}

impl Deadline<'_> {
    /// The rest of its life; none: it is over.
    fn rest(&self) -> Option<Duration> {
        let rest = match self.expires {
            Expires::In(life) => life.checked_sub(self.taken.at.0.elapsed()),
            Expires::At(at) => Duration::try_from(at.duration_since(clock::now())).ok(),
        };
        rest.filter(|rest| !rest.is_zero())
    }
}

/// What becomes of a command; none: it is no more this process's.
async fn attempt(
    pool: &Pool,
    tools: &Tools,
    waiting: &Arc<Semaphore>,
    command: &Command,
    taken: &mut Taken,
) -> Option<Outcome> {
    let live = tools.current.load_full();
    let settings = &live.settings.commands;
    let expires = command.expires.unwrap_or(Expires::In(settings.expiry));
    let late = |taken: &Taken| Deadline { taken, expires }.rest().is_none();
    let expired = |taken: &Taken| {
        Some(dead(tools, taken, Some(command), "expired", "its life was over before it could be sent", None))
    };
    if late(taken) {
        return expired(taken);
    }
    let failed = |taken: &Taken, reason: &str, by| Some(dead(tools, taken, Some(command), "failed", reason, by));
    let payload = match &live.validator {
        None => command.payload(),
        Some(validator) => {
            let guest = GuestCommand {
                target: command.target.clone(),
                name: command.name.clone(),
                payload: command.payload(),
                message_id: command.message_id.clone(),
            };
            let by = Some((validator.name(), validator.version()));
            match pool.validate(validator, &guest).await {
                Ok(Ok(payload)) => payload,
                Ok(Err(Failure::Reject(reason))) => {
                    return Some(dead(tools, taken, Some(command), "rejected", &reason, by));
                }
                Ok(Err(Failure::Retry(reason))) => return failed(taken, &reason, by),
                Err(fault) => return failed(taken, &format!("the plugin {fault}"), by),
            }
        }
    };
    let body = match command.body(&payload) {
        Ok(body) => body,
        Err(error) => return failed(taken, &format!("the validator's payload is {error}"), None),
    };
    let topic = settings.topic.fill(&command.target);
    let began = Instant::now();
    let mut backoff = Backoff::for_messages();
    let mut noted = false;
    loop {
        let Some(rest) = (Deadline { taken, expires }).rest() else {
            // Without the lease it is not this process's to judge.
            if tools.held.tenure() != Some(taken.tenure) {
                return None;
            }
            return if noted { no_subscriber(tools, taken, command) } else { expired(taken) };
        };
        // Whoever is paused past its lease finds here that the commands are another's.
        let ready = async { tools.publisher.connected().await && tools.held.held().await == taken.tenure };
        tokio::select! {
            // What is not sent when the gateway ends stands in the processing list.
            () = tools.stop.cancelled() => return None,
            ready = timeout(rest, ready) => match ready {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) => continue,
            },
        }
        let Some(rest) = (Deadline { taken, expires }).rest() else { continue };
        if tools.held.tenure() != Some(taken.tenure) {
            continue;
        }
        let life = u32::try_from(rest.as_secs()).unwrap_or(u32::MAX).max(1);
        match tools.publisher.publish(topic.clone(), body.clone(), life).await {
            Answer::Delivered => return Some(Outcome { status: "sent", reason: None, dead: None }),
            Answer::Refused(reason) => return failed(taken, &reason, None),
            Answer::Gone => return None,
            Answer::NoSubscriber => {
                if began.elapsed() >= settings.wait_for_subscriber {
                    return no_subscriber(tools, taken, command);
                }
                if !std::mem::replace(&mut noted, true) {
                    let outcome = plain("waiting", "nobody is subscribed to the machine's topic; trying again");
                    let note = Told::Note(command.target.clone(), command.message_id.clone(), outcome);
                    let _ = tools.told.send(note).await;
                    if let Ok(permit) = waiting.clone().try_acquire_owned() {
                        taken.permit = permit;
                    }
                }
            }
            // It may or may not have the message, so it is sent again (at least once), as long as it lives.
            Answer::Busy(_) | Answer::Unknown => {}
        }
        tokio::select! {
            () = tools.stop.cancelled() => return None,
            () = sleep(backoff.next(clock::chance()).min(rest)) => {}
        }
    }
}

fn no_subscriber(tools: &Tools, taken: &Taken, command: &Command) -> Option<Outcome> {
    let reason = "nobody was subscribed to the machine's topic (commands.wait_for_subscriber)";
    Some(dead(tools, taken, Some(command), "no-subscriber", reason, None))
}

fn plain(status: &'static str, reason: &str) -> Outcome {
    Outcome { status, reason: Some(reason.to_owned()), dead: None }
}

fn dead(
    tools: &Tools,
    taken: &Taken,
    command: Option<&Command>,
    status: &'static str,
    reason: &str,
    by: Option<(&str, &str)>,
) -> Outcome {
    let (payload, payload_base64) = text_or_base64(&taken.raw);
    let live = tools.current.load();
    let topic = command.map(|command| live.settings.commands.topic.fill(&command.target));
    let letter = DeadLetter {
        kind: Kind::Command,
        reason: reason.into(),
        route: None,
        topic: topic.map(Into::into),
        serial_no: command.map(|command| command.target.as_str().into()),
        plugin: by.map(|(plugin, _)| plugin.into()),
        plugin_version: by.map(|(_, version)| version.into()),
        attempts: u32::from(by.is_some()),
        received_at: clock::rfc3339(taken.at.1, live.zone()).into(),
        dead_at: Some(clock::rfc3339(clock::now(), live.zone()).into()),
        properties: Vec::new(),
        payload: payload.map(Into::into),
        payload_base64: payload_base64.map(Into::into),
    };
    // The reason may quote the payload, which is never logged above `debug`.
    tracing::info!(outcome = status, "a command goes to the dead letters");
    tracing::debug!(reason, "why a command goes to the dead letters");
    Outcome { status, reason: Some(reason.to_owned()), dead: Some(letter.to_json().into()) }
}
