//! `sluicegate plugin diff`: two builds on the same messages, and what is different about their files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use serde::Deserialize as _;
use serde_json::{Value, json};
use sluicegate_core::command::Command;
use sluicegate_core::message::{GuestCommand, Message};
use sluicegate_core::route::Routes;
use sluicegate_core::settings::{Limits, Plugin, Settings};
use sluicegate_core::tried::{Tried, Written};
use sluicegate_samples::Sample;

use super::{ask, read, sandbox, wrong};
use crate::cli::client::Client;
use crate::cli::output::{Code, Failure, Output, terminal};
use crate::cli::{config, trial};
use crate::registry::load::File;
use crate::rehearsal::samples::sample;
use crate::rehearsal::shadow::both;
use crate::rehearsal::{Gathered, Report};
use crate::sandbox::grants;
use crate::sandbox::inspect::{self, Inspection};
use crate::sandbox::{Generation, Pool, World, block_on};
use crate::telemetry::clock;
use crate::whole::{self, Links};

/// The largest file of messages.
const MAX_MESSAGES: u64 = 64 << 20;
const HELP: &str = "sluicegate plugin diff --help";

#[derive(Args)]
pub(in crate::cli) struct Diff {
    /// The component that there is.
    old: PathBuf,
    /// The component that is to take its place.
    new: PathBuf,
    /// Which plugin of the settings they are builds of, for its settings and limits, and of the gateway; what OLD calls itself, unless given.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Beside the samples in both files: the last real messages that a running gateway gave this plugin (ADDRESS:PORT or http://…).
    #[arg(long, value_name = "URL", conflicts_with = "messages")]
    from_gateway: Option<String>,
    /// Beside the samples in both files: a file with a line `TOPIC PAYLOAD` for each message, as `sluicegate try` reads them; for a validator
    /// a command a line, as it stands in the list.
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
}

/// What is wrong with what was asked for, so that 1 always says that they differ.
fn unusable(failure: Failure) -> Failure {
    failure.with(Code::Usage)
}

/// One of the two builds.
struct Build {
    file: File,
    inspection: Inspection,
    generation: Arc<Generation>,
}

pub(super) fn diff(arguments: &Diff, config: Option<&Path>, output: &Output) -> Result<Code, Failure> {
    let settings = config::load(config)?.settings;
    let inspected = |path: &Path| {
        let file = read(path).map_err(unusable)?;
        let inspection = inspect::inspect(&file.bytes).map_err(|refusal| unusable(wrong(&refusal)))?;
        Ok((file, inspection))
    };
    let (old, new) = (inspected(&arguments.old)?, inspected(&arguments.new)?);
    if old.1.world != new.1.world {
        let message = format!("the one is a {}, the other a {}: they take different things", old.1.world, new.1.world);
        return Err(Failure::new(Code::Usage, message, "sluicegate plugin inspect FILE"));
    }
    let (name, plugin) = plugin(arguments.plugin.as_deref(), &old.1, &settings)?;
    let sandbox = sandbox(Some(&settings))?;
    let compiled = |(file, inspection): (File, Inspection), number| {
        let (own, limits) = plugin.map_or_else(Default::default, |plugin| (plugin.settings.clone(), plugin.limits));
        let limits = if plugin.is_some() { limits } else { Limits::default() };
        // What it may publish the settings say, where they know it; behind the rest there is nothing here.
        let mut grants = grants::for_a_trial();
        if let Some(plugin) = plugin {
            grants.publish.clone_from(&plugin.grants.publish);
        }
        let generation = sandbox.compile(&file.bytes, own, limits, &grants, &name, number);
        let generation = Arc::new(generation.map_err(|refusal| unusable(wrong(&refusal)))?);
        Ok(Build { file, inspection, generation })
    };
    let (old, new) = (compiled(old, 1)?, compiled(new, 2)?);
    let messages = match (&arguments.from_gateway, &arguments.messages) {
        (Some(url), _) => Some(asked(url, &name, old.inspection.world)?),
        (None, Some(file)) => Some(listed(file, old.inspection.world, &settings)?),
        (None, None) => None,
    };
    let (samples, messages) = block_on(compared(&old, &new, messages)).map_err(|refusal| wrong(&refusal))?;
    let imports = imports(&old.inspection, &new.inspection);
    let differ = |report: &Report| report.differing > 0;
    let same = imports.is_empty() && !differ(&samples) && !messages.as_ref().is_some_and(differ);
    let mut text = about(&old.inspection, &new.inspection, &imports);
    for (report, what) in [(Some(&samples), "samples"), (messages.as_ref(), "messages")] {
        let Some(report) = report else { continue };
        if report.messages == 0 {
            let _ = writeln!(text, "\nno {what}");
            continue;
        }
        let shown = report.text_of(what);
        let _ = write!(text, "\n{}", shown.lines().map(|line| format!("{}\n", terminal(line))).collect::<String>());
    }
    text.push_str(if same { "\nno difference\n" } else { "\nthey differ\n" });
    let build = |build: &Build| {
        let Inspection { manifest, world, imports, size, .. } = &build.inspection;
        json!({ "digest": build.file.digest.to_string(), "size": size, "manifest": manifest, "world": world, "imports": imports })
    };
    let data = json!({
        "same": same,
        "plugin": plugin.map(|_| &name),
        "old": build(&old),
        "new": build(&new),
        "samples": samples,
        "messages": messages,
    });
    let code = if same { Code::Good } else { Code::Wrong };
    let errors = if same { Vec::new() } else { vec!["the two builds differ".to_owned()] };
    Ok(output.verdict(code, &text, &data, &errors))
}

/// Whose settings count.
fn plugin<'s>(
    asked: Option<&str>,
    old: &Inspection,
    settings: &'s Settings,
) -> Result<(String, Option<&'s Plugin>), Failure> {
    let name = asked.unwrap_or(&old.manifest.name);
    let plugin = settings.plugins.get(name);
    if plugin.is_none() && asked.is_some() {
        let names: Vec<&str> = settings.plugins.keys().map(String::as_str).collect();
        let message = format!("the settings have no plugin `{}`; they have {}", name.escape_debug(), names.join(", "));
        return Err(Failure::new(Code::Usage, message, HELP));
    }
    Ok((name.to_owned(), plugin))
}

/// What a gateway gave the plugin last.
fn asked(url: &str, name: &str, world: World) -> Result<Vec<Tried>, Failure> {
    let client = Client::at(url)?.patient();
    let answer = client.get(&format!("{}/messages", ask::path(name)))?.good(&client).map_err(|failure| {
        failure.refused("sluicegate plugin list --address ADDRESS:PORT; --plugin NAME says which of its plugins it is")
    })?;
    let read = |one: &Value| Written::deserialize(one).ok().and_then(Written::read);
    let messages: Option<Vec<Tried>> = answer["messages"].as_array().into_iter().flatten().map(read).collect();
    let messages = messages.ok_or_else(|| client.unreachable("its messages are none that this version reads"))?;
    let fits = |tried: &Tried| matches!(tried, Tried::Message(_)) == (world == World::TopicHandler);
    if !messages.iter().all(fits) {
        let message = format!("the gateway's plugin `{}` is no {world}", name.escape_debug());
        return Err(Failure::new(Code::Usage, message, "--plugin NAME says which of its plugins they are builds of"));
    }
    Ok(messages)
}

/// What a file lists.
fn listed(path: &Path, world: World, settings: &Settings) -> Result<Vec<Tried>, Failure> {
    let cannot = |reason: String| {
        Failure::new(Code::Usage, format!("cannot read the messages of {}: {reason}", path.display()), HELP)
    };
    let bytes = whole::read(path, MAX_MESSAGES, Links::Followed).map_err(|error| cannot(error.to_string()))?;
    let routes = Routes::new(&settings.routes);
    let mut listed = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let Some((topic, payload)) = trial::message(line) else { continue };
        listed.push(match world {
            World::TopicHandler => Tried::Message(Arc::new(Message {
                // Where no route takes it, nothing in its topic has a name.
                captures: routes.find(&topic).map(|(_, captures)| captures).unwrap_or_default(),
                topic: topic.into_owned(),
                payload: Bytes::copy_from_slice(payload),
                properties: Vec::new(),
                received_at: clock::rfc3339_millis(clock::now(), settings.gateway.time_zone),
                id: format!("line {}", number + 1),
                attempt: 1,
            })),
            World::CommandValidator => {
                let command = Command::parse(Bytes::copy_from_slice(line.trim_ascii()))
                    .map_err(|error| cannot(format!("line {}: {error}", number + 1)))?;
                let payload = command.payload();
                let Command { target, name, message_id, .. } = command;
                Tried::Command(Arc::new(GuestCommand { target, name, payload, message_id }))
            }
        });
    }
    Ok(listed)
}

/// Both on the samples of both, then on the messages.
async fn compared(old: &Build, new: &Build, messages: Option<Vec<Tried>>) -> (Report, Option<Report>) {
    let (before, now) = (&old.generation, &new.generation);
    let digests = || (old.file.digest.to_string(), new.file.digest.to_string());
    let mut gathered = Gathered::default();
    let known = |one: &&Sample| {
        before.samples().iter().any(|other| (&other.input, &other.settings) == (&one.input, &one.settings))
    };
    for one in before.samples().iter().chain(now.samples().iter().filter(|one| !known(one))) {
        sample(&mut gathered, before, now, one).await;
    }
    let (of_old, of_new) = digests();
    let samples = gathered.report(of_old, of_new, None);
    let Some(messages) = messages else { return (samples, None) };
    let (mut gathered, pool) = (Gathered::default(), Pool::uncounted());
    let chains = ([before.clone()], [now.clone()]);
    for tried in &messages {
        both(&mut gathered, &pool, (&chains.0, &chains.1), tried).await;
    }
    let (of_old, of_new) = digests();
    (samples, Some(gathered.report(of_old, of_new, None)))
}

/// What the new one imports and the old one does not, and the other way round.
fn imports(old: &Inspection, new: &Inspection) -> Vec<String> {
    let only = |these: &Inspection, others: &Inspection, mark: char| -> Vec<String> {
        let own = these.imports.iter().filter(|import| !others.imports.contains(import));
        own.map(|import| format!("{mark} {import}")).collect()
    };
    [only(old, new, '-'), only(new, old, '+')].concat()
}

/// What the files say of themselves, where they do not say the same.
fn about(old: &Inspection, new: &Inspection, imports: &[String]) -> String {
    let mut text = String::new();
    let mut row = |what: &str, old: String, new: String| {
        let _ = if old == new {
            writeln!(text, "{what:<12} {}", terminal(&old))
        } else {
            writeln!(text, "{what:<12} {} -> {}", terminal(&old), terminal(&new))
        };
    };
    row("name", old.manifest.name.clone(), new.manifest.name.clone());
    row("version", old.manifest.version.clone(), new.manifest.version.clone());
    row("digest", old.digest.to_string(), new.digest.to_string());
    row("size", format!("{} bytes", old.size), format!("{} bytes", new.size));
    if imports.is_empty() {
        let all = if old.imports.is_empty() { "none".to_owned() } else { old.imports.join(", ") };
        row("imports", all.clone(), all);
    } else {
        text.push_str("imports\n");
        for line in imports {
            let _ = writeln!(text, "{}", terminal(line));
        }
    }
    text
}
