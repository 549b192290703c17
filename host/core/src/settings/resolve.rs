//! Written → resolved: defaults filled in, values read as their key's type, keys checked against each other. All mistakes
//! are told at once.
//!
//! - `value`: one key's value.
//! - `servers`, `plugins`, `routes`: the sections that are more than their keys.

mod plugins;
mod routes;
mod servers;
mod value;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::error::{Place, SettingsError};
use super::interpolate::Sources;
use super::resolved::{Access, Admin, Commands, CompileLimits, Gateway, Queues, Secret, Settings, Spool};
use super::table::Type;
use super::written::{Section, Written};
use super::{BUILT_IN_NAME, Effective, units};
use crate::topic::TopicTemplate;
use crate::trust::{Trust, TrustedKey};

/// What resolving needs from outside.
pub struct Outside<'a> {
    /// Variables and files.
    pub sources: Sources<'a>,
    /// The settings file's folder: relative paths begin there.
    pub base: &'a Path,
    /// Where a plugin of the built-in settings is found.
    pub built_in_plugin: &'a dyn Fn(&str) -> PathBuf,
}

pub(super) struct Resolver<'a> {
    pub(super) outside: &'a Outside<'a>,
    pub(super) errors: Vec<SettingsError>,
    pub(super) warnings: Vec<String>,
    pub(super) effective: Vec<Effective>,
    pub(super) origins: HashMap<String, Origin>,
}

/// Where the value of a key came from.
pub(super) struct Origin {
    place: Option<Place>,
    from: Vec<String>,
}

/// The shortest `access.secret`.
const SECRET: usize = 16;

/// The plugin that checks commands where no other is named.
const STOCK_VALIDATOR: &str = "command-validation";

impl Resolver<'_> {
    pub(super) fn resolve(&mut self, written: &Written, built_in: &Written) -> Option<Settings> {
        let empty = Section::new();
        let section = |name: &str| written.sections.get(name).unwrap_or(&empty);
        let gateway = self.gateway(section("gateway"));
        let mqtt = self.mqtt(section("mqtt"));
        let redis = self.redis(section("redis"));
        let queues = self.queues(section("queues"));
        let spool = self.spool(section("spool"));
        let trust = self.trust(section("trust"));
        // A file that names neither plugins nor routes wants the built-in ones.
        let own = written.plugins.is_some() || written.routes.is_some();
        let (plugins, routes) = if own {
            (written.plugins.as_ref(), written.routes.as_deref())
        } else {
            (built_in.plugins.as_ref(), built_in.routes.as_deref())
        };
        // As written: what is wrong in a plugin's section is said there, and the plugin is no unknown one for it.
        let names: Vec<&str> = plugins.into_iter().flat_map(|plugins| plugins.keys()).map(String::as_str).collect();
        let plugins = self.plugins(plugins.into_iter().flatten(), own);
        let incoming = queues.as_ref().map_or_else(String::new, |queues| queues.incoming.clone());
        let routes = self.routes(routes.unwrap_or_default(), &incoming, &names);
        if routes.is_empty() && !self.errors.iter().any(|error| error.key.starts_with("routes")) {
            let message = "there is none; write at least one `[[routes]]` with name, topic and handlers";
            self.wrong(written.own.clone(), "routes", message);
        }
        let commands = self.commands(section("commands"), &names);
        let admin = self.admin(section("admin"));
        let access = self.access(section("access"));
        for name in plugins.keys() {
            let used = routes.iter().any(|route| route.handlers.contains(name))
                || commands.as_ref().is_some_and(|commands| commands.validator.as_ref() == Some(name));
            if !used {
                self.warnings.push(format!("plugins.{name}: no route and no command uses it"));
            }
        }
        for (name, plugin) in &plugins {
            let Some(commands) = &commands else { continue };
            if let Some(grant) = plugin.grants.publish.iter().find(|grant| grant.overlaps(commands.topic.pattern())) {
                self.warnings.push(format!(
                    "plugins.{name}.grants.publish: `{grant}` holds commands.topic: the plugin may send commands to machines, and no validator sees them"
                ));
            }
        }
        let settings = Settings {
            gateway: gateway?,
            mqtt: mqtt?,
            redis: redis?,
            queues: queues?,
            spool: spool?,
            trust,
            plugins,
            routes,
            commands: commands?,
            admin: admin?,
            access: access?,
        };
        if self.errors.is_empty() {
            for mistake in super::cross::check(&settings) {
                let place = self.place_in_file(&mistake.key).or_else(|| self.place_in_file(&mistake.with));
                self.wrong(place, &mistake.key, mistake.message);
            }
        }
        self.errors.is_empty().then_some(settings)
    }

    /// A mistake; without a place it is where the key's value stands, and what gave a part of that value is named.
    fn wrong(&mut self, place: Option<Place>, key: &str, message: impl Into<String>) {
        let origin = self.origins.get(key);
        let place = place.or_else(|| origin?.place.clone());
        let from = origin.map_or_else(Vec::new, |origin| origin.from.clone());
        self.errors.push(SettingsError { place, from, key: key.to_owned(), message: message.into() });
    }

    /// Where a key's value stands in the settings file; none where that does not hold it.
    fn place_in_file(&self, key: &str) -> Option<Place> {
        self.origins.get(key)?.place.clone().filter(|place| place.file != BUILT_IN_NAME)
    }

    fn gateway(&mut self, entries: &Section) -> Option<Gateway> {
        let instance = self.find(entries, "gateway", "instance", "gateway");
        let instance = instance.and_then(|found| {
            let fits = |text: &str| {
                (1..=64).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
            };
            let text = found.texts.first()?;
            if !fits(text) {
                let message = format!("must be 1 to 64 of letters, digits, `_`, `.` and `-`, found `{text}`");
                self.misread(&found, message);
                return None;
            }
            Some(text.clone())
        });
        let zone = self.find(entries, "gateway", "time_zone", "gateway");
        let time_zone = zone.and_then(|found| self.read(&found, Type::Offset, units::parse_offset));
        let shutdown_timeout = self.duration(entries, "gateway", "shutdown_timeout", "gateway");
        let state = self.word(entries, "gateway", "state", "gateway", 4_096);
        let compile_memory = self.size(entries, "gateway", "compile_memory", "gateway");
        let compile_time = self.duration(entries, "gateway", "compile_time", "gateway");
        Some(Gateway {
            instance: instance?,
            time_zone: time_zone?,
            shutdown_timeout: shutdown_timeout?,
            state: self.outside.base.join(state?),
            compile: CompileLimits { memory: compile_memory?, time: compile_time? },
        })
    }

    fn queues(&mut self, entries: &Section) -> Option<Queues> {
        let incoming = self.word(entries, "queues", "incoming", "queues", 256);
        let outgoing = self.word(entries, "queues", "outgoing", "queues", 256);
        let dead_letters = self.word(entries, "queues", "dead_letters", "queues", 256);
        let dead_letters_max = self.integer(entries, "queues", "dead_letters_max", "queues");
        let command_results = self.word(entries, "queues", "command_results", "queues", 256);
        let incoming_max = self.integer(entries, "queues", "incoming_max", "queues");
        let queues = Queues {
            incoming: incoming?,
            outgoing: outgoing?,
            dead_letters: dead_letters?,
            command_results,
            incoming_max: incoming_max.filter(|most| *most > 0),
            dead_letters_max: dead_letters_max?,
        };
        if queues.outgoing.contains(['{', '}']) {
            self.wrong(None, "queues.outgoing", "must hold no braces: they are what a Redis cluster places keys by");
        }
        Some(queues)
    }

    fn trust(&mut self, entries: &Section) -> Trust {
        let required = self.find(entries, "trust", "required", "trust");
        let required = required.and_then(|found| self.read(&found, Type::Bool, |text| text.parse().ok()));
        let mut trust = Trust { required: required.unwrap_or_default(), ..Trust::default() };
        if let Some(found) = self.find(entries, "trust", "keys", "trust") {
            for line in &found.texts {
                match TrustedKey::parse(line) {
                    Ok(key) => trust.keys.push(key),
                    Err(error) => self.misread(&found, format!("`{line}`: {error}")),
                }
            }
            if trust.required && found.texts.is_empty() {
                self.wrong(None, "trust.required", "needs a key in `trust.keys`: no build could be taken");
            }
        }
        if let Some(found) = self.find(entries, "trust", "revoked", "trust") {
            for text in &found.texts {
                match text.parse() {
                    Ok(digest) => trust.revoked.push(digest),
                    Err(error) => self.misread(&found, format!("`{text}`: {error}")),
                }
            }
        }
        trust
    }

    fn spool(&mut self, entries: &Section) -> Option<Spool> {
        let path = self.word(entries, "spool", "path", "spool", 4_096);
        let max_size = self.size(entries, "spool", "max_size", "spool");
        Some(Spool { path: self.outside.base.join(path?), max_size: max_size? })
    }

    fn commands(&mut self, entries: &Section, plugins: &[&str]) -> Option<Commands> {
        let topic = self.find(entries, "commands", "topic", "commands");
        let topic = topic.and_then(|found| match TopicTemplate::parse(found.texts.first()?, "target") {
            Ok(template) => Some(template),
            Err(error) => {
                self.misread(&found, error.to_string());
                None
            }
        });
        let validator = self.find(entries, "commands", "validator", "commands").and_then(|found| {
            let name = found.texts.first()?;
            self.known(name, plugins, &found);
            Some(name.clone())
        });
        // Whoever has the stock validator wants it used; leaving a key out must not open the downlink.
        let stock = || plugins.contains(&STOCK_VALIDATOR).then(|| STOCK_VALIDATOR.to_owned());
        if validator.is_none() && stock().is_some() {
            self.effective.push(Effective::derived(
                "commands.validator",
                STOCK_VALIDATOR,
                "there is a plugin of this name",
            ));
        }
        let validator = validator.or_else(stock);
        if validator.is_none() {
            self.warnings.push(
                "commands.validator: none is set, so commands are sent with the gateway's own checks only".to_owned(),
            );
        }
        let expiry = self.duration(entries, "commands", "expiry", "commands");
        let in_flight = self.integer(entries, "commands", "in_flight", "commands");
        let wait_for_subscriber = self.duration(entries, "commands", "wait_for_subscriber", "commands");
        let dedupe = self.duration(entries, "commands", "dedupe", "commands");
        Some(Commands {
            topic: topic?,
            validator,
            expiry: expiry?,
            in_flight: usize::try_from(in_flight?).ok()?,
            wait_for_subscriber: wait_for_subscriber?,
            dedupe: dedupe?,
        })
    }

    fn admin(&mut self, entries: &Section) -> Option<Admin> {
        let found = self.find(entries, "admin", "listen", "admin")?;
        let listen = self.read(&found, Type::Address, |text| text.parse::<SocketAddr>().ok())?;
        Some(Admin { listen })
    }

    fn access(&mut self, entries: &Section) -> Option<Access> {
        let listen = match self.find(entries, "access", "listen", "access") {
            Some(found) => Some(self.read(&found, Type::Address, |text| text.parse::<SocketAddr>().ok())?),
            None => None,
        };
        let secret = self.find(entries, "access", "secret", "access");
        let secret = secret.and_then(|found| {
            // It goes into a header, and whoever guesses it may try tokens.
            let fits = |text: &str| text.len() >= SECRET && text.bytes().all(|byte| byte.is_ascii_graphic());
            let secret = found.texts.into_iter().next().filter(|text| fits(text));
            if secret.is_none() {
                let message = format!("must be {SECRET} or more visible ASCII characters without a space");
                self.wrong(None, &found.path, message);
            }
            secret.map(Secret)
        });
        if listen.is_some() && secret.is_none() && !self.errors.iter().any(|error| error.key == "access.secret") {
            self.wrong(None, "access.listen", "needs `access.secret` beside it: whoever reaches it could try tokens");
        }
        let gateway_user = self.word(entries, "access", "gateway_user", "access", 64);
        let keys = self.word(entries, "access", "keys", "access", 256);
        let cache_entries = self.integer(entries, "access", "cache_entries", "access");
        let cache_ttl = self.duration(entries, "access", "cache_ttl", "access");
        let failures_per_minute = self.integer(entries, "access", "failures_per_minute", "access");
        Some(Access {
            listen,
            secret,
            gateway_user: gateway_user?,
            keys: keys?,
            cache_entries: usize::try_from(cache_entries?).ok()?,
            cache_ttl: cache_ttl?,
            failures_per_minute: u32::try_from(failures_per_minute?).ok()?,
        })
    }
}
