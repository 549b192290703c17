//! What is done at once and answered.

use std::time::Duration;

use serde_json::json;
use sluicegate_core::settings::parse_duration;

use super::output::{Code, Failure, Output};
use crate::commands::SendError;
use crate::database::fault::Fault;
use crate::machines::TokenError;
use crate::machines::doctor::{self, DoctorError, Finding, Problem, Repair};
use crate::machines::token::Token;
use crate::redis::connect::RedisFault;
use crate::redis::lists::{Keeper, ListKeys};
use crate::service::{Clients, ServiceError};
use crate::settings::Settings;

const CHECK: &str = "sluicegate-backend check --connect";
const MIGRATE: &str = "sluicegate-backend database migrate";
const REDIS: &str = "[redis] and queues.incoming in the settings, and whether Redis runs there";
const DATABASE: &str = "database.url in the settings, and whether the database runs there";
const SERVERS: &str = "redis.url and database.url in the settings";

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let code = if matches!(fault, Fault::Away(_) | Fault::Cut(_)) { Code::NotReachable } else { Code::Refused };
        Self::new(code, format!("the database: {fault}"), CHECK)
    }
}

impl From<RedisFault> for Failure {
    fn from(fault: RedisFault) -> Self {
        let code = if matches!(fault, RedisFault::Refused { .. }) { Code::Refused } else { Code::NotReachable };
        Self::new(code, format!("Redis: {fault}"), CHECK)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::new(Code::Wrong, error.to_string(), CHECK)
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Wrong(_) => Self::new(Code::Usage, error.to_string(), "sluicegate-backend command send --help"),
            SendError::NoMachine(_) => Self::new(
                Code::Refused,
                error.to_string(),
                "a machine gets its row by its first message, or by `sluicegate-backend token issue`",
            ),
            SendError::Random(_) => Self::new(Code::Wrong, error.to_string(), ""),
            SendError::Database(fault) => fault.into(),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::SerialNo(_) | TokenError::Reserved(_) => {
                Self::new(Code::Usage, error.to_string(), "sluicegate-backend token --help")
            }
            TokenError::HasOne(_) => Self::new(Code::Refused, error.to_string(), "sluicegate-backend token rotate"),
            TokenError::HasNone(_) => Self::new(Code::Refused, error.to_string(), "sluicegate-backend token issue"),
            TokenError::Other { .. } => Self::new(Code::Refused, error.to_string(), ""),
            TokenError::NotKept | TokenError::Random(_) => Self::new(Code::Wrong, error.to_string(), ""),
            TokenError::Database(fault) => fault.into(),
            TokenError::HalfDone(_) => {
                Self::new(Code::NotReachable, error.to_string(), "sluicegate-backend auth doctor")
            }
            TokenError::Redis(ref fault) => {
                let code = if matches!(fault, RedisFault::Refused { .. }) { Code::Refused } else { Code::NotReachable };
                Self::new(code, error.to_string(), CHECK)
            }
        }
    }
}

impl From<DoctorError> for Failure {
    fn from(error: DoctorError) -> Self {
        match error {
            DoctorError::WouldLockOut { .. } => {
                Self::new(Code::Refused, error.to_string(), "sluicegate-backend auth doctor (what it would change)")
            }
            DoctorError::Token(error) => error.into(),
        }
    }
}

pub(super) fn api_token(name: &str, output: &Output) -> Result<Code, Failure> {
    let token = Token::new()
        .map_err(|error| Failure::new(Code::Wrong, format!("the system gives no randomness: {error}"), ""))?;
    let line = format!("{{ name = {}, sha256 = \"{}\" }}", json!(name), token.hash());
    let text = format!("token (shown once): {}\nfor api.tokens:      {line}\n", token.reveal());
    Ok(output.good(&text, &json!({ "name": name, "token": token.reveal(), "sha256": token.hash() })))
}

pub(super) async fn check(
    settings: &Settings,
    warnings: &[String],
    connect: bool,
    output: &Output,
) -> Result<Code, Failure> {
    let mut text = warnings.iter().fold(String::new(), |text, warning| format!("{text}warning: {warning}\n"));
    if connect {
        // Whoever asked this is told of the settings: the failure's own next step is what was just done.
        let clients = Clients::new(settings).map_err(|error| Failure::from(error).then(SERVERS))?;
        let mut keeper = Keeper::new(
            clients.redis.clone(),
            ListKeys::new(format!("{}{}", settings.redis.key_prefix, settings.queues.incoming)),
        );
        let (waiting, _) = keeper.waiting().await.map_err(|fault| Failure::from(fault).then(REDIS))?;
        text.push_str(&format!("Redis answers: {waiting} jobs wait\n"));
        clients.database.answer().await.map_err(|fault| Failure::from(fault).then(DATABASE))?;
        clients.database.look().await.map_err(|fault| Failure::from(fault).then(MIGRATE))?;
        text.push_str("the database answers, and its tables are as the settings say\n");
    }
    text.push_str("the settings are good\n");
    Ok(output.good(&text, &json!({ "warnings": warnings })))
}

pub(super) async fn migrate(settings: &Settings, output: &Output) -> Result<Code, Failure> {
    let clients = Clients::new(settings)?;
    clients.database.migrate().await?;
    clients.database.look().await?;
    clients.database.close().await;
    Ok(output.good("the tables are as this version wants them\n", &json!({})))
}

pub(super) fn schema(settings: &Settings, output: &Output) -> Result<Code, Failure> {
    let schema = Clients::new(settings)?.database.schema();
    Ok(output.good(&schema, &json!({ "sql": schema })))
}

pub(super) async fn send(
    settings: &Settings,
    serial_no: &str,
    command: &str,
    payload: &str,
    expires_in: Option<&str>,
    output: &Output,
) -> Result<Code, Failure> {
    let expires_in = match expires_in {
        None => None,
        Some(text) => Some(parse_duration(text).filter(|found| *found > Duration::ZERO).ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("--expires-in: `{text}` is no duration such as 30s"),
                "sluicegate-backend command send --help",
            )
        })?),
    };
    let commander = Clients::new(settings)?.commander(settings);
    commander.expect_machine(serial_no).await?;
    let id = commander.send_command(serial_no, command, payload, expires_in).await?;
    let text = format!("{id}\n");
    Ok(output.good(&text, &json!({ "message_id": id, "state": "queued" })))
}

pub(super) async fn show(settings: &Settings, message_id: &str, output: &Output) -> Result<Code, Failure> {
    let commander = Clients::new(settings)?.commander(settings);
    let Some(command) = commander.find(message_id).await? else {
        return Err(Failure::new(
            Code::Refused,
            format!("there is no command `{message_id}`"),
            "sluicegate-backend command send",
        ));
    };
    let reason = command.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let text = format!("{} {} {}{reason}\n", command.serial_no, command.command, command.state);
    let data = serde_json::to_value(&command).map_err(|error| Failure::new(Code::Wrong, error.to_string(), ""))?;
    Ok(output.good(&text, &data))
}

/// What is done with a machine's token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Issue,
    Rotate,
    Revoke,
}

pub(super) async fn token(
    settings: &Settings,
    change: Change,
    serial_no: &str,
    output: &Output,
) -> Result<Code, Failure> {
    let machines = Clients::new(settings)?.machines(settings);
    let token = match change {
        Change::Issue => machines.issue(serial_no).await?,
        Change::Rotate => machines.rotate(serial_no).await?,
        Change::Revoke => {
            machines.revoke(serial_no).await?;
            return Ok(output.good("the token is worth nothing from now on\n", &json!({ "serial_no": serial_no })));
        }
    };
    let text = format!("{}\n", token.reveal());
    Ok(output.good(&text, &json!({ "serial_no": serial_no, "api_token": token.reveal() })))
}

pub(super) async fn doctor(settings: &Settings, repair: Option<Repair>, output: &Output) -> Result<Code, Failure> {
    let clients = Clients::new(settings)?;
    let findings = clients.machines(settings).doctor(settings.machines.auth_format, repair).await?;
    let prefix = format!("{}{}", settings.redis.key_prefix, settings.machines.auth_key);
    let line = |finding: &Finding| match finding.problem {
        // It is escaped already.
        Problem::NoText => format!("{prefix}{}: {}", finding.serial_no, finding.problem),
        _ => format!("{prefix}{}: {}", finding.serial_no.escape_debug(), finding.problem),
    };
    let lines: Vec<String> = findings.iter().map(line).collect();
    let left: Vec<String> = findings.iter().filter(|finding| !finding.problem.is_repaired()).map(line).collect();
    let data = json!({ "findings": findings, "repaired": repair.is_some(), "no_repair": left.len() });
    if findings.is_empty() {
        return Ok(output.good("every key is as the database says\n", &data));
    }
    let text = format!("{}\n", lines.join("\n"));
    if repair.is_some() {
        let text = format!("{text}{} repaired, {} left\n", findings.len() - left.len(), left.len());
        let code = if left.is_empty() { Code::Good } else { Code::Wrong };
        return Ok(output.verdict(code, &text, &data, &left));
    }
    let code = output.verdict(Code::Wrong, &text, &data, &lines);
    if left.len() < findings.len() {
        output.people("next: sluicegate-backend auth doctor --repair\n");
    }
    Ok(code)
}

pub(super) async fn convert(settings: &Settings, output: &Output) -> Result<Code, Failure> {
    let mut auth = Clients::new(settings)?.auth(settings);
    let done = doctor::convert(&mut auth, settings.machines.auth_format).await?;
    let text = format!(
        "{} keys converted, {} had the format already, {} hold no SHA-256, or have a name that is not UTF-8, and are as they were\n",
        done.converted, done.unchanged, done.left
    );
    let code = if done.left == 0 { Code::Good } else { Code::Wrong };
    let errors: Vec<String> = (done.left > 0)
        .then(|| format!("{} keys hold no SHA-256, or have a name that is not UTF-8", done.left))
        .into_iter()
        .collect();
    Ok(output.verdict(code, &text, &json!(done), &errors))
}
