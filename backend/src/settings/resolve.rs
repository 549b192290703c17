//! Written → resolved: `${…}` replaced, defaults filled in, bounds and neighbours checked. All mistakes are told at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sluicegate_core::settings::interpolate::{Sources, interpolate};
use sluicegate_core::settings::{RedisUrl, Secret, Tls, parse_duration, parse_offset, parse_redis_url, show_duration};
use sqlx::mysql::MySqlConnectOptions;

use super::{
    Alerts, Api, ApiToken, AuthFormat, Commands, Database, DatabaseUrl, Listener, Machines, Queues, Redis, Resolved,
    Settings, Webhook, words, written,
};
use crate::domain::job::Types;
use crate::domain::names::Names;
use crate::domain::plan::{LEVELS, Rules, UnknownMachine, UnknownType};
use crate::domain::time::Zone;
use crate::machines::token;

const REDIS: &str = "redis://${MQTT_REDIS_HOST:-127.0.0.1}:${MQTT_REDIS_PORT:-6379}";
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

/// The longest name of a list that is taken from: with the prefix and an instance's name it is a key in the database.
const MAX_LIST: usize = 100;
/// The longest prefix.
const MAX_PREFIX: usize = 80;

fn set(written: Option<Vec<String>>, default: &[&str]) -> BTreeSet<String> {
    written.map_or_else(|| words(default), |list| list.into_iter().collect())
}

struct Resolver<'a> {
    base: &'a Path,
    sources: &'a Sources<'a>,
    wrong: Vec<String>,
    warnings: Vec<String>,
}

pub(super) fn resolve(written: written::Written, base: &Path, sources: &Sources<'_>) -> Result<Resolved, Vec<String>> {
    let mut resolver = Resolver { base, sources, wrong: Vec::new(), warnings: Vec::new() };
    let database = resolver.database(written.database);
    let sqlite = matches!(&database, Some(Database { url: DatabaseUrl::Sqlite(_), .. }));
    let listener = resolver.listener(written.listener, sqlite);
    let redis = resolver.redis(written.redis);
    let queues = resolver.queues(written.queues);
    let types = resolver.types(written.types);
    let expiry = resolver.duration("commands.expiry", written.commands.expiry, "60s", SECOND, 365 * DAY);
    let alerts = resolver.alerts(written.alerts);
    let api = resolver.api(written.api);
    let machines = resolver.machines(written.machines, &queues);
    let settings = (|| {
        Some(Settings {
            listener,
            redis: redis?,
            queues,
            types,
            database: database?,
            commands: Commands { expiry },
            alerts: alerts?,
            api: api?,
            machines,
        })
    })();
    match settings {
        Some(settings) if resolver.wrong.is_empty() => Ok(Resolved { settings, warnings: resolver.warnings }),
        _ => Err(resolver.wrong),
    }
}

impl Resolver<'_> {
    fn say(&mut self, key: &str, what: impl AsRef<str>) {
        self.wrong.push(format!("{key}: {}", what.as_ref()));
    }

    /// A text with `${…}` replaced, or the default likewise; empty after a mistake.
    fn text(&mut self, key: &str, written: Option<String>, default: &str) -> String {
        let text = written.as_deref().unwrap_or(default);
        match interpolate(text, self.sources) {
            Ok(found) => found.text,
            Err(reason) => {
                self.say(key, reason);
                String::new()
            }
        }
    }

    fn some_text(&mut self, key: &str, written: Option<String>) -> Option<String> {
        written.map(|text| self.text(key, Some(text), "")).filter(|text| !text.is_empty())
    }

    /// A text that is not empty.
    fn word(&mut self, key: &str, written: Option<String>, default: &str) -> String {
        let before = self.wrong.len();
        let text = self.text(key, written, default);
        if text.is_empty() && self.wrong.len() == before {
            self.say(key, "must not be empty");
        }
        text
    }

    fn number(&mut self, key: &str, written: Option<u64>, default: u64, least: u64, most: u64) -> u64 {
        let number = written.unwrap_or(default);
        if !(least..=most).contains(&number) {
            self.say(key, format!("was {number}; it must be from {least} to {most}"));
        }
        number
    }

    fn small(&mut self, key: &str, written: Option<u64>, default: u64, least: u64, most: u32) -> u32 {
        u32::try_from(self.number(key, written, default, least, u64::from(most))).unwrap_or(most)
    }

    fn duration(
        &mut self,
        key: &str,
        written: Option<String>,
        default: &str,
        least: Duration,
        most: Duration,
    ) -> Duration {
        let text = self.text(key, written, default);
        let found = parse_duration(&text).filter(|found| (least..=most).contains(found));
        found.unwrap_or_else(|| {
            let (least, most) = (show_duration(least), show_duration(most));
            self.say(
                key,
                format!(
                    "was `{text}`; it must be a duration such as \"10s\" (units ms, s, m, h, d), from {least} to {most}"
                ),
            );
            Duration::ZERO
        })
    }

    fn one_of<T: Copy>(&mut self, key: &str, written: Option<String>, words: &[(&str, T)]) -> T {
        let (default, first) = words[0];
        let text = self.text(key, written, default);
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.unwrap_or_else(|| {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.say(key, format!("was `{text}`; it must be {}", all.join(" or ")));
            first
        })
    }

    fn listener(&mut self, written: written::Listener, sqlite: bool) -> Listener {
        let instance = self.text("listener.instance", written.instance, "${SLUICEGATE_BACKEND_INSTANCE:-backend-1}");
        let fits = (1..=64).contains(&instance.len())
            && instance.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !fits {
            self.say(
                "listener.instance",
                format!("must be 1 to 64 of letters, digits, `_`, `.` and `-`, found `{instance}`"),
            );
        }
        let batch = self.number("listener.batch", written.batch, 500, 1, 1_000);
        let workers = self.small("listener.workers", written.workers, if sqlite { 1 } else { 4 }, 1, 64);
        if sqlite && workers > 1 {
            self.warnings.push(
                "listener.workers: a file of SQLite has one writer at a time; more than 1 only wait for each other"
                    .to_owned(),
            );
        }
        let alert_levels = set(written.alert_levels, &["warning", "error", "critical"]);
        for level in alert_levels.iter().filter(|level| !LEVELS.contains(&level.as_str())) {
            self.warnings.push(format!(
                "listener.alert_levels: `{level}` is none of {}: people are told of it only where a machine sends that word",
                LEVELS.join(", ")
            ));
        }
        let unknown_types = [("dead-letter", UnknownType::DeadLetter), ("create", UnknownType::Create)];
        let unknown_machines = [("create", UnknownMachine::Create), ("dead-letter", UnknownMachine::DeadLetter)];
        Listener {
            instance,
            batch: usize::try_from(batch).unwrap_or(1),
            workers,
            attempts: self.small("listener.attempts", written.attempts, 3, 1, 100),
            rules: Rules {
                unknown_types: self.one_of("listener.unknown_types", written.unknown_types, &unknown_types),
                unknown_machines: self.one_of("listener.unknown_machines", written.unknown_machines, &unknown_machines),
                alert_levels,
                keeps_stock: set(written.keeps_stock, &[]),
            },
            shutdown_timeout: self.duration(
                "listener.shutdown_timeout",
                written.shutdown_timeout,
                "10s",
                Duration::from_millis(100),
                3_600 * SECOND,
            ),
        }
    }

    fn redis(&mut self, written: written::Redis) -> Option<Redis> {
        let before = self.wrong.len();
        let url = self.text("redis.url", written.url, REDIS);
        let mut file = |key, written| self.some_text(key, written).map(|path| self.base.join(path));
        let tls = Tls {
            ca_file: file("redis.ca_file", written.ca_file),
            client_cert_file: file("redis.client_cert_file", written.client_cert_file),
            client_key_file: file("redis.client_key_file", written.client_key_file),
        };
        for (key, file, other, beside) in [
            ("redis.client_cert_file", &tls.client_cert_file, "redis.client_key_file", &tls.client_key_file),
            ("redis.client_key_file", &tls.client_key_file, "redis.client_cert_file", &tls.client_cert_file),
        ] {
            if file.is_some() && beside.is_none() {
                self.say(key, format!("needs `{other}` beside it"));
            }
        }
        if !url.starts_with("rediss:") {
            let files = [("redis.ca_file", &tls.ca_file), ("redis.client_cert_file", &tls.client_cert_file)];
            for (key, _) in files.iter().filter(|(_, file)| file.is_some()) {
                self.warnings.push(format!(
                    "{key}: has no effect: redis.url is not `rediss://…`, so everything goes unencrypted, a password too"
                ));
            }
        }
        let key_prefix = self.text("redis.key_prefix", written.key_prefix, "");
        if key_prefix.contains(['{', '}']) {
            self.say("redis.key_prefix", "must hold no braces: they are what a Redis cluster places keys by");
        }
        if key_prefix.len() > MAX_PREFIX {
            self.say("redis.key_prefix", format!("must be no longer than {MAX_PREFIX} bytes"));
        }
        if self.wrong.len() > before {
            return None;
        }
        match parse_redis_url(&url) {
            Ok(RedisUrl::Embedded) => {
                self.say("redis.url", "`embedded` is in the gateway's process; write its address here");
                None
            }
            Ok(url) => Some(Redis { url, tls, key_prefix }),
            Err(reason) => {
                self.say("redis.url", reason);
                None
            }
        }
    }

    fn queues(&mut self, written: written::Queues) -> Queues {
        let incoming = self.word("queues.incoming", written.incoming, "mqtt_incoming_jobs");
        let outgoing = self.word("queues.outgoing", written.outgoing, "mqtt_outgoing_commands");
        // Whoever writes nothing has the list that docs/backend.md tells the gateway to write.
        let results = self.text("queues.command_results", written.command_results, "mqtt_command_results");
        let dead_letters = self.word("queues.dead_letters", written.dead_letters, "mqtt_job_dead_letters");
        for (key, name) in [("queues.incoming", &incoming), ("queues.command_results", &results)] {
            if name.contains(['{', '}']) {
                self.say(key, "must hold no braces: they are what a Redis cluster places keys by");
            }
        }
        let mut names = vec![&incoming, &outgoing, &dead_letters];
        names.extend(Some(&results).filter(|name| !name.is_empty()));
        if two_are_one(&names) {
            self.say("queues", "two of its lists have one name");
        }
        for (key, name) in [("queues.incoming", &incoming), ("queues.command_results", &results)] {
            if name.len() > MAX_LIST {
                self.say(key, format!("must be no longer than {MAX_LIST} bytes"));
            }
        }
        let dead_letters_max =
            self.number("queues.dead_letters_max", written.dead_letters_max, 100_000, 1, 1_000_000_000);
        let command_results = Some(results).filter(|name| !name.is_empty());
        Queues { incoming, outgoing, command_results, dead_letters, dead_letters_max }
    }

    fn types(&mut self, written: written::Types) -> Types {
        let types = Types::default();
        let types = Types {
            heartbeat: self.word("types.heartbeat", written.heartbeat, &types.heartbeat),
            error: self.word("types.error", written.error, &types.error),
            transaction: self.word("types.transaction", written.transaction, &types.transaction),
            command_ack: self.word("types.command_ack", written.command_ack, &types.command_ack),
        };
        if two_are_one(&[&types.heartbeat, &types.error, &types.transaction, &types.command_ack]) {
            self.say("types", "two of them have one name: jobs of the one would be taken for the other's");
        }
        types
    }

    fn database(&mut self, written: written::Database) -> Option<Database> {
        let before = self.wrong.len();
        let url = self.text("database.url", written.url, "sqlite:backend.db");
        let zone = self.text("database.time_zone", written.time_zone, "Z");
        let zone = parse_offset(&zone).map(|offset| Zone::from_minutes(offset.0)).unwrap_or_else(|| {
            self.say("database.time_zone", format!("was `{zone}`; it must be an offset such as \"+08:00\" or \"Z\""));
            Zone::UTC
        });
        let names = Names::mapped(&written.tables, &written.columns).unwrap_or_else(|wrong| {
            self.wrong.extend(wrong);
            Names::default()
        });
        let max_connections = self.small("database.max_connections", written.max_connections, 16, 2, 1_000);
        let timeout = self.duration("database.timeout", written.timeout, "30s", SECOND, 3_600 * SECOND);
        if self.wrong.len() > before {
            return None;
        }
        let url = self.database_url(url)?;
        Some(Database { url, migrate: written.migrate.unwrap_or(true), zone, max_connections, timeout, names })
    }

    fn database_url(&mut self, url: String) -> Option<DatabaseUrl> {
        let expected = "expected \"sqlite:FILE\" or \"mysql://user:password@host:port/database\"";
        match url.split_once(':') {
            Some(("sqlite", rest)) => {
                let file = rest.strip_prefix("//").unwrap_or(rest);
                if file.is_empty() || file.contains(":memory:") {
                    self.say("database.url", "must name a file: what is in memory alone is gone after a restart");
                    return None;
                }
                Some(DatabaseUrl::Sqlite(self.base.join(file)))
            }
            Some(("mysql" | "mariadb", _)) => match MySqlConnectOptions::from_str(&url) {
                Ok(options) if options.get_database().is_none_or(str::is_empty) => {
                    self.say("database.url", "names no database; write it behind the last `/`");
                    None
                }
                Ok(_) => Some(DatabaseUrl::MySql(Secret(url))),
                // The library's words may hold the password.
                Err(_) => {
                    self.say(
                        "database.url",
                        format!("cannot be read; {expected}, with `%` sequences for what is special"),
                    );
                    None
                }
            },
            _ => {
                self.say("database.url", expected);
                None
            }
        }
    }

    fn alerts(&mut self, written: written::Alerts) -> Option<Alerts> {
        let before = self.wrong.len();
        let url = self.some_text("alerts.webhook", written.webhook);
        let secret = self.some_text("alerts.secret", written.secret);
        let timeout = self.duration("alerts.timeout", written.timeout, "10s", SECOND, 300 * SECOND);
        let webhook = match (url, secret) {
            (None, None) => None,
            (None, Some(_)) => {
                self.warnings.push("alerts.secret: has no effect without alerts.webhook".to_owned());
                None
            }
            (Some(_), None) => {
                self.say("alerts.secret", "must be there beside alerts.webhook: alerts are signed with it");
                None
            }
            (Some(url), Some(secret)) => {
                let fits = url.parse::<axum::http::Uri>().is_ok_and(|uri| {
                    matches!(uri.scheme_str(), Some("http" | "https"))
                        && uri.host().is_some_and(|host| !host.is_empty())
                });
                if !fits {
                    self.say("alerts.webhook", "must be an address such as https://example.com/alerts");
                }
                Some(Webhook { url, secret: Secret(secret), timeout })
            }
        };
        let alerts = Alerts {
            webhook,
            window: self.duration("alerts.window", written.window, "15m", Duration::ZERO, 30 * DAY),
            attempts: self.small("alerts.attempts", written.attempts, 20, 1, 1_000),
            offline_after: self.duration(
                "alerts.offline_after",
                written.offline_after,
                "5m",
                Duration::ZERO,
                365 * DAY,
            ),
            offline_every: self.duration("alerts.offline_every", written.offline_every, "30s", SECOND / 10, DAY),
        };
        (self.wrong.len() == before).then_some(alerts)
    }

    fn api(&mut self, written: written::Api) -> Option<Api> {
        let text = self.text("api.listen", written.listen, "127.0.0.1:9091");
        let listen = text.parse::<SocketAddr>().ok();
        match listen {
            None => {
                self.say("api.listen", format!("was `{text}`; it must be an address and a port such as 127.0.0.1:9091"))
            }
            Some(listen) if !listen.ip().is_loopback() => self
                .warnings
                .push("api.listen: others reach it, unencrypted; put a server that speaks TLS before it".to_owned()),
            Some(_) => {}
        }
        let mut tokens: Vec<ApiToken> = Vec::new();
        for (index, token) in written.tokens.into_iter().enumerate() {
            let hash = self.text(&format!("api.tokens[{index}].sha256"), Some(token.sha256), "");
            match token::from_hex(&hash) {
                Some(sha256) => tokens.push(ApiToken { name: token.name, sha256 }),
                None => self.say(
                    &format!("api.tokens[{index}].sha256"),
                    "must be 64 hexadecimal digits; `sluicegate-backend api-token` makes a token and its hash",
                ),
            }
        }
        Some(Api { listen: listen?, tokens })
    }

    fn machines(&mut self, written: written::Machines, queues: &Queues) -> Machines {
        let formats = [("string", AuthFormat::String), ("hash", AuthFormat::Hash)];
        let auth_key = self.word("machines.auth_key", written.auth_key, "machine_auth:");
        let mut lists =
            [&queues.incoming, &queues.outgoing, &queues.dead_letters].into_iter().chain(&queues.command_results);
        if !auth_key.is_empty()
            && let Some(list) = lists.find(|list| list.starts_with(&auth_key))
        {
            let what = format!(
                "must begin no list's name, or a repair takes `{list}` for a machine's key; end it with a colon, say"
            );
            self.say("machines.auth_key", what);
        }
        Machines {
            auth_format: self.one_of("machines.auth_format", written.auth_format, &formats),
            auth_key,
            reserved: set(written.reserved, &["sluicegate", "sluicegate-commands"]),
        }
    }
}

/// Whether two names are the same; where one is empty, that was told already.
fn two_are_one(names: &[&String]) -> bool {
    names.iter().collect::<BTreeSet<_>>().len() < names.len() && names.iter().all(|name| !name.is_empty())
}
