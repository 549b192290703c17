//! Each command is parsed, validated in the sandbox and published; one machine's commands one after another. It runs on a
//! thread of its own, since it runs guests.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sluicegate_core::command::Command;
use sluicegate_core::dead_letter::{DeadLetter, Kind};
use sluicegate_core::message::{Failure, GuestCommand};
use sluicegate_core::order::Lanes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::settle::{Outcome, Settled};
use super::take::Taken;
use crate::live::Current;
use crate::mqtt::publish::{Answer, Publisher};
use crate::redis::push::Push;
use crate::sandbox::Pool;
use crate::telemetry::clock;
use crate::uplink::letter::text_or_base64;

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
    pub settled: mpsc::Sender<Settled>,
    /// The whole key of the dead letters.
    pub dead_letters: Arc<str>,
}

impl Worker {
    /// Starts the thread; it ends when every sender of `taken` is gone and what was taken is settled, or at `abandon`: what
    /// is not settled then stands in the processing list.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn spawn(taken: mpsc::Receiver<Taken>, tools: Tools, abandon: CancellationToken) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new().name("commands".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = run(taken, tools) => {}
                    () = abandon.cancelled() => {}
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

struct Parsed {
    command: Command,
    taken: Taken,
}

async fn run(mut taken: mpsc::Receiver<Taken>, tools: Tools) {
    let pool = Rc::new(Pool::new());
    let mut machines: Lanes<String, Parsed> = Lanes::default();
    let mut under_way = FuturesUnordered::new();
    let mut number = 0;
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            Some(target) = under_way.next() => {
                if let Some(next) = machines.leave(&target) {
                    under_way.push(send(pool.clone(), tools.clone(), next));
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
                match Command::parse(taken.raw.clone()) {
                    Ok(command) => {
                        if let Some(first) = machines.enter(command.target.clone(), Parsed { command, taken }) {
                            under_way.push(send(pool.clone(), tools.clone(), first));
                        }
                    }
                    Err(error) => {
                        let outcome = dead(&tools, &taken, "rejected", &error.to_string(), None);
                        settle(&tools, taken, outcome).await;
                    }
                }
            }
        }
    }
}

async fn send(pool: Rc<Pool>, tools: Tools, Parsed { command, taken }: Parsed) -> String {
    let outcome = attempt(&pool, &tools, &command, &taken).await;
    settle(&tools, taken, outcome).await;
    command.target
}

async fn attempt(pool: &Pool, tools: &Tools, command: &Command, taken: &Taken) -> Outcome {
    let live = tools.current.load_full();
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
                Ok(Err(Failure::Reject(reason))) => return dead(tools, taken, "rejected", &reason, by),
                Ok(Err(Failure::Retry(reason))) => return dead(tools, taken, "failed", &reason, by),
                Err(fault) => return dead(tools, taken, "failed", &format!("the plugin {fault}"), by),
            }
        }
    };
    let body = match command.body(&payload) {
        Ok(body) => body,
        Err(error) => return dead(tools, taken, "failed", &format!("the validator's payload is {error}"), None),
    };
    let topic = live.settings.commands.topic.fill(&command.target);
    loop {
        match tools.publisher.publish(topic.clone(), body.clone()).await {
            Answer::Delivered => return Outcome { name: "sent", dead: None },
            Answer::NoSubscriber => return Outcome { name: "no_subscriber", dead: None },
            Answer::Refused(reason) => return dead(tools, taken, "failed", &reason, None),
            // The broker lost the session: it may or may not have the message, so it is sent again (at least once). This
            // happens once a connection, and connections have a back-off of their own.
            Answer::Unknown => {}
        }
    }
}

async fn settle(tools: &Tools, taken: Taken, outcome: Outcome) {
    // The settling ends after this thread.
    let _ = tools.settled.send(Settled { taken, outcome }).await;
}

fn dead(tools: &Tools, taken: &Taken, name: &'static str, reason: &str, by: Option<(&str, &str)>) -> Outcome {
    let (payload, payload_base64) = text_or_base64(&taken.raw);
    let zone = tools.current.load().settings.gateway.time_zone;
    let letter = DeadLetter {
        kind: Kind::Command,
        reason,
        route: None,
        topic: None,
        serial_no: None,
        plugin: by.map(|(plugin, _)| plugin),
        plugin_version: by.map(|(_, version)| version),
        attempts: u32::from(by.is_some()),
        received_at: &clock::rfc3339(clock::now(), zone),
        payload,
        payload_base64,
    };
    // The reason may quote the payload, which is never logged above `debug`.
    tracing::info!(outcome = name, "a command goes to the dead letters");
    tracing::debug!(reason, "why a command goes to the dead letters");
    let push = Push { key: tools.dead_letters.clone(), value: letter.to_json().into() };
    Outcome { name, dead: Some(push) }
}
