//! `sluicegate-backend dead-letters …`: asked of Redis, beside whatever runs.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use sluicegate_core::dead_letter::{LetterId, text_or_base64};
use sluicegate_core::settings::parse_duration;
use sluicegate_core::text::terminal;

use super::output::{Code, Failure, Output};
use crate::clock;
use crate::domain::letter::{Filter, Letter};
use crate::redis::connect::RedisFault;
use crate::redis::letters::Letters;
use crate::service::Clients;
use crate::settings::Settings;

/// Letters read at once.
const PAGE: u64 = 200;

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
        #[arg(long, value_name = "WHAT", value_parser = ["reason", "type", "machine"])]
        by: Option<String>,
    },
    /// One of them, whole.
    Show {
        /// As the list names it.
        #[arg(value_parser = id)]
        id: LetterId,
    },
    /// Puts their jobs back into the list that they came from, behind what waits there. One leaves the dead letters in the same step.
    Replay {
        #[command(flatten)]
        change: Change,
        /// So many a second at the most.
        #[arg(long, default_value = "100")]
        rate: NonZeroU32,
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
    /// Of this `type`.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
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
        .ok_or_else(|| "an id is 16 hexadecimal digits; `sluicegate-backend dead-letters list` shows them".into())
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
            kind: self.kind.clone(),
            machine: self.machine.clone(),
            reason: self.reason.clone(),
            since: self.since,
        }
    }
}

impl Change {
    /// Nobody changes all of them by leaving something out.
    fn filter(&self, what: &str) -> Result<Filter, Failure> {
        let filter = self.selection.filter();
        if filter.is_empty() == self.all {
            return Ok(filter);
        }
        let message = if self.all { "--all and a filter exclude each other" } else { "say which ones, or --all" };
        Err(Failure::new(Code::Usage, message, format!("sluicegate-backend dead-letters {what} --help")))
    }
}

pub(super) async fn run(settings: &Settings, command: &DeadLettersCommand, output: &Output) -> Result<Code, Failure> {
    let clients = Clients::new(settings)?;
    let key = |name: &str| format!("{}{name}", settings.redis.key_prefix);
    let letters = Letters::new(clients.redis.clone(), key(&settings.queues.dead_letters));
    // What a letter says of its list is others' word: it goes to none but those that this program takes from.
    let mut lists = vec![key(&settings.queues.incoming)];
    lists.extend(settings.queues.command_results.as_deref().map(key));
    let mut desk = Desk { letters, lists };
    match command {
        DeadLettersCommand::List { selection, by: Some(by), .. } => {
            let counted = desk.count(&selection.filter(), by).await?;
            let mut text = String::new();
            for (value, letters) in &counted {
                let _ = writeln!(text, "{letters:>8}  {}", terminal(value));
            }
            let counts: Vec<Value> =
                counted.iter().map(|(value, letters)| json!({ "value": value, "letters": letters })).collect();
            Ok(output.good(&text, &json!({ "counts": counts })))
        }
        DeadLettersCommand::List { selection, limit, by: None } => {
            let listed = desk.list(&selection.filter(), *limit).await?;
            Ok(output.good(&table(&listed), &listed))
        }
        DeadLettersCommand::Show { id } => match desk.find(*id).await? {
            Some(letter) => Ok(output.good(&format!("{}\n", whole(&letter)), &letter)),
            None => {
                let message = format!("there is no dead letter `{id}`");
                Err(Failure::new(Code::Refused, message, "sluicegate-backend dead-letters list"))
            }
        },
        DeadLettersCommand::Replay { change, rate } => {
            let filter = change.filter("replay")?;
            if change.dry_run {
                return desk.preview(&filter, "would be put back", output).await;
            }
            let done = desk.change(&filter, Some(*rate)).await?;
            let mut text = format!("{} of {} put back\n", done.done, done.matched);
            let mut errors = Vec::new();
            if done.left > 0 {
                errors.push(format!(
                    "{} are left: they cannot be read, or came from a list that [queues] does not name",
                    done.left
                ));
            }
            errors.iter().for_each(|error| text.push_str(&format!("wrong   {error}\n")));
            let data = json!({ "matched": done.matched, "replayed": done.done, "left": done.left, "gone": done.gone });
            let code = if errors.is_empty() { Code::Good } else { Code::Wrong };
            Ok(output.verdict(code, &text, &data, &errors))
        }
        DeadLettersCommand::Drop { change } => {
            let filter = change.filter("drop")?;
            if change.dry_run {
                return desk.preview(&filter, "would be dropped", output).await;
            }
            let done = desk.change(&filter, None).await?;
            Ok(output.good(&format!("{} dropped\n", done.done), &json!({ "dropped": done.done, "gone": done.gone })))
        }
    }
}

struct Desk {
    letters: Letters,
    lists: Vec<String>,
}

/// What became of those that were meant.
#[derive(Debug, Default)]
struct Changed {
    matched: u64,
    done: u64,
    /// Another was faster.
    gone: u64,
    left: u64,
}

impl Desk {
    /// Looks at every letter that there is now, from the oldest; `take` says whether one was taken off the list. What dies meanwhile is not
    /// looked at, or a job that dies again would be put back for ever.
    async fn each(
        &mut self,
        filter: &Filter,
        mut take: impl AsyncFnMut(&mut Letters, LetterId, &Bytes, Option<&Letter<'_>>) -> Result<bool, RedisFault>,
    ) -> Result<u64, RedisFault> {
        let total = self.letters.length().await?;
        let (mut place, mut end) = (0, total);
        while place < end {
            let page = self.letters.page(place, PAGE.min(end - place)).await?;
            if page.is_empty() {
                break;
            }
            for entry in &page {
                let (id, letter) = (LetterId::of(entry), Letter::from_json(entry).ok());
                let taken =
                    filter.matches(id, letter.as_ref()) && take(&mut self.letters, id, entry, letter.as_ref()).await?;
                if taken {
                    end = end.saturating_sub(1);
                } else {
                    place += 1;
                }
            }
        }
        Ok(total)
    }

    async fn list(&mut self, filter: &Filter, limit: usize) -> Result<Value, RedisFault> {
        let (mut newest, mut matched) = (VecDeque::new(), 0_u64);
        let total = self
            .each(filter, async |_, id, entry, letter| {
                matched += 1;
                newest.push_back(shown(id, entry, letter, false));
                if newest.len() > limit {
                    newest.pop_front();
                }
                Ok(false)
            })
            .await?;
        Ok(json!({ "letters": Vec::from(newest), "matched": matched, "total": total }))
    }

    async fn count(&mut self, filter: &Filter, by: &str) -> Result<Vec<(String, u64)>, RedisFault> {
        let mut counts = BTreeMap::<String, u64>::new();
        self.each(filter, async |_, _, _, letter| {
            let value = letter.and_then(|letter| match by {
                "reason" => Some(letter.reason.clone().into_owned()),
                "type" => letter.about().kind,
                _ => letter.about().serial_no,
            });
            *counts.entry(value.unwrap_or_else(|| "(none)".to_owned())).or_default() += 1;
            Ok(false)
        })
        .await?;
        let mut counted: Vec<_> = counts.into_iter().collect();
        counted.sort_by_key(|(_, letters)| std::cmp::Reverse(*letters));
        Ok(counted)
    }

    async fn find(&mut self, wanted: LetterId) -> Result<Option<Value>, RedisFault> {
        let mut found = None;
        self.each(&Filter { ids: vec![wanted], ..Filter::default() }, async |_, id, entry, letter| {
            found = Some(shown(id, entry, letter, true));
            Ok(false)
        })
        .await?;
        Ok(found)
    }

    async fn preview(&mut self, filter: &Filter, what: &str, output: &Output) -> Result<Code, Failure> {
        let listed = self.list(filter, 50).await?;
        let text = format!("{}{} {what}; nothing was done\n", table(&listed), listed["matched"]);
        Ok(output.good(&text, &listed))
    }

    /// Puts them back, so many a second; without a rate it drops them.
    async fn change(&mut self, filter: &Filter, rate: Option<NonZeroU32>) -> Result<Changed, RedisFault> {
        let (mut changed, began) = (Changed::default(), clock::uptime());
        let lists = self.lists.clone();
        self.each(filter, async |letters, _, entry, letter| {
            changed.matched += 1;
            let taken = match rate {
                None => letters.drop_one(entry).await?,
                Some(rate) => {
                    let known = letter.and_then(|letter| {
                        let list = lists.iter().find(|list| **list == letter.list)?;
                        Some((list, letter.bytes()?))
                    });
                    let Some((list, job)) = known else {
                        changed.left += 1;
                        return Ok(false);
                    };
                    let due = Duration::from_secs_f64(changed.done as f64 / f64::from(rate.get()));
                    tokio::time::sleep((began + due).saturating_sub(clock::uptime())).await;
                    letters.replay(entry, list, &job).await?
                }
            };
            if taken {
                changed.done += 1;
            } else {
                changed.gone += 1;
            }
            // One that is gone stands there no more either.
            Ok(true)
        })
        .await?;
        Ok(changed)
    }
}

/// A letter, for scripts; `whole`: with the job itself.
fn shown(id: LetterId, entry: &Bytes, letter: Option<&Letter<'_>>, whole: bool) -> Value {
    let Some(letter) = letter else {
        let (text, base64) = text_or_base64(entry);
        let mut shown = json!({ "id": id, "reason": "(this entry is no dead letter of this program)" });
        if whole {
            shown["entry"] = json!(text);
            shown["entry_base64"] = json!(base64);
        }
        return shown;
    };
    let about = letter.about();
    let mut shown = json!({
        "id": id,
        "type": about.kind,
        "serial_no": about.serial_no,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "list": letter.list,
        "instance": letter.instance,
        "dead_at": letter.dead_at,
    });
    if whole {
        shown["job"] = json!(letter.job);
        shown["job_base64"] = json!(letter.job_base64);
    }
    shown
}

/// JSON's own escapes hold what moves a cursor, but for what stands beyond ASCII.
fn whole(letter: &Value) -> String {
    format!("{letter:#}").lines().map(terminal).collect::<Vec<_>>().join("\n")
}

/// What a machine sent stands here: nothing of it reaches the terminal unescaped.
fn table(listed: &Value) -> String {
    let mut text = String::new();
    let letters = listed["letters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let cell = |value: &Value| terminal(value.as_str().unwrap_or("-"));
    for letter in letters {
        let cells = ["id", "dead_at", "type", "serial_no", "reason"].map(|name| cell(&letter[name]));
        let _ = writeln!(text, "{}", cells.join("  "));
    }
    let _ = writeln!(text, "{} shown, {} meant, {} in all", letters.len(), listed["matched"], listed["total"]);
    text
}
