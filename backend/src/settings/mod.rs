//! The settings: one TOML file. Every key has a default, so that no file is needed at all.
//!
//! - [`written`]: the file's shape.
//! - [`difference`]: what a change of the file needs.
//! - `resolve`: `${…}`, defaults, bounds, what does not go together.

pub mod difference;
mod resolve;
pub mod written;

use std::collections::BTreeSet;
use std::env::VarError;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluicegate_core::settings::interpolate::Sources;
use sluicegate_core::settings::{RedisUrl, Secret, Tls};

use crate::domain::job::Types;
use crate::domain::names::Names;
use crate::domain::plan::Rules;
use crate::domain::time::Zone;

/// The largest settings file, and the largest file that `${file:…}` takes.
const MAX_FILE: u64 = 1 << 20;
/// Where a person's own settings file lies, unless another is named.
const DEFAULT_FILE: &str = "sluicegate-backend.toml";

/// All of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How jobs are taken.
    pub listener: Listener,
    /// Where Redis is.
    pub redis: Redis,
    /// Its lists.
    pub queues: Queues,
    /// Which `type` is which work.
    pub types: Types,
    /// Where rows go.
    pub database: Database,
    /// Commands.
    pub commands: Commands,
    /// What people are told.
    pub alerts: Alerts,
    /// The HTTP server.
    pub api: Api,
    /// Machines' tokens.
    pub machines: Machines,
}

/// `[listener]`
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Who this back end is, among several; the same after a restart.
    pub instance: String,
    /// The most jobs of a batch.
    pub batch: usize,
    /// Transactions at once.
    pub workers: u32,
    /// How often a job that the database refuses is tried.
    pub attempts: u32,
    /// What becomes of which job.
    pub rules: Rules,
    /// How long an orderly end may take.
    pub shutdown_timeout: Duration,
}

/// `[redis]`
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// Where it is.
    pub url: RedisUrl,
    /// Files for `rediss://`.
    pub tls: Tls,
    /// What stands before every key.
    pub key_prefix: String,
}

/// `[queues]`; names without the prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Queues {
    /// Jobs from the gateway.
    pub incoming: String,
    /// Commands to the gateway.
    pub outgoing: String,
    /// What became of them; none: nobody tells.
    pub command_results: Option<String>,
    /// Jobs that no attempt could process.
    pub dead_letters: String,
    /// The newest so many are kept.
    pub dead_letters_max: u64,
}

/// `[database]`
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Where it is.
    pub url: DatabaseUrl,
    /// Whether the tables are made and changed by this program.
    pub migrate: bool,
    /// The offset that times are written in.
    pub zone: Zone,
    /// Connections at once.
    pub max_connections: u32,
    /// How long a transaction may take.
    pub timeout: Duration,
    /// Tables and columns.
    pub names: Names,
}

/// Which database.
#[derive(Debug, Clone, PartialEq)]
pub enum DatabaseUrl {
    /// A file.
    Sqlite(PathBuf),
    /// `mysql://user:password@host:port/database?…`
    MySql(Secret),
}

/// `[commands]`
#[derive(Debug, Clone, PartialEq)]
pub struct Commands {
    /// Until when a command may be sent, where its sender does not say.
    pub expiry: Duration,
}

/// `[alerts]`
#[derive(Debug, Clone, PartialEq)]
pub struct Alerts {
    /// Where they are sent; none: to the log alone.
    pub webhook: Option<Webhook>,
    /// Of one machine, kind and code one alert is told in this time.
    pub window: Duration,
    /// How often an alert is sent, before it is given up.
    pub attempts: u32,
    /// A machine that was not heard of for so long is offline; zero: nobody is told.
    pub offline_after: Duration,
    /// How often that is looked at.
    pub offline_every: Duration,
}

/// Where alerts are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// `http://` or `https://`.
    pub url: String,
    /// What they are signed with.
    pub secret: Secret,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// `[api]`
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may ask.
    pub tokens: Vec<ApiToken>,
}

/// Who may ask.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiToken {
    /// What the log calls it.
    pub name: String,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
}

/// `[machines]`
#[derive(Debug, Clone, PartialEq)]
pub struct Machines {
    /// How Redis holds a machine's token.
    pub auth_format: AuthFormat,
    /// What stands before the serial number in its key, behind the prefix of all keys.
    pub auth_key: String,
    /// Names that no machine gets a token for: the gateway's own at the broker.
    pub reserved: BTreeSet<String>,
}

/// How Redis holds a machine's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFormat {
    /// A string: the hexadecimal SHA-256 of the token.
    String,
    /// A hash with the same in its field `password_hash`, which EMQX's own authenticator reads.
    Hash,
}

/// Mistakes in the settings, all that were found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct SettingsError(pub Vec<String>);

/// Settings, and what is worth saying of them.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// They.
    pub settings: Settings,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

/// The settings of a file, of `./sluicegate-backend.toml` where it exists, else the defaults with the environment.
///
/// # Errors
/// [`SettingsError`] holds every mistake that was found.
pub fn load(named: Option<&Path>) -> Result<Resolved, SettingsError> {
    let file = named.map(Path::to_owned).or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.is_file()));
    let base = file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let (name, text) = match &file {
        None => ("defaults".to_owned(), String::new()),
        Some(file) => {
            let text = read_text(file)
                .map_err(|reason| SettingsError(vec![format!("{}: cannot read it: {reason}", file.display())]))?;
            (file.display().to_string(), text)
        }
    };
    let variable = |name: &str| match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err("it is not UTF-8".to_owned()),
    };
    let from_file = |path: &str| read_text(&base.join(path));
    read(&name, &text, &base, &Sources { variable: &variable, file: &from_file })
}

/// Reads a file's text. `name` is for messages; paths in it begin at `base`.
///
/// # Errors
/// [`SettingsError`] holds every mistake that was found.
pub fn read(name: &str, text: &str, base: &Path, sources: &Sources<'_>) -> Result<Resolved, SettingsError> {
    let written: written::Written = toml::from_str(text).map_err(|error| {
        // The library's own text shows the line, which may hold a secret.
        let at = error.span().map_or(0, |span| span.start);
        let before = &text[..text.floor_char_boundary(at)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        SettingsError(vec![format!("{name}:{line}:{column}: {}", error.message())])
    })?;
    resolve::resolve(written, base, sources)
        .map_err(|wrong| SettingsError(wrong.into_iter().map(|wrong| format!("{name}: {wrong}")).collect()))
}

fn read_text(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a folder".to_owned());
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    Ok(text)
}

fn words(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::{UnknownMachine, UnknownType};

    fn read_with(text: &str) -> Result<Resolved, SettingsError> {
        let variable = |name: &str| Ok((name == "SECRET").then(|| "hunter2".to_owned()));
        let file = |_: &str| Err("no such file".to_owned());
        read("backend.toml", text, Path::new("/etc/sluicegate"), &Sources { variable: &variable, file: &file })
    }

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let error = read_with(text).expect_err("refused").to_string();
        assert!(error.contains(part), "{part} is not in: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn no_file_at_all_is_enough() {
        let Resolved { settings, warnings } = read_with("").expect("good");
        assert_eq!(settings.listener.instance, "backend-1");
        assert!(
            matches!(&settings.database.url, DatabaseUrl::Sqlite(path) if path == Path::new("/etc/sluicegate/backend.db"))
        );
        assert_eq!(settings.listener.workers, 1, "a file has one writer");
        assert!(settings.api.listen.ip().is_loopback() && settings.api.tokens.is_empty());
        assert_eq!(settings.listener.rules.unknown_machines, UnknownMachine::Create);
        assert_eq!(settings.listener.rules.unknown_types, UnknownType::DeadLetter);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn the_example_says_the_defaults() {
        let example = include_str!("../../../config/backend.toml");
        let of = |text| format!("{:?}", read_with(text).expect("good").settings);
        assert_eq!(of(example), of(""));
    }

    #[test]
    fn every_key_of_the_example_that_is_commented_out_is_one() {
        let example = include_str!("../../../config/backend.toml");
        let all: Vec<&str> = example
            .lines()
            .map(|line| {
                let bare = line.strip_prefix("# ").unwrap_or(line);
                let is_key = bare.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) || bare.starts_with('[');
                if is_key { bare } else { line }
            })
            .collect();
        let text = all.join("\n").replace("${file:/run/secrets/webhook_secret}", "${SECRET}");
        read_with(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }

    #[test]
    fn mistakes_are_named_with_their_place_or_key_and_show_no_secret() {
        refused("[listener]\nbatsh = 5", "backend.toml:2:1: unknown field `batsh`");
        refused("[alerts]\nsecret = [\"hunter2\"]", "backend.toml:2:10: invalid type");
        refused("[listener]\nbatch = 0", "listener.batch: was 0; it must be from 1 to 1000");
        refused("[listener]\ninstance = \"a b\"", "listener.instance");
        refused("[redis]\nurl = \"redis://:hunter2@h:x\"", "redis.url");
        refused("[redis]\nurl = \"embedded\"", "redis.url");
        refused("[redis]\nclient_key_file = \"k\"", "redis.client_key_file: needs `redis.client_cert_file` beside it");
        refused("[redis]\nkey_prefix = \"{x}\"", "redis.key_prefix");
        refused("[database]\nurl = \"postgres://u:hunter2@h/d\"", "database.url");
        refused("[database]\nurl = \"mysql://u:${SECRET}@h\"", "database.url: names no database");
        refused("[database.tables]\nmachines = \"a b\"", "database.tables.machines");
        refused("[alerts]\nwebhook = \"https://x/\"", "alerts.secret");
        refused("[alerts]\nwebhook = \"ftp://x/\"\nsecret = \"${SECRET}\"", "alerts.webhook");
        refused("[alerts]\nwindow = \"soon\"", "alerts.window: was `soon`");
        refused("[api]\ntokens = [{ name = \"x\", sha256 = \"00\" }]", "api.tokens[0].sha256");
        refused("[machines]\nauth_format = \"set\"", "machines.auth_format: was `set`; it must be string or hash");
        refused("[machines]\nauth_key = \"mqtt_\"", "machines.auth_key: must begin no list's name");
        refused("[types]\nheartbeat = \"a\"\nerror = \"a\"", "types: two of them have one name");
        refused("[redis]\nurl = \"${NOT_THERE}\"", "the environment has no NOT_THERE");
    }

    #[test]
    fn a_level_that_is_no_word_of_the_contract_is_told_of_and_kept() {
        let read = read_with("[listener]\nalert_levels = [\"critcal\", \"error\"]").expect("good");
        assert!(read.settings.listener.rules.alert_levels.contains("critcal"));
        assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
        assert!(
            read.warnings[0].starts_with("listener.alert_levels: `critcal` is none of info, warning, error, critical")
        );
    }

    #[test]
    fn who_is_reached_by_others_is_told_so() {
        let warnings = read_with("[api]\nlisten = \"0.0.0.0:9091\"").expect("good").warnings;
        assert!(warnings.iter().any(|warning| warning.contains("api.listen")), "{warnings:?}");
        let warnings = read_with("[redis]\nca_file = \"ca.pem\"").expect("good").warnings;
        assert!(warnings.iter().any(|warning| warning.contains("redis.ca_file: has no effect")), "{warnings:?}");
    }
}
