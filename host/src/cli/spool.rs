//! `sluicegate spool …`

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::Client;
use super::config;
use super::output::{Code, Failure, Output};
use crate::spool::{self, Depth, SpoolError};
use crate::telemetry::causes::with_causes;
use crate::telemetry::clock;

/// What stands in the spool: asked of the gateway that uses it, or read from the disk where none does.
pub(super) fn status(file: Option<&Path>, output: &Output) -> Result<Code, Failure> {
    let settings = config::load(file)?.settings;
    let folder = settings.spool.path.as_path();
    let shown = folder.display().to_string();
    if !folder.exists() {
        let text = format!("{shown}: there is no spool yet; a gateway makes it when it starts\n");
        return Ok(output.good(&text, &json!({ "folder": shown, "jobs": 0, "parked": 0, "bytes": 0, "oldest": null })));
    }
    match spool::look(folder) {
        Ok((Depth { jobs, parked, bytes, oldest }, recovered)) => {
            let oldest = oldest.and_then(|oldest| Timestamp::from_second(i64::from(oldest)).ok());
            let mut errors = Vec::new();
            if recovered.damaged > 0 {
                errors.push(format!("{} bytes cannot be read; check the disk", recovered.damaged));
            }
            let status = json!({
                "folder": shown, "running": false, "jobs": jobs, "parked": parked, "bytes": bytes, "oldest": oldest,
                "damaged_bytes": recovered.damaged,
            });
            let code = if errors.is_empty() { Code::Good } else { Code::Wrong };
            let text = format!("{}{}", text(&shown, "no gateway uses it", &status), lines(&errors));
            Ok(output.verdict(code, &text, &status, &errors))
        }
        Err(SpoolError::InUse(_)) => {
            let client = Client::of(&settings);
            let answer = client.get("/api/status").and_then(|answer| answer.good(&client)).map_err(|failure| {
                failure.because(&format!("a gateway uses the spool in {shown}"), "set admin.listen to where it listens")
            })?;
            let mut status = answer["spool"].clone();
            if status.is_null() {
                let message = format!("the gateway that uses the spool in {shown} has not opened it yet");
                return Err(Failure::new(Code::Refused, message, "sluicegate health"));
            }
            status["folder"] = json!(shown);
            status["running"] = json!(true);
            let alarms = answer["alarms"].as_object().into_iter().flatten();
            let errors: Vec<String> = alarms
                .filter(|(name, _)| name.contains("spool"))
                .filter_map(|(_, alarm)| alarm["text"].as_str().map(str::to_owned))
                .collect();
            let code = if errors.is_empty() { Code::Good } else { Code::Wrong };
            let text = format!("{}{}", text(&shown, "a gateway uses it", &status), lines(&errors));
            Ok(output.verdict(code, &text, &status, &errors))
        }
        Err(error) => Err(Failure::new(Code::Wrong, with_causes(&error), "sluicegate config show")),
    }
}

fn lines(errors: &[String]) -> String {
    errors.iter().map(|error| format!("wrong   {error}\n")).collect()
}

fn text(folder: &str, who: &str, status: &Value) -> String {
    let age = status["oldest"].as_str().and_then(|oldest| oldest.parse::<Timestamp>().ok()).map(|oldest| {
        let seconds = (clock::now().as_second() - oldest.as_second()).max(0);
        format!(" ({seconds} s ago)")
    });
    let oldest = match (&status["oldest"], age) {
        (Value::String(oldest), Some(age)) => format!("{oldest}{age}"),
        _ => "none: it is empty".to_owned(),
    };
    let bound = status["max_bytes"].as_u64().map_or_else(String::new, |bound| format!(" of {bound}"));
    format!(
        "folder  {folder} ({who})\njobs    {} wait for Redis\nparked  {} are to be handled again\nbytes   {}{bound}\noldest  {oldest}\n",
        status["jobs"], status["parked"], status["bytes"]
    )
}
