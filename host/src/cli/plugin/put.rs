//! `sluicegate plugin load`: a file into its place by a rename, so that the gateway finds it whole, and what becomes of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicegate_core::digest::Digest;
use sluicegate_core::lifecycle::Step;

use super::ask::{path, why};
use super::read;
use crate::cli::client::Client;
use crate::cli::output::{Code, Failure, Output, terminal};
use crate::registry::load::{self, File};
use crate::whole;

/// How often the gateway is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// How long a build may take to be live, a canary or refused: other builds may be compiled first.
const PATIENCE: Duration = Duration::from_secs(600);
/// The steps on the way to `live`.
const STEPS: [Step; 6] = [Step::Found, Step::Verified, Step::Compiled, Step::Checked, Step::Rehearsed, Step::Live];

pub(super) fn put(client: &Client, name: &str, file: &Path, wait: bool, output: &Output) -> Result<Code, Failure> {
    let new = read(file)?;
    let plugin = client.get(&path(name))?.good(client).map_err(|failure| failure.then("sluicegate plugin list"))?;
    let digest = new.digest.to_string();
    let place = PathBuf::from(plugin["path"].as_str().unwrap_or_default());
    if plugin["live"]["digest"] == digest {
        let text = format!("{name} {} is live already\n", terminal(plugin["live"]["version"].as_str().unwrap_or("-")));
        return Ok(output.good(&text, &plugin));
    }
    let rejected = |digest: Digest| {
        plugin["rejected"].as_array().is_some_and(|rejected| rejected.contains(&Value::from(digest.to_string())))
    };
    if rejected(new.digest) || rejected(new.content) {
        let message = format!(
            "{digest} was rolled back or withdrawn; the gateway does not try it again until the file held another build"
        );
        return Err(Failure::new(Code::Refused, message, "sluicegate plugin history"));
    }
    // The same file once more is not tried once more.
    if plugin["last_refusal"]["digest"] == digest && load::read(&place).is_ok_and(|there| there == new) {
        return Err(refused(&plugin["last_refusal"]));
    }
    install(&new, &place).map_err(|error| {
        let message = format!("cannot put the file where the gateway looks for it, {}: {error}", place.display());
        Failure::new(Code::Wrong, message, "run this where the gateway's disk is, as somebody who may write there")
    })?;
    if !wait {
        let text = format!(
            "{digest} is in its place, {}; `sluicegate plugin list` says what becomes of it\n",
            place.display()
        );
        return Ok(output.good(&text, &json!({ "plugin": name, "digest": digest, "path": place })));
    }
    follow(client, name, &digest, &plugin["last_refusal"]["at"], output)
}

/// The signature first: the gateway looks again when it sees it, and must not meet the new file with the old one.
fn install(new: &File, place: &Path) -> io::Result<()> {
    let beside = load::signature_path(place);
    match &new.signature {
        Some(signature) => whole::replace(&beside, signature)?,
        None => match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        },
    }
    whole::replace(place, &new.bytes)
}

/// One line a step, as the gateway comes to it, then the end.
fn follow(client: &Client, name: &str, digest: &str, refused_before: &Value, output: &Output) -> Result<Code, Failure> {
    let mut began = Instant::now();
    let mut canary = false;
    let mut told = 0;
    let mut tell = |until: Step, end: &str| {
        let passed = STEPS.iter().filter(|step| **step < until).count();
        while told < passed {
            output.people(&format!("{}\n", STEPS[told]));
            told += 1;
        }
        if !end.is_empty() {
            output.people(end);
        }
    };
    while began.elapsed() < PATIENCE {
        let plugin = client.get(&path(name))?.good(client)?;
        let (live, refusal, candidate) = (&plugin["live"], &plugin["last_refusal"], &plugin["candidate"]);
        if plugin["canary"]["digest"] == digest {
            // As long as it takes, and the gateway answers.
            began = Instant::now();
            if !std::mem::replace(&mut canary, true) {
                let version = terminal(plugin["canary"]["version"].as_str().unwrap_or("-"));
                let generation = &plugin["canary"]["generation"];
                tell(Step::Live, &format!("canary: {name} {version} as generation {generation}, for some machines\n"));
            }
        }
        if live["digest"] == digest {
            tell(Step::Live, "");
            let version = terminal(live["version"].as_str().unwrap_or("-"));
            let text = format!("live: {name} {version} as generation {}\n", live["generation"]);
            return Ok(output.good(&text, live));
        }
        if refusal["digest"] == digest && refusal["at"] != *refused_before {
            if let Some(step) = step(&refusal["step"]) {
                tell(step, "");
            }
            return Err(self::refused(refusal));
        }
        if let Some(step) = step(&candidate["step"]).filter(|_| candidate["digest"] == digest) {
            tell(step, "");
        } else if canary && plugin["canary"].is_null() {
            let message = format!("{digest} was a canary, and is none any more: another build is wanted in its place");
            return Err(Failure::new(Code::Refused, message, "sluicegate plugin history"));
        }
        std::thread::sleep(LOOK);
    }
    let message = format!("the gateway has neither taken nor refused {digest} for {PATIENCE:?}");
    Err(Failure::new(Code::Refused, message, "sluicegate plugin list"))
}

fn step(name: &Value) -> Option<Step> {
    STEPS.into_iter().find(|step| *name == step.name())
}

fn refused(refusal: &Value) -> Failure {
    let message = format!("{}; what was live goes on", why(refusal));
    Failure::new(Code::Refused, message, "sluicegate plugin inspect FILE, sluicegate plugin test FILE")
}
