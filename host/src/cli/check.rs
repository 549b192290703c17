//! `sluicegate check`, `sluicegate health`

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::client::Client;
use super::config;
use super::output::{Code, Failure, Output};
use super::{plan, plugin};
use crate::gateway::{preflight, servers};
use crate::registry::{self, load};
use crate::telemetry::causes::with_causes;

pub(super) fn check(
    file: Option<&Path>,
    against: Option<&str>,
    connect: bool,
    output: &Output,
) -> Result<Code, Failure> {
    let client = against.map(Client::at).transpose()?;
    let resolved = config::load(file)?;
    // Where a server is reached by TLS, what would be made for it needs this.
    crate::tls::install().map_err(|error| Failure::new(Code::Wrong, with_causes(&error), ""))?;
    let sandbox = plugin::sandbox(Some(&resolved.settings))?;
    let (mut text, mut errors, mut plugins) = (String::new(), Vec::new(), Vec::new());
    let mut next = BTreeSet::new();
    for wanted in registry::wanted(&resolved.settings) {
        let loaded = load::read(&wanted.plugin.path).and_then(|file| load::load(&sandbox, &wanted, &file, 1, |_| {}));
        match loaded {
            Ok(load::Loaded { generation: build, .. }) => {
                let _ = writeln!(
                    text,
                    "ok     plugin {} {} ({}, {} samples)",
                    wanted.name,
                    build.version(),
                    build.world(),
                    build.samples().len()
                );
                plugins.push(
                    json!({ "name": wanted.name, "version": build.version(), "digest": build.digest().to_string() }),
                );
            }
            Err(refusal) => {
                let message = format!("plugin {}: {refusal}", wanted.name);
                let _ = writeln!(text, "wrong  {message}");
                errors.push(message);
                next.insert(plugin::next(&refusal));
            }
        }
    }
    for reason in preflight::check(&resolved.settings) {
        let reason = with_causes(&reason);
        let _ = writeln!(text, "wrong  {reason}");
        errors.push(reason);
        next.insert("sluicegate config show (every value, and where it came from)");
    }
    let mut warnings = resolved.warnings;
    if connect {
        let answers = servers::ask(&resolved.settings)
            .map_err(|error| Failure::new(Code::Wrong, format!("the system gives no event loop: {error}"), ""))?;
        for answer in answers {
            match answer {
                Ok(servers::Good { name, less }) => {
                    let _ = writeln!(text, "ok     {name} answers");
                    warnings.extend(less.iter().map(|less| format!("{name} {less}")));
                }
                Err(reason) => {
                    let _ = writeln!(text, "wrong  {reason}");
                    errors.push(reason);
                    next.insert("see that it runs, and mqtt.url and redis.url");
                }
            }
        }
    }
    for warning in &warnings {
        let _ = writeln!(text, "note   {warning}");
    }
    for route in &resolved.settings.routes {
        let _ = writeln!(text, "ok     route {} takes {}", route.name, route.topic);
    }
    let plan = match &client {
        Some(client) => Some(plan::plan(client, &resolved.effective)?),
        None => None,
    };
    if let Some(plan) = &plan {
        text.push_str(&plan.text);
    }
    let code = if errors.is_empty() { Code::Good } else { Code::Wrong };
    let next: Vec<&str> = next.into_iter().collect();
    let _ = match code {
        Code::Good => writeln!(text, "all good"),
        _ => writeln!(text, "wrong; next: {}", next.join("; ")),
    };
    let mut data = json!({ "plugins": plugins, "warnings": warnings });
    if let Some(plan) = plan {
        data["plan"] = plan.data;
    }
    Ok(output.verdict(code, &text, &data, &errors))
}

pub(super) fn health(client: Client, output: &Output) -> Result<Code, Failure> {
    let answer = client.get("/readyz")?.json(&client)?;
    let ready = answer["ready"].as_bool().ok_or_else(|| client.unreachable("what answers is no gateway"))?;
    let reasons: Vec<String> = answer["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|reason| reason.as_str().map(str::to_owned))
        .collect();
    let text = if ready { "ready\n".to_owned() } else { format!("not ready\n{}\n", reasons.join("\n")) };
    Ok(output.verdict(if ready { Code::Good } else { Code::Wrong }, &text, &answer, &reasons))
}

pub(super) fn live(client: Client, output: &Output) -> Result<Code, Failure> {
    let answer = client.get("/healthz")?.json(&client)?;
    if answer["status"] != "ok" {
        return Err(client.unreachable("what answers is no gateway"));
    }
    Ok(output.good("alive\n", &answer))
}
