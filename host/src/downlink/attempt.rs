//! One command's way: validated in the sandbox, published, until it is known what became of it.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::time::Duration;

use sluicegate_core::backoff::Backoff;
use sluicegate_core::command::{Command, Expires};
use sluicegate_core::dead_letter::{DeadLetter, Kind, text_or_base64};
use sluicegate_core::dispatch::{Now, Turn, turn};
use sluicegate_core::fault::Fault;
use sluicegate_core::lease::Standing;
use sluicegate_core::message::{Failure, GuestCommand};
use sluicegate_core::settings::Commands;
use tokio::time::sleep;

use super::machines::Machines;
use super::settle::{Outcome, Told};
use super::take::Taken;
use super::work::Tools;
use crate::live::Live;
use crate::mqtt::publish::{Answer, Publish};
use crate::sandbox::Pool;
use crate::telemetry::clock;

/// How often a command is validated that fails in a way that may pass.
const VALIDATIONS: u32 = 3;

/// Where all commands are worked on.
pub(super) struct Bench {
    pool: Pool,
    tools: Tools,
    /// Never borrowed across a wait.
    machines: RefCell<Machines>,
}

impl Bench {
    pub(super) fn new(tools: Tools) -> Self {
        Self { pool: Pool::new(), tools, machines: RefCell::new(Machines::new()) }
    }

    pub(super) fn machines(&self) -> RefMut<'_, Machines> {
        self.machines.borrow_mut()
    }

    /// Where another snapshot is live than that of this number, instances of builds that it does not have go.
    pub(super) fn serve_what_is_live(&self, number: &mut u64) {
        let live = self.tools.current.load();
        if live.number != *number {
            *number = live.number;
            self.pool.retain(|generation| live.serves(generation));
        }
    }

    /// Works a command to its end; gives its machine.
    pub(super) async fn work(self: Rc<Self>, mut taken: Taken) -> String {
        let target = taken.target().to_owned();
        match self.outcome(&mut taken).await {
            // The settling ends after this thread.
            Some(outcome) => drop(self.tools.told.send(Told::Done(taken, outcome)).await),
            // It stands in a processing list: this instance's, or that of whoever took it over.
            None => self.tools.under_way.remove(&taken),
        }
        target
    }

    /// What becomes of a command; none: it is left where it stands.
    async fn outcome(&self, taken: &mut Taken) -> Option<Outcome> {
        let live = self.tools.current.load_full();
        let expires = match &taken.command {
            Ok(command) => command.expires.unwrap_or(Expires::In(live.settings.commands.expiry)),
            Err(_) => Expires::In(Duration::MAX),
        };
        match self.turn(taken, expires).await {
            Turn::Leave | Turn::Wait => return None,
            Turn::Expired => return Some(self.expired(taken)),
            Turn::Send(_) => {}
        }
        let outcome = match taken.command.clone() {
            Ok(_) if taken.duplicate => plain("duplicate", "a command with this message_id was sent already"),
            Ok(command) => self.attempt(&live, &command, expires, taken).await?,
            Err(error) => self.dead(taken, "rejected", &error.to_string(), None),
        };
        // What was sent was sent. Of all else it is this process's to say only while the command is.
        (outcome.was_sent() || self.is_ours(taken).await).then_some(outcome)
    }

    async fn is_ours(&self, taken: &Taken) -> bool {
        match self.tools.held.standing(taken.tenure) {
            Standing::InForce => true,
            Standing::Over => false,
            Standing::Unsure => self.unless_left(taken, self.tools.held.decided(taken.tenure)).await == Some(true),
        }
    }

    /// What is to be done with it at this instant.
    fn look(&self, taken: &Taken, expires: Expires) -> Turn {
        let rest = match expires {
            Expires::In(life) => life.checked_sub(taken.at.0.elapsed()),
            Expires::At(at) => Duration::try_from(at.duration_since(clock::now())).ok(),
        };
        turn(Now {
            stopping: self.tools.stop.is_cancelled(),
            standing: self.tools.held.standing(taken.tenure),
            rest: rest.filter(|rest| !rest.is_zero()),
        })
    }

    /// The same, once that is known.
    async fn turn(&self, taken: &Taken, expires: Expires) -> Turn {
        loop {
            match self.look(taken, expires) {
                Turn::Wait => {
                    let _ = self.unless_left(taken, self.tools.held.decided(taken.tenure)).await;
                }
                turn => return turn,
            }
        }
    }

    /// Waits for something; none: the command is to be left.
    async fn unless_left<T>(&self, taken: &Taken, awaited: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.tools.stop.cancelled() => None,
            () = self.tools.held.over(taken.tenure) => None,
            awaited = awaited => Some(awaited),
        }
    }

    async fn attempt(&self, live: &Live, command: &Command, expires: Expires, taken: &mut Taken) -> Option<Outcome> {
        let settings = &live.settings.commands;
        let payload = match live.validator(&command.target) {
            None => command.payload(),
            Some(validator) => {
                let guest = GuestCommand {
                    target: command.target.clone(),
                    name: command.name.clone(),
                    payload: command.payload(),
                    message_id: command.message_id.clone(),
                };
                self.tools.recent.note_command(&guest, clock::uptime());
                let mut backoff = Backoff::for_messages();
                let mut attempt = 1;
                loop {
                    let by = Some((validator.name(), validator.version(), attempt));
                    let reason = match self.pool.validate(validator, &guest).await {
                        Ok(Ok(payload)) => break payload,
                        Ok(Err(Failure::Reject(reason))) => return Some(self.dead(taken, "rejected", &reason, by)),
                        Ok(Err(Failure::Retry(reason))) => reason,
                        // Neither the command is wrong nor the plugin: it waits as long as it lives.
                        Err(Fault::State(reason)) => {
                            tracing::debug!(plugin = validator.name(), reason, "a validator could not have its state");
                            self.unless_left(taken, sleep(backoff.next(clock::chance()))).await?;
                            match self.turn(taken, expires).await {
                                Turn::Leave | Turn::Wait => return None,
                                Turn::Expired => return Some(self.expired(taken)),
                                Turn::Send(_) => continue,
                            }
                        }
                        Err(fault) => format!("the plugin {fault}"),
                    };
                    if attempt == VALIDATIONS {
                        return Some(self.dead(taken, "failed", &reason, by));
                    }
                    attempt += 1;
                    self.unless_left(taken, tokio::time::sleep(backoff.next(clock::chance()))).await?;
                }
            }
        };
        let body = match command.body(&payload) {
            Ok(body) => body,
            Err(error) => {
                return Some(self.dead(taken, "failed", &format!("the validator's payload is {error}"), None));
            }
        };
        let topic = settings.topic.fill(&command.target);
        let mut backoff = Backoff::for_messages();
        let mut noted = false;
        loop {
            let rest = match self.turn(taken, expires).await {
                Turn::Leave | Turn::Wait => return None,
                Turn::Expired if noted => {
                    let reason = "its life was over while nobody was subscribed to the machine's topic";
                    return Some(self.dead(taken, "no-subscriber", reason, None));
                }
                Turn::Expired => return Some(self.expired(taken)),
                Turn::Send(rest) => rest,
            };
            let place = self.unless_left(taken, tokio::time::timeout(rest, self.tools.publisher.place())).await;
            let Some(Ok(place)) = place else { continue };
            // Without a connection for ever, the gateway ends.
            let place = place?;
            // The last look, now that nothing is waited for before it is sent: whoever is paused past its lease, or the command's life,
            // finds it here.
            let Turn::Send(rest) = self.look(taken, expires) else { continue };
            let life = u32::try_from(rest.as_secs()).unwrap_or(u32::MAX).max(1);
            let publish = Publish { topic: topic.clone(), body: body.clone(), retain: false, expiry: Some(life) };
            match place.publish(publish).await {
                Answer::Delivered => {
                    self.machines().reached(&command.target);
                    return Some(Outcome { status: "sent", reason: None, dead: None });
                }
                Answer::Refused(reason) => return Some(self.dead(taken, "failed", &reason, None)),
                Answer::NoSubscriber => {
                    if self.waited(taken, settings) {
                        return Some(self.no_subscriber(taken));
                    }
                    if !std::mem::replace(&mut noted, true) {
                        let outcome = plain("waiting", "nobody is subscribed to the machine's topic; trying again");
                        let note = Told::Note(command.target.clone(), command.message_id.clone(), outcome);
                        let _ = self.tools.told.send(note).await;
                    }
                }
                // It may or may not have the message, so it is sent again (at least once), as long as it lives.
                Answer::Busy(_) | Answer::Unknown => {}
            }
            let _ = self.unless_left(taken, sleep(backoff.next(clock::chance()).min(rest))).await;
        }
    }

    /// Nobody is there: whether the command has waited for its machine for as long as it may.
    fn waited(&self, taken: &mut Taken, settings: &Commands) -> bool {
        let mut machines = self.machines();
        machines.nobody(taken);
        machines.waited(taken, settings.wait_for_subscriber)
    }

    fn expired(&self, taken: &Taken) -> Outcome {
        self.dead(taken, "expired", "its life was over before it could be sent", None)
    }

    fn no_subscriber(&self, taken: &Taken) -> Outcome {
        let reason = "nobody was subscribed to the machine's topic (commands.wait_for_subscriber)";
        self.dead(taken, "no-subscriber", reason, None)
    }

    fn dead(&self, taken: &Taken, status: &'static str, reason: &str, by: Option<(&str, &str, u32)>) -> Outcome {
        let command = taken.command.as_ref().ok();
        let (payload, payload_base64) = text_or_base64(&taken.raw);
        let live = self.tools.current.load();
        let topic = command.map(|command| live.settings.commands.topic.fill(&command.target));
        let letter = DeadLetter {
            kind: Kind::Command,
            reason: reason.into(),
            route: None,
            topic: topic.map(Into::into),
            serial_no: command.map(|command| command.target.as_str().into()),
            plugin: by.map(|(plugin, ..)| plugin.into()),
            plugin_version: by.map(|(_, version, _)| version.into()),
            attempts: by.map_or(0, |(.., attempt)| attempt),
            received_at: clock::rfc3339(taken.at.1, live.zone()).into(),
            dead_at: Some(clock::rfc3339(clock::now(), live.zone()).into()),
            properties: Vec::new(),
            payload: payload.map(Into::into),
            payload_base64: payload_base64.map(Into::into),
        };
        // The counter tells how many; the reason may quote the payload, which is never logged above `debug`.
        tracing::debug!(outcome = status, reason, "a command goes to the dead letters");
        Outcome { status, reason: Some(reason.to_owned()), dead: Some(letter.to_json().into()) }
    }
}

fn plain(status: &'static str, reason: &str) -> Outcome {
    Outcome { status, reason: Some(reason.to_owned()), dead: None }
}
