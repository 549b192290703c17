//! `sluicegate dead-letters …`: asked of the gateway that runs.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use sluicegate_core::dead_letter::{DeadLetter, Filter, Kind, LetterId};
use sluicegate_core::message::Field;
use sluicegate_core::settings::parse_duration;

use super::client::Client;
use super::config;
use super::output::{Code, Failure, Output, terminal};
use super::plugin;
use super::trial::{Bench, Publish};
use crate::telemetry::clock;

/// How often a replay is looked at.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Subcommand)]
pub(super) enum DeadLettersCommand {
    /// The newest of them, or how many there are of each kind.
    List {
        #[command(flatten)]
        selection: Selection,
        /// So many at the most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Counts them by what they have in common.
        #[arg(long, value_name = "WHAT", value_parser = ["reason", "route", "machine", "plugin"])]
        by: Option<String>,
    },
    /// One of them, whole.
    Show {
        /// As the list names it.
        #[arg(value_parser = id)]
        id: LetterId,
    },
    /// Handles them again: messages by the plugins that are live, commands from their list. One leaves the dead letters once its
    /// outcome is durable.
    Replay {
        #[command(flatten)]
        change: Change,
        /// So many a second at the most.
        #[arg(long, default_value = "100")]
        rate: NonZeroU32,
        /// Shows what another build would make of them, with the settings here; nothing is sent. Of the plugin NAME, or else of
        /// the one that the file says it is.
        #[arg(long, value_name = "[NAME=]FILE")]
        plugin: Option<String>,
    },
    /// Drops them for good.
    Drop {
        #[command(flatten)]
        change: Change,
    },
}

/// Which letters are meant.
#[derive(Args)]
pub(super) struct Selection {
    /// This one (may be said several times).
    #[arg(long, value_parser = id)]
    id: Vec<LetterId>,
    /// Of this route.
    #[arg(long)]
    route: Option<String>,
    /// Of this machine (its serial number).
    #[arg(long)]
    machine: Option<String>,
    /// Whose reason contains this, whatever the case of its letters.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Given up since then: `2h`, or a time such as 2026-04-14T09:00:00+08:00.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
}

#[derive(Args)]
pub(super) struct Change {
    #[command(flatten)]
    selection: Selection,
    /// All of them.
    #[arg(long)]
    all: bool,
    /// Only says which.
    #[arg(long)]
    dry_run: bool,
}

fn id(text: &str) -> Result<LetterId, String> {
    LetterId::parse(text)
        .ok_or_else(|| "an id is 16 hexadecimal digits; `sluicegate dead-letters list` shows them".into())
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Some(span) = parse_duration(text) {
        return clock::now().checked_sub(span).map_err(|error| error.to_string());
    }
    text.parse().map_err(|_| "neither a duration such as 2h nor a time such as 2026-04-14T09:00:00+08:00".to_owned())
}

impl Selection {
    fn filter(&self) -> Filter {
        Filter {
            ids: self.id.clone(),
            route: self.route.clone(),
            machine: self.machine.clone(),
            reason: self.reason.clone(),
            since: self.since,
        }
    }

    /// As a query of the admin server.
    fn query(&self) -> Vec<(&'static str, String)> {
        let ids: Vec<String> = self.id.iter().map(ToString::to_string).collect();
        [
            ("id", (!ids.is_empty()).then(|| ids.join(","))),
            ("route", self.route.clone()),
            ("machine", self.machine.clone()),
            ("reason", self.reason.clone()),
            ("since", self.since.map(|since| since.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

pub(super) fn run(
    command: &DeadLettersCommand,
    file: Option<&Path>,
    client: Client,
    output: &Output,
) -> Result<Code, Failure> {
    let desk = DeskClient(client.patient());
    match command {
        DeadLettersCommand::List { selection, by: Some(by), .. } => desk.count(selection, by, output),
        DeadLettersCommand::List { selection, limit, by: None } => {
            let listed = desk.list(selection, *limit, false)?;
            Ok(output.good(&table(&listed), &listed))
        }
        DeadLettersCommand::Show { id } => {
            let letter = desk.0.get(&format!("/api/dead-letters/{id}"))?.good(&desk.0)?;
            Ok(output.good(&format!("{letter:#}\n"), &letter))
        }
        DeadLettersCommand::Replay { change, rate, plugin } => {
            change.check("replay")?;
            match plugin {
                Some(plugin) => desk.try_out(change, plugin, file, output),
                None if change.dry_run => desk.preview(change, "would be replayed", output),
                None => desk.replay(change, *rate, output),
            }
        }
        DeadLettersCommand::Drop { change } => {
            change.check("drop")?;
            if change.dry_run {
                return desk.preview(change, "would be dropped", output);
            }
            let answer = desk.0.post("/api/dead-letters/drop", &change.body())?.good(&desk.0)?;
            Ok(output.good(&format!("{} dropped\n", answer["dropped"]), &answer))
        }
    }
}

impl Change {
    /// Nobody changes all of them by leaving something out.
    fn check(&self, what: &str) -> Result<(), Failure> {
        if self.selection.filter().is_empty() == self.all {
            return Ok(());
        }
        let message = if self.all { "--all and a filter exclude each other" } else { "say which ones, or --all" };
        Err(Failure::new(Code::Usage, message, format!("sluicegate dead-letters {what} --help")))
    }

    fn body(&self) -> Value {
        json!({ "filter": self.selection.filter(), "all": self.all })
    }
}

/// The desk of the gateway that runs.
struct DeskClient(Client);

impl DeskClient {
    fn list(&self, selection: &Selection, limit: usize, payload: bool) -> Result<Value, Failure> {
        let mut query = selection.query();
        query.extend([("limit", limit.to_string()), ("payload", payload.to_string())]);
        self.0.get(&path(&query))?.good(&self.0)
    }

    fn count(&self, selection: &Selection, by: &str, output: &Output) -> Result<Code, Failure> {
        let mut query = selection.query();
        query.push(("by", by.to_owned()));
        let counted = self.0.get(&path(&query))?.good(&self.0)?;
        let mut text = String::new();
        for count in counted["counts"].as_array().into_iter().flatten() {
            let value = count["value"].as_str().unwrap_or("(none)");
            let _ = writeln!(text, "{:>8}  {}", count["letters"].as_u64().unwrap_or(0), terminal(value));
        }
        Ok(output.good(&text, &counted))
    }

    fn preview(&self, change: &Change, what: &str, output: &Output) -> Result<Code, Failure> {
        let listed = self.list(&change.selection, 50, false)?;
        let text = format!("{}{} {what}; nothing was done\n", table(&listed), listed["matched"]);
        Ok(output.good(&text, &listed))
    }

    fn replay(&self, change: &Change, rate: NonZeroU32, output: &Output) -> Result<Code, Failure> {
        let mut body = change.body();
        body["rate"] = json!(rate);
        let mut progress = self.0.post("/api/dead-letters/replay", &body)?.good(&self.0)?;
        let mut bar = std::io::stderr();
        let shown = bar.is_terminal();
        while progress["running"] == true {
            if shown {
                let done = progress["replayed"].as_u64().unwrap_or(0) + progress["dead_again"].as_u64().unwrap_or(0);
                let _ = write!(bar, "\r{done} of {} done", progress["matched"]);
            }
            std::thread::sleep(LOOK);
            progress = self.0.get("/api/dead-letters/replay")?.good(&self.0)?;
        }
        if shown {
            let _ = write!(bar, "\r");
        }
        let Value::Object(fields) = &progress else { return Ok(output.good("", &progress)) };
        let number = |name: &str| fields.get(name).and_then(Value::as_u64).unwrap_or(0);
        let mut text = format!("{} of {} replayed\n", number("replayed"), number("matched"));
        let mut errors = Vec::new();
        if number("dead_again") > 0 {
            errors.push(format!(
                "{} are dead letters again; `sluicegate dead-letters list` says why",
                number("dead_again")
            ));
        }
        if number("left") > 0 {
            errors.push(format!(
                "{} are left: they cannot be read, no route takes them, or the replay ended early",
                number("left")
            ));
        }
        errors.extend(progress["error"].as_str().map(str::to_owned));
        errors.iter().for_each(|error| text.push_str(&format!("wrong   {error}\n")));
        let code = if errors.is_empty() { Code::Good } else { Code::Wrong };
        Ok(output.verdict(code, &text, &progress, &errors))
    }

    /// What another build would make of them.
    fn try_out(&self, change: &Change, plugin: &str, file: Option<&Path>, output: &Output) -> Result<Code, Failure> {
        let mut settings = config::load(file)?.settings;
        let (name, plugin) = match plugin.split_once('=') {
            Some((name, plugin)) => (name.to_owned(), Path::new(plugin)),
            None => (plugin::inspected(Path::new(plugin))?.manifest.name, Path::new(plugin)),
        };
        let Some(replaced) = settings.plugins.get_mut(&name) else {
            let message =
                format!("the settings have no plugin `{name}`, which {} would be a build of", plugin.display());
            return Err(Failure::new(Code::Wrong, message, "sluicegate config show"));
        };
        replaced.path = plugin.to_owned();
        replaced.digest = None;
        let mut bench = Bench::new(settings)?;
        let listed = self.list(&change.selection, usize::MAX, true)?;
        let (mut tried, mut errors, mut skipped) = (Vec::new(), Vec::new(), 0);
        for letter in listed["letters"].as_array().into_iter().flatten() {
            let id = letter["id"].as_str().unwrap_or_default();
            let text = letter.to_string();
            let read = DeadLetter::from_json(text.as_bytes()).ok();
            let publish = read.as_ref().and_then(publish);
            let Some(publish) = publish else {
                output.people(&format!("letter    {id}\nskipped   only messages can be tried, and this is none\n"));
                skipped += 1;
                continue;
            };
            let trial = bench.trial(&publish)?;
            output.people(&format!("letter    {id}\n{}", trial.text));
            if !trial.taken {
                errors.push(format!("{id}: {}", trial.reason));
            }
            let mut data = trial.data;
            data["id"] = json!(id);
            tried.push(data);
        }
        let (all, matched) = (tried.len() as u64, listed["matched"].as_u64().unwrap_or(0));
        let mut text = format!("{} of {all} would be taken; nothing was sent\n", all - errors.len() as u64);
        if all + skipped < matched {
            let _ = writeln!(text, "note      {matched} are meant; the newest that fit into one answer were tried");
        }
        let code = if errors.is_empty() { Code::Good } else { Code::Wrong };
        Ok(output.verdict(code, &text, &Value::Array(tried), &errors))
    }
}

/// What was published; none: it was no message, or cannot be read.
fn publish<'a>(letter: &'a DeadLetter<'_>) -> Option<Publish<'a>> {
    let properties = letter.properties.iter();
    let properties = properties.map(|(name, value)| Field { name: name.to_string(), value: value.to_string() });
    Some(Publish {
        topic: letter.topic.as_deref().filter(|_| letter.kind == Kind::Message)?,
        payload: letter.bytes()?,
        properties: properties.collect(),
        received_at: letter.received_at.parse().ok()?,
    })
}

fn path(query: &[(&str, String)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("/api/dead-letters?{query}")
}

/// What a machine sent stands here: nothing of it reaches the terminal unescaped.
fn table(listed: &Value) -> String {
    let mut text = String::new();
    let letters = listed["letters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let cell = |value: &Value| terminal(value.as_str().unwrap_or("-"));
    for letter in letters {
        let at = if letter["dead_at"].is_string() { &letter["dead_at"] } else { &letter["received_at"] };
        let who = if letter["kind"] == "command" { "command".to_owned() } else { cell(&letter["route"]) };
        let _ = writeln!(
            text,
            "{}  {}  {who}  {}  {}",
            cell(&letter["id"]),
            cell(at),
            cell(&letter["serial_no"]),
            cell(&letter["reason"])
        );
    }
    let _ = writeln!(text, "{} shown, {} meant, {} in all", letters.len(), listed["matched"], listed["total"]);
    text
}
