//! `sluicegate check`, `sluicegate health`

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate_core::settings::Settings;

use super::config;
use super::output::{Code, Failure, Output};
use crate::registry::{self, load};
use crate::sandbox::Sandbox;

pub(super) fn check(file: Option<&Path>, output: &Output) -> Result<Code, Failure> {
    let resolved = config::load(file)?;
    let sandbox = Sandbox::new().map_err(|error| Failure::new(Code::Wrong, error.to_string(), ""))?;
    let (mut text, mut errors, mut plugins) = (String::new(), Vec::new(), Vec::new());
    for wanted in registry::wanted(&resolved.settings) {
        let loaded = load::read(&wanted.plugin.path).and_then(|file| load::load(&sandbox, &wanted, &file, 1));
        match loaded {
            Ok(build) => {
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
            }
        }
    }
    for warning in &resolved.warnings {
        let _ = writeln!(text, "note   {warning}");
    }
    if !resolved.without_effect.is_empty() {
        let _ = writeln!(text, "note   no effect in this version: {}", resolved.without_effect.join(", "));
    }
    for route in &resolved.settings.routes {
        let _ = writeln!(text, "ok     route {} takes {}", route.name, route.topic);
    }
    let code = if errors.is_empty() { Code::Good } else { Code::Wrong };
    let _ = writeln!(
        text,
        "{}",
        if errors.is_empty() { "all good" } else { "wrong; next: cargo xtask plugins, or check the paths" }
    );
    let data = json!({ "plugins": plugins, "warnings": resolved.warnings, "without_effect": resolved.without_effect });
    Ok(output.verdict(code, &text, &data, &errors))
}

/// How long a gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn health(file: Option<&Path>, address: Option<SocketAddr>, output: &Output) -> Result<Code, Failure> {
    let address = match address {
        Some(address) => address,
        None => self::address(&config::load(file)?.settings),
    };
    let unreachable = |reason: String| {
        Failure::new(
            Code::NotReachable,
            format!("no gateway answers on {address}: {reason}"),
            "sluicegate run, or sluicegate health --address ADDRESS:PORT",
        )
    };
    let body = ask(address, "/readyz").map_err(|error| unreachable(error.to_string()))?;
    let answer: Value =
        serde_json::from_str(&body).map_err(|_| unreachable("what answers is no gateway".to_owned()))?;
    let ready = answer["ready"].as_bool().ok_or_else(|| unreachable("what answers is no gateway".to_owned()))?;
    let reasons: Vec<String> = answer["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|reason| reason.as_str().map(str::to_owned))
        .collect();
    let text = if ready { "ready\n".to_owned() } else { format!("not ready\n{}\n", reasons.join("\n")) };
    Ok(output.verdict(if ready { Code::Good } else { Code::Wrong }, &text, &answer, &reasons))
}

/// Where the admin server of a gateway with these settings is reached from this machine.
pub(super) fn address(settings: &Settings) -> SocketAddr {
    let mut listen = settings.admin.listen;
    if listen.ip().is_unspecified() {
        listen.set_ip(if listen.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    listen
}

/// One GET of HTTP/1.0, whose answer ends with the connection.
pub(super) fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}
