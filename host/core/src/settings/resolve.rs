//! Written → resolved: defaults filled in, values read as their key's type, keys checked against each other. All mistakes
//! are told at once.

mod servers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;

use super::error::{Place, SettingsError};
use super::interpolate::{Sources, interpolate};
use super::resolved::{
    Admin, Commands, Gateway, Grants, Limits, OnFailure, Plugin, Priority, Queues, Route, Settings, Spool, WhenBehind,
};
use super::table::{self, Key, Type};
use super::written::{self, Entry, Section, Value, Written, suggest};
use super::{ByteSize, Effective, units};
use crate::topic::{TopicPattern, TopicTemplate};

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
    pub(super) without_effect: Vec<String>,
    pub(super) effective: Vec<Effective>,
}

/// A value on its way: where it came from goes with it.
struct Found {
    texts: Vec<String>,
    list: bool,
    place: Option<Place>,
    path: String,
}

impl Resolver<'_> {
    pub(super) fn resolve(&mut self, written: &Written, built_in: &Written) -> Option<Settings> {
        let empty = Section::new();
        let section = |name: &str| written.sections.get(name).unwrap_or(&empty);
        let gateway = self.gateway(section("gateway"));
        let mqtt = self.mqtt(section("mqtt"));
        let redis = self.redis(section("redis"));
        let queues = self.queues(section("queues"));
        let spool = self.spool(section("spool"));
        // A file that names neither plugins nor routes wants the built-in ones.
        let own = written.plugins.is_some() || written.routes.is_some();
        let (plugins, routes) = if own {
            (written.plugins.as_ref(), written.routes.as_deref())
        } else {
            (built_in.plugins.as_ref(), built_in.routes.as_deref())
        };
        let plugins = self.plugins(plugins.into_iter().flatten(), own);
        let incoming = queues.as_ref().map_or_else(String::new, |queues| queues.incoming.clone());
        let routes = self.routes(routes.unwrap_or_default(), &incoming, &plugins);
        let commands = self.commands(section("commands"), &plugins);
        let admin = self.admin(section("admin"));
        for name in plugins.keys() {
            let used = routes.iter().any(|route| route.handlers.contains(name))
                || commands.as_ref().is_some_and(|commands| commands.validator.as_ref() == Some(name));
            if !used {
                self.warnings.push(format!("plugins.{name}: no route and no command uses it"));
            }
        }
        let settings = Settings {
            gateway: gateway?,
            mqtt: mqtt?,
            redis: redis?,
            queues: queues?,
            spool: spool?,
            plugins,
            routes,
            commands: commands?,
            admin: admin?,
        };
        if self.errors.is_empty() {
            self.errors.extend(super::cross::check(&settings));
        }
        self.errors.is_empty().then_some(settings)
    }

    fn wrong(&mut self, place: Option<Place>, key: &str, message: impl Into<String>) {
        self.errors.push(SettingsError { place, key: key.to_owned(), message: message.into() });
    }

    /// A key's value after interpolation, from the file or its default; none where it has neither, or is wrong.
    fn find(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<Found> {
        let key: &Key = table::of(section).find(|key| key.name == name)?;
        let path = format!("{path}.{name}");
        let (value, place) = match (entries.get(key.name), key.default) {
            (Some(Entry { value, place }), _) => {
                if !key.effect {
                    self.without_effect.push(path.clone());
                }
                (value.clone(), place.clone())
            }
            (None, Some("[]")) => (Value::List(Vec::new()), None),
            (None, Some(default)) => (Value::Text(default.to_owned()), None),
            (None, None) => return None,
        };
        self.interpolated(&value, place, path, key.kind, key.secret)
    }

    fn interpolated(
        &mut self,
        value: &Value,
        place: Option<Place>,
        path: String,
        kind: Type,
        secret: bool,
    ) -> Option<Found> {
        let (texts, list) = match value {
            Value::Text(text) | Value::Bare(text) => (std::slice::from_ref(text), false),
            Value::List(texts) => (texts.as_slice(), true),
        };
        let text_wanted =
            matches!(kind, Type::Text | Type::MqttUrl | Type::RedisUrl | Type::Offset | Type::Address | Type::Word(_));
        if list != (kind == Type::Texts) || (text_wanted && matches!(value, Value::Bare(_))) {
            let found = if list { "a list".to_owned() } else { format!("`{}`", texts[0]) };
            self.wrong(place, &path, format!("expected {kind}, found {found}"));
            return None;
        }
        let (mut out, mut from) = (Vec::new(), Vec::new());
        for text in texts {
            match interpolate(text, &self.outside.sources) {
                Ok(done) => {
                    from.extend(done.from);
                    out.push(done.text);
                }
                Err(reason) => {
                    self.wrong(place, &path, reason);
                    return None;
                }
            }
        }
        self.effective.push(Effective::new(&path, &out, list, kind, secret, place.as_ref(), &from));
        Some(Found { texts: out, list, place, path })
    }

    /// Reads a found value as its type.
    fn read<T>(&mut self, found: &Found, kind: Type, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = found.texts.first()?;
        let value = parse(text);
        if value.is_none() {
            self.wrong(found.place.clone(), &found.path, format!("expected {kind}, found `{text}`"));
        }
        value
    }

    fn kind(section: &str, name: &str) -> Type {
        table::of(section).find(|key| key.name == name).map_or(Type::Text, |key| key.kind)
    }

    fn text(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<String> {
        self.find(entries, section, name, path).and_then(|found| found.texts.into_iter().next())
    }

    /// A text that must not be empty or hold control characters.
    fn word(
        &mut self,
        entries: &Section,
        section: &'static str,
        name: &str,
        path: &str,
        most: usize,
    ) -> Option<String> {
        let found = self.find(entries, section, name, path)?;
        self.read(&found, Type::Text, |text| {
            let fits = !text.is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control);
            fits.then(|| text.to_owned())
        })
        .or_else(|| {
            // Says what a text must be here, in place of what the type alone says.
            if let Some(error) = self.errors.last_mut() {
                error.message = format!("must be 1 to {most} characters, none a control character");
            }
            None
        })
    }

    fn texts(
        &mut self,
        entries: &Section,
        section: &'static str,
        name: &str,
        path: &str,
    ) -> Option<(Vec<String>, Option<Place>)> {
        self.find(entries, section, name, path).filter(|found| found.list).map(|found| (found.texts, found.place))
    }

    fn integer(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<u64> {
        let kind = Self::kind(section, name);
        let found = self.find(entries, section, name, path)?;
        self.read(&found, kind, |text| {
            let value = text.parse().ok()?;
            matches!(kind, Type::Integer(least, most) if (least..=most).contains(&value)).then_some(value)
        })
    }

    fn duration(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<Duration> {
        let kind = Self::kind(section, name);
        let found = self.find(entries, section, name, path)?;
        self.read(&found, kind, |text| {
            let value = units::parse_duration(text)?;
            let millis = u64::try_from(value.as_millis()).ok()?;
            matches!(kind, Type::Duration(least, most) if (least..=most).contains(&millis)).then_some(value)
        })
    }

    fn size(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<ByteSize> {
        let kind = Self::kind(section, name);
        let found = self.find(entries, section, name, path)?;
        self.read(&found, kind, |text| {
            let value = units::parse_size(text)?;
            matches!(kind, Type::Size(least, most) if (least..=most).contains(&value.0)).then_some(value)
        })
    }

    fn choice<T: Copy>(&mut self, entries: &Section, name: &str, path: &str, words: &[(&str, T)]) -> Option<T> {
        let kind = Self::kind("routes", name);
        let found = self.find(entries, "routes", name, path)?;
        self.read(&found, kind, |text| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value))
    }

    fn gateway(&mut self, entries: &Section) -> Option<Gateway> {
        let instance = self.find(entries, "gateway", "instance", "gateway");
        let instance = instance.and_then(|found| {
            let fits = |text: &str| {
                (1..=64).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
            };
            let text = found.texts.into_iter().next()?;
            if !fits(&text) {
                let message = format!("must be 1 to 64 of letters, digits, `_`, `.` and `-`, found `{text}`");
                self.wrong(found.place, &found.path, message);
                return None;
            }
            Some(text)
        });
        let zone = self.find(entries, "gateway", "time_zone", "gateway");
        let time_zone = zone.and_then(|found| self.read(&found, Type::Offset, units::parse_offset));
        let shutdown_timeout = self.duration(entries, "gateway", "shutdown_timeout", "gateway");
        Some(Gateway { instance: instance?, time_zone: time_zone?, shutdown_timeout: shutdown_timeout? })
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
        let Queues { incoming, outgoing, dead_letters, .. } = &queues;
        if incoming == outgoing || outgoing == dead_letters || incoming == dead_letters {
            let place = ["incoming", "outgoing", "dead_letters"].iter().find_map(|key| entries.get(key)?.place.clone());
            self.wrong(place, "queues", "incoming, outgoing and dead_letters must be three different lists");
        }
        if outgoing.contains(['{', '}']) {
            let place = entries.get("outgoing").and_then(|entry| entry.place.clone());
            self.wrong(place, "queues.outgoing", "must hold no braces: they are what a Redis cluster places keys by");
        }
        Some(queues)
    }

    fn spool(&mut self, entries: &Section) -> Option<Spool> {
        let path = self.word(entries, "spool", "path", "spool", 4_096);
        let max_size = self.size(entries, "spool", "max_size", "spool");
        Some(Spool { path: self.outside.base.join(path?), max_size: max_size? })
    }

    fn plugins<'w>(
        &mut self,
        written: impl Iterator<Item = (&'w String, &'w written::Plugin)>,
        own: bool,
    ) -> IndexMap<String, Plugin> {
        let mut plugins = IndexMap::new();
        for (name, written) in written {
            let section = format!("plugins.{name}");
            let path = if own {
                self.word(&written.own, "plugins.*", "path", &section, 4_096).map(|path| self.outside.base.join(path))
            } else {
                let path = (self.outside.built_in_plugin)(name);
                let shown = path.display().to_string();
                self.effective.push(Effective::new(
                    &format!("{section}.path"),
                    &[shown],
                    false,
                    Type::Text,
                    false,
                    None,
                    &[],
                ));
                Some(path)
            };
            if path.is_none() && !written.own.contains_key("path") {
                self.wrong(
                    written.place.clone(),
                    &format!("{section}.path"),
                    "is missing; it names the component file",
                );
            }
            let limits = format!("{section}.limits");
            let call_timeout = self.duration(&written.limits, "plugins.*.limits", "call_timeout", &limits);
            let memory = self.size(&written.limits, "plugins.*.limits", "memory", &limits);
            let output = self.size(&written.limits, "plugins.*.limits", "output", &limits);
            let grants = self.grants(&written.grants, &format!("{section}.grants"));
            let mut settings = IndexMap::new();
            for (key, entry) in &written.settings {
                let path = format!("{section}.settings.{key}");
                let text = match &entry.value {
                    Value::Bare(text) => Value::Text(text.clone()),
                    other => other.clone(),
                };
                if let Some(found) = self.interpolated(&text, entry.place.clone(), path, Type::Text, false) {
                    settings.insert(key.clone(), found.texts.into_iter().next().unwrap_or_default());
                }
            }
            let (Some(call_timeout), Some(memory), Some(output)) = (call_timeout, memory, output) else { continue };
            let limits = Limits { call_timeout, memory, output };
            plugins.insert(name.clone(), Plugin { path: path.unwrap_or_default(), settings, limits, grants });
        }
        plugins
    }

    fn grants(&mut self, entries: &Section, path: &str) -> Grants {
        let state = self.find(entries, "plugins.*.grants", "state", path);
        let state = state.and_then(|found| self.read(&found, Type::Bool, |text| text.parse().ok())).unwrap_or_default();
        let publish = self.texts(entries, "plugins.*.grants", "publish", path);
        let http = self.texts(entries, "plugins.*.grants", "http", path);
        let publish = publish.map_or_else(Vec::new, |(topics, place)| {
            for topic in &topics {
                if let Err(error) = TopicPattern::parse(topic) {
                    self.wrong(place.clone(), &format!("{path}.publish"), format!("`{topic}`: {error}"));
                }
            }
            topics
        });
        Grants { state, publish, http: http.map(|(hosts, _)| hosts).unwrap_or_default() }
    }

    fn routes(&mut self, written: &[written::Route], incoming: &str, plugins: &IndexMap<String, Plugin>) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        let mut unread = false;
        for (index, written) in written.iter().enumerate() {
            match self.route(index, written, incoming, plugins) {
                Some(route) => {
                    let path = format!("routes[{index}]");
                    if routes.iter().any(|other| other.name == route.name) {
                        let message = format!("`{}` is the name of another route; names are unique", route.name);
                        self.wrong(written.place.clone(), &format!("{path}.name"), message);
                    }
                    if let Some(first) = routes.iter().find(|other| other.topic.covers(&route.topic)) {
                        let message = format!(
                            "`{}` can never match: route `{}` stands before it and takes every topic of it; put it before",
                            route.topic, first.name
                        );
                        self.wrong(written.place.clone(), &format!("{path}.topic"), message);
                    } else if let Some(first) = routes.iter().find(|other| other.topic.overlaps(&route.topic)) {
                        self.warnings.push(format!(
                            "{path}.topic: some topics match route `{}` too, which stands first and takes them; a broker may \
                             deliver them once for each subscription",
                            first.name
                        ));
                    }
                    routes.push(route);
                }
                None => unread = true,
            }
        }
        if routes.is_empty() && !unread {
            self.wrong(None, "routes", "there is none; write at least one `[[routes]]` with name, topic and handlers");
        }
        routes
    }

    fn route(
        &mut self,
        index: usize,
        written: &written::Route,
        incoming: &str,
        plugins: &IndexMap<String, Plugin>,
    ) -> Option<Route> {
        let path = format!("routes[{index}]");
        let own = &written.own;
        for key in ["name", "topic", "handlers"] {
            if !own.contains_key(key) {
                self.wrong(
                    written.place.clone(),
                    &format!("{path}.{key}"),
                    "is missing; a route needs name, topic and handlers",
                );
            }
        }
        let name = self.word(own, "routes", "name", &path, 64);
        let kind = self.word(own, "routes", "type", &path, 64);
        let topic = self.find(own, "routes", "topic", &path);
        let topic = topic.and_then(|found| {
            let pattern = TopicPattern::parse(found.texts.first()?);
            let problem = match &pattern {
                Err(error) => Some(error.to_string()),
                Ok(pattern) if !pattern.captures().any(|name| name == crate::route::SERIAL_NO) => {
                    Some("must hold `{serial_no}` as a level: it says which machine a message is from".to_owned())
                }
                Ok(_) => None,
            };
            match problem {
                Some(problem) => {
                    self.wrong(found.place, &found.path, problem);
                    None
                }
                None => pattern.ok(),
            }
        });
        let handlers = self.texts(own, "routes", "handlers", &path).map(|(handlers, place)| {
            for handler in &handlers {
                self.known(handler, plugins, place.clone(), &format!("{path}.handlers"));
            }
            handlers
        });
        let queue = self.word(own, "routes", "queue", &path, 256).unwrap_or_else(|| incoming.to_owned());
        let qos = self.integer(own, "routes", "qos", &path);
        let attempts = self.integer(own, "routes", "attempts", &path);
        let on_failure = self.choice(
            own,
            "on_failure",
            &path,
            &[
                ("dead-letter", OnFailure::DeadLetter),
                ("drop", OnFailure::Drop),
                ("block", OnFailure::Block),
                ("pass-through", OnFailure::PassThrough),
            ],
        );
        let dedupe = self.duration(own, "routes", "dedupe", &path);
        let priority = self.choice(own, "priority", &path, &[("normal", Priority::Normal), ("low", Priority::Low)]);
        let when_behind =
            self.choice(own, "when_behind", &path, &[("all", WhenBehind::All), ("latest", WhenBehind::Latest)]);
        let name = name?;
        Some(Route {
            kind: kind.unwrap_or_else(|| name.clone()),
            name,
            topic: topic?,
            handlers: handlers?,
            queue,
            qos: u8::try_from(qos?).ok()?,
            attempts: u32::try_from(attempts?).ok()?,
            on_failure: on_failure?,
            dedupe,
            priority: priority?,
            when_behind: when_behind?,
        })
    }

    fn known(&mut self, name: &str, plugins: &IndexMap<String, Plugin>, place: Option<Place>, path: &str) {
        if !plugins.contains_key(name) {
            let hint = match suggest(name, plugins.keys().map(String::as_str)) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("write a section `[plugins.{name}]` with its path"),
            };
            self.wrong(place, path, format!("there is no plugin `{name}`; {hint}"));
        }
    }

    fn commands(&mut self, entries: &Section, plugins: &IndexMap<String, Plugin>) -> Option<Commands> {
        let topic = self.find(entries, "commands", "topic", "commands");
        let topic = topic.and_then(|found| match TopicTemplate::parse(found.texts.first()?, "target") {
            Ok(template) => Some(template),
            Err(error) => {
                self.wrong(found.place, &found.path, error.to_string());
                None
            }
        });
        let validator = self.text(entries, "commands", "validator", "commands");
        if let Some(name) = &validator {
            let place = entries.get("validator").and_then(|entry| entry.place.clone());
            self.known(name, plugins, place, "commands.validator");
        }
        // Whoever has the stock validator wants it used; leaving a key out must not open the downlink.
        let validator =
            validator.or_else(|| plugins.contains_key("command-validation").then(|| "command-validation".to_owned()));
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
}
