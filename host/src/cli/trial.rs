//! `sluicegate try`: which route takes a message, what each handler made of it, what would be pushed.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use sluicegate_core::message::{Field, Message, Output as Made, Publication, SerialNo};
use sluicegate_core::route::{Routes, SERIAL_NO};
use sluicegate_core::settings::{OnFailure, Route, Settings};
use tokio::runtime::Runtime;

use super::output::{Code, Failure, Output, terminal};
use super::{config, plugin};
use crate::registry::{self, load};
use crate::sandbox::{Generation, Pool, Sandbox};
use crate::telemetry::causes::with_causes;
use crate::telemetry::clock;
use crate::uplink::chain::{self, Reason, Watch};
use sluicegate_core::dead_letter::text_or_base64;

/// The longest message that is read from standard input.
const MAX_INPUT: u64 = 64 << 20;

pub(super) fn run(
    file: Option<&Path>,
    topic: Option<&str>,
    payload: Option<&str>,
    output: &Output,
) -> Result<Code, Failure> {
    let settings = config::load(file)?.settings;
    let mut bench = Bench::new(settings)?;
    let input = |error: std::io::Error| {
        Failure::new(Code::Usage, format!("cannot read standard input: {error}"), "sluicegate try --help")
    };
    let Some(topic) = topic else {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for line in std::io::stdin().lock().split(b'\n') {
            let line = line.map_err(input)?;
            let Some((topic, payload)) = message(&line) else { continue };
            let trial = bench.trial(&Publish::now(&topic, payload.to_vec()))?;
            if !trial.taken {
                errors.push(trial.reason.clone());
            }
            output.people(&trial.text);
            all.push(trial.data);
        }
        let code = if errors.is_empty() { Code::Good } else { Code::Wrong };
        return Ok(output.verdict(code, "", &Value::Array(all), &errors));
    };
    let payload = match payload {
        Some(payload) => payload.as_bytes().to_vec(),
        None => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut bytes).map_err(input)?;
            // `echo` and editors end a file with a newline that nobody means to send.
            if bytes.ends_with(b"\n") {
                bytes.pop();
            }
            bytes
        }
    };
    let trial = bench.trial(&Publish::now(topic, payload))?;
    let (code, errors) = if trial.taken { (Code::Good, Vec::new()) } else { (Code::Wrong, vec![trial.reason.clone()]) };
    Ok(output.verdict(code, &trial.text, &trial.data, &errors))
}

/// A line `TOPIC PAYLOAD`; a payload may be any bytes. None: it is empty.
pub(super) fn message(line: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.trim_ascii().is_empty() {
        return None;
    }
    let (topic, payload) = match line.iter().position(|byte| *byte == b' ') {
        Some(space) => (&line[..space], &line[space + 1..]),
        None => (line, &line[..0]),
    };
    Some((String::from_utf8_lossy(topic), payload))
}

/// A message to try.
pub(super) struct Publish<'a> {
    pub topic: &'a str,
    pub payload: Vec<u8>,
    pub properties: Vec<Field>,
    pub received_at: Timestamp,
}

impl<'a> Publish<'a> {
    fn now(topic: &'a str, payload: Vec<u8>) -> Self {
        Self { topic, payload, properties: Vec::new(), received_at: clock::now() }
    }
}

/// What became of one message.
pub(super) struct Trial {
    pub taken: bool,
    pub reason: String,
    pub text: String,
    pub data: Value,
}

/// The plugins that trials needed so far.
pub(super) struct Bench {
    settings: Settings,
    routes: Routes,
    sandbox: Sandbox,
    runtime: Runtime,
    pool: Pool,
    loaded: HashMap<String, Arc<Generation>>,
}

impl Bench {
    pub(super) fn new(settings: Settings) -> Result<Self, Failure> {
        let wrong = |error: &(dyn std::error::Error + 'static)| Failure::new(Code::Wrong, with_causes(error), "");
        let sandbox = plugin::sandbox(Some(&settings))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|error| wrong(&error))?;
        let routes = Routes::new(&settings.routes);
        Ok(Self { settings, routes, sandbox, runtime, pool: Pool::uncounted(), loaded: HashMap::new() })
    }

    fn chain(&mut self, route: usize) -> Result<Vec<Arc<Generation>>, Failure> {
        let handlers = self.routes.get(route).route.handlers.clone();
        for wanted in registry::wanted(&self.settings) {
            if handlers.contains(&wanted.name) && !self.loaded.contains_key(&wanted.name) {
                let build = load::read(&wanted.plugin.path)
                    .and_then(|file| load::load(&self.sandbox, &wanted, &file, 1, |_| {}))
                    .map_err(|refusal| {
                        Failure::new(Code::Wrong, format!("plugin {}: {refusal}", wanted.name), "sluicegate check")
                    })?;
                self.loaded.insert(wanted.name, build.generation);
            }
        }
        Ok(handlers.iter().filter_map(|name| self.loaded.get(name).cloned()).collect())
    }

    pub(super) fn trial(&mut self, publish: &Publish<'_>) -> Result<Trial, Failure> {
        let (topic, at) = (publish.topic, publish.received_at);
        let mut steps = Steps::default();
        let _ = writeln!(steps.text, "topic     {}", topic.escape_debug());
        let Some((index, captures)) = self.routes.find(topic) else {
            return Ok(steps.end(
                false,
                "no route takes this topic: the gateway does not subscribe to it, and where it came all the same it would be a dead letter",
                json!({ "topic": topic }),
            ));
        };
        let name = self.routes.get(index).route.name.clone();
        let _ = writeln!(steps.text, "route     {name}");
        let serial_no = captures.iter().find(|field| field.name == SERIAL_NO).map_or("", |field| field.value.as_str());
        if let Err(error) = SerialNo::new(serial_no) {
            let reason = format!("{error}; it would be a dead letter");
            return Ok(steps.end(false, &reason, json!({ "topic": topic, "route": name })));
        }
        let serial_no = serial_no.to_owned();
        let chain = self.chain(index)?;
        let zone = self.settings.gateway.time_zone;
        let message = Message {
            topic: topic.to_owned(),
            captures,
            payload: publish.payload.clone().into(),
            properties: publish.properties.clone(),
            received_at: clock::rfc3339_millis(at, zone),
            id: "try".to_owned(),
            attempt: 1,
        };
        for generation in chain.iter().filter(|generation| generation.calls_servers()) {
            let name = generation.name();
            let _ = writeln!(
                steps.text,
                "note      {name} calls servers (grants.http); in a trial it reaches none, and is told so"
            );
        }
        let kept = Cell::new(false);
        let made = self.runtime.block_on(chain::run(&self.pool, &chain, message, &kept, &mut steps));
        let prepared = self.routes.get(index);
        let handlers = std::mem::take(&mut steps.handlers);
        let data = |published: &[Value], envelopes: &[Value]| {
            let queue = &prepared.route.queue;
            json!({ "topic": topic, "route": name, "handlers": handlers, "queue": queue, "published": published, "pushed": envelopes })
        };
        match made {
            chain::Made::Failed(failed) => {
                let reason = format!("{}; {}", failed.reason, fate(&failed.reason, &prepared.route));
                Ok(steps.end(false, &reason, data(&[], &[])))
            }
            chain::Made::Outputs { jobs, publications } => {
                let mut published = Vec::new();
                for (_, publication) in publications {
                    let Publication { topic, payload, retain } = &publication;
                    let text = shown(payload);
                    let retained = if *retain { " (retained)" } else { "" };
                    let _ = writeln!(steps.text, "publish   {}{retained} {}", topic.escape_debug(), terminal(&text));
                    published.push(json!({ "topic": topic, "payload": text, "retain": retain }));
                }
                if jobs.is_empty() {
                    let result = if published.is_empty() { "dropped on purpose" } else { "no job" };
                    let _ = writeln!(steps.text, "result    {result}");
                }
                let mut envelopes = Vec::new();
                for job in jobs {
                    let envelope = prepared.envelope.write(&serial_no, &job.payload, &clock::rfc3339(at, zone));
                    let envelope = String::from_utf8_lossy(&envelope).into_owned();
                    let _ = writeln!(steps.text, "{:<9} {}", prepared.route.queue, terminal(&envelope));
                    if let Some(key) = &job.idempotency_key {
                        let _ = writeln!(steps.text, "key       {}", terminal(key));
                    }
                    envelopes.push(json!({ "envelope": envelope, "idempotency_key": job.idempotency_key }));
                }
                Ok(steps.end(true, "", data(&published, &envelopes)))
            }
        }
    }
}

#[derive(Default)]
struct Steps {
    text: String,
    handlers: Vec<Value>,
}

impl Steps {
    fn end(mut self, taken: bool, reason: &str, mut data: Value) -> Trial {
        if !taken {
            let _ = writeln!(self.text, "refused   {}", terminal(reason));
            data["refused"] = reason.into();
        }
        Trial { taken, reason: reason.to_owned(), text: self.text, data }
    }
}

impl Watch for Steps {
    fn handler(&mut self, generation: &Generation, answer: Result<&[Made], String>) {
        let shown = match &answer {
            Ok([]) => "nothing".to_owned(),
            Ok(outputs) => outputs.iter().map(show).collect::<Vec<_>>().join(", "),
            Err(reason) => format!("refuses: {reason}"),
        };
        let (name, version) = (generation.name(), generation.version());
        let _ = writeln!(self.text, "handler   {name} {version}: {}", terminal(&shown));
        self.handlers.push(json!({ "plugin": generation.name(), "version": generation.version(), "answer": shown }));
    }
}

/// What would become of a message that failed so.
fn fate(reason: &Reason, route: &Route) -> String {
    if !reason.may_pass() {
        return "it would be a dead letter".to_owned();
    }
    let end = match route.on_failure {
        OnFailure::DeadLetter => "it would be a dead letter",
        OnFailure::Drop => "it would be dropped",
        OnFailure::Block => return "it would be tried again for ever, and its machine would wait".to_owned(),
        OnFailure::PassThrough => "it would be pushed as it came",
    };
    format!("it would be tried {} times, then {end}", route.attempts)
}

fn show(output: &Made) -> String {
    match output {
        Made::Job(job) => shown(&job.payload),
        Made::Publish(publication) => {
            format!("publishes on {}: {}", publication.topic.escape_debug(), shown(&publication.payload))
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    match text_or_base64(bytes) {
        (Some(text), _) => text.to_owned(),
        (None, base64) => base64.unwrap_or_default(),
    }
}
