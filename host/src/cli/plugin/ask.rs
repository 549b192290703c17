//! `sluicegate plugin list`, `history`, `promote`, `rollback` and `top`: asked of the gateway that runs.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};
use sluicegate_core::lifecycle::Step;

use crate::cli::client::Client;
use crate::cli::output::{Code, Failure, Output, terminal};

/// Of a digest, enough to tell builds apart; `--json` has all of it.
fn short(digest: &Value) -> String {
    let text = digest.as_str().unwrap_or("-");
    terminal(&text.trim_start_matches("sha256:").chars().take(12).collect::<String>())
}

fn word(value: &Value) -> String {
    terminal(value.as_str().unwrap_or("-"))
}

/// A time in whole seconds.
fn time(value: &Value) -> String {
    let at = value.as_str().and_then(|at| at.parse::<Timestamp>().ok());
    at.map_or_else(|| word(value), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Columns as wide as what stands in them.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text
}

fn plugins(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["plugins"].as_array().into_iter().flatten()
}

pub(super) fn list(client: &Client, output: &Output) -> Result<Code, Failure> {
    let answer = client.get("/api/plugins")?.good(client)?;
    let mut rows = Vec::new();
    for plugin in plugins(&answer) {
        let (name, live) = (word(&plugin["name"]), &plugin["live"]);
        let mut row = |what: &str, version: &Value, digest: &Value, more: String| {
            rows.push(vec![name.clone(), what.to_owned(), word(version), short(digest), more]);
        };
        if live.is_null() {
            row("missing", &Value::Null, &Value::Null, String::new());
        } else {
            let what = if live["source"] == "fallback" { "fallback" } else { "live" };
            let signed =
                live["signed_by"].as_str().map_or_else(String::new, |key| format!(", signed by {}", terminal(key)));
            let more = format!("generation {} since {}{signed}", live["generation"], time(&live["since"]));
            row(what, &live["version"], &live["digest"], more);
        }
        let candidate = &plugin["candidate"];
        if candidate.is_object() {
            let more = format!("{} since {}", word(&candidate["step"]), time(&candidate["since"]));
            row("candidate", &Value::Null, &candidate["digest"], more);
        }
        let canary = &plugin["canary"];
        if canary.is_object() {
            row("canary", &canary["version"], &canary["digest"], beside(canary));
        }
        let fallback = &plugin["fallback"];
        if fallback.is_object() {
            row(
                "kept",
                &fallback["version"],
                &fallback["digest"],
                "`sluicegate plugin rollback` goes back to it".to_owned(),
            );
        }
        for digest in plugin["rejected"].as_array().into_iter().flatten() {
            row(
                "rejected",
                &Value::Null,
                digest,
                "was rolled back or withdrawn; not tried again until the file holds another build".to_owned(),
            );
        }
        let refused = &plugin["last_refusal"];
        if refused.is_object() {
            let more = format!("{} ({})", why(refused), time(&refused["at"]));
            row("refused", &Value::Null, &refused["digest"], more);
        }
    }
    Ok(output.good(&table(&rows), &answer))
}

/// Why a build does not serve, of what has a step and a reason.
pub(super) fn why(refused: &Value) -> String {
    let (step, reason) = (word(&refused["step"]), word(&refused["reason"]));
    if step == Step::Canary.name() { format!("canary withdrawn: {reason}") } else { format!("not {step}: {reason}") }
}

/// How a canary does.
fn beside(canary: &Value) -> String {
    let since = format!("generation {} since {}", canary["generation"], time(&canary["since"]));
    let number = |name: &str| canary[name].as_u64().unwrap_or(0);
    match canary["until"].as_str() {
        None => since,
        Some(_) => format!(
            "{since} until {}: {} of {} calls failed, {} of {} of the live build",
            time(&canary["until"]),
            number("failures"),
            number("calls"),
            number("live_failures"),
            number("live_calls"),
        ),
    }
}

pub(super) fn history(client: &Client, name: Option<&str>, output: &Output) -> Result<Code, Failure> {
    let query = name.map_or_else(String::new, |name| {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("plugin", name).finish();
        format!("?{query}")
    });
    let answer = client.get(&format!("/api/history{query}"))?.good(client)?;
    let rows: Vec<Vec<String>> = answer["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| {
            let outcome = match change["reason"].as_str() {
                Some(_) if change["outcome"] == "refused" => format!("refused, {}", why(change)),
                Some(_) => why(change),
                None if change["outcome"] == "removed" => "the settings name it no more".to_owned(),
                None => word(&change["step"]),
            };
            vec![
                time(&change["at"]),
                word(&change["plugin"]),
                word(&change["what"]),
                format!("by {}", word(&change["who"])),
                format!("{:<12} -> {}", short(&change["from"]), short(&change["to"])),
                outcome,
            ]
        })
        .collect();
    let text = if rows.is_empty() { "nothing changed yet\n".to_owned() } else { table(&rows) };
    Ok(output.good(&text, &answer))
}

/// A name as a part of a path.
pub(super) fn path(name: &str) -> String {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    format!("/api/plugins/{}", name.replace('+', "%20"))
}

pub(super) fn roll_back(client: &Client, name: &str, output: &Output) -> Result<Code, Failure> {
    let answer = client.post(&format!("{}/rollback", path(name)), &json!({}))?.good(client);
    let done = answer.map_err(|failure| failure.then("sluicegate plugin list (what is live, and what is kept)"))?;
    let what = if done["canary"] == true { "serves all machines again" } else { "is live again" };
    let text = format!(
        "{} {} ({}) {what}, as generation {}\n{} is not tried again until the file holds another build\n",
        word(&done["plugin"]),
        word(&done["version"]),
        short(&done["to"]),
        done["generation"],
        short(&done["from"]),
    );
    Ok(output.good(&text, &done))
}

pub(super) fn promote(client: &Client, name: &str, output: &Output) -> Result<Code, Failure> {
    let answer = client.post(&format!("{}/promote", path(name)), &json!({}))?.good(client);
    let done = answer.map_err(|failure| failure.then("sluicegate plugin list (whether there is a canary)"))?;
    let text = format!(
        "{} {} ({}) is live for all machines, as generation {}; {} is kept\n",
        word(&done["plugin"]),
        word(&done["version"]),
        short(&done["to"]),
        done["generation"],
        short(&done["from"]),
    );
    Ok(output.good(&text, &done))
}

pub(super) fn top(client: &Client, output: &Output) -> Result<Code, Failure> {
    let answer = client.get("/api/status")?.good(client)?;
    let mut used: Vec<&Value> = plugins(&answer).collect();
    used.sort_by_key(|plugin| std::cmp::Reverse(["busy_ms", "calls"].map(|name| plugin["usage"][name].as_u64())));
    let head = ["plugin", "calls", "faults", "busy ms", "memory peak", "instances"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for plugin in &used {
        let number =
            |name: &str| plugin["usage"][name].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        let mut row = vec![word(&plugin["name"])];
        row.extend(["calls", "faults", "busy_ms", "memory_peak_bytes", "instances"].map(number));
        rows.push(row);
    }
    let data: Vec<Value> =
        used.iter().map(|plugin| json!({ "name": plugin["name"], "usage": plugin["usage"] })).collect();
    Ok(output.good(&table(&rows), &json!({ "plugins": data })))
}
