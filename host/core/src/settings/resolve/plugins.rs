//! `[plugins.NAME]`: where they are, what they read, how much they may use.

use indexmap::IndexMap;

use super::Resolver;
use super::value::{Found, Hide};
use crate::canary::Machines;
use crate::compared::Tolerance;
use crate::digest::NoDigest;
use crate::http::{Host, HttpGrant};
use crate::settings::Effective;
use crate::settings::effective::bare_or_quoted;
use crate::settings::error::Place;
use crate::settings::resolved::{Canary, Grants, HttpLimits, Limits, Plugin, Probation, Rehearse};
use crate::settings::table::Type;
use crate::settings::written::{self, Section, Value, suggest};
use crate::topic::TopicPattern;

impl Resolver<'_> {
    pub(super) fn plugins<'w>(
        &mut self,
        written: impl Iterator<Item = (&'w String, &'w written::Plugin)>,
        own: bool,
    ) -> IndexMap<String, Plugin> {
        let mut plugins = IndexMap::new();
        for (name, written) in written {
            if written.broken {
                continue;
            }
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
            let digest = self.find(&written.own, "plugins.*", "digest", &section).and_then(|found| {
                let read = found.texts.first()?.parse();
                read.map_err(|error: NoDigest| self.misread(&found, error.to_string())).ok()
            });
            let limits = format!("{section}.limits");
            let limits = self.limits(&written.limits, &limits);
            let fresh = self.fresh(&written.own, &section);
            let rehearse = self.rehearse(&written.rehearse, &format!("{section}.rehearse"));
            let canary = self.canary(written.canary.as_ref(), &written.place, &format!("{section}.canary"));
            let probation = self.probation(&written.probation, &format!("{section}.probation"));
            let grants = self.grants(&written.grants, &format!("{section}.grants"));
            let mut settings = IndexMap::new();
            for (key, entry) in &written.settings {
                let path = format!("{section}.settings.{}", bare_or_quoted(key));
                let text = match &entry.value {
                    Value::Bare(text) => Value::Text(text.clone()),
                    other => other.clone(),
                };
                if let Some(found) = self.interpolated(&text, entry.place.clone(), path, Type::Text, Hide::FromOutside)
                {
                    settings.insert(key.clone(), found.texts.into_iter().next().unwrap_or_default());
                }
            }
            let (Some(mut limits), Some(fresh)) = (limits, fresh) else { continue };
            let (Some(rehearse), Some(canary), Some(probation)) = (rehearse, canary, probation) else { continue };
            if fresh {
                limits.calls = 1;
            }
            let path = path.unwrap_or_default();
            let plugin = Plugin { path, digest, settings, limits, rehearse, canary, probation, grants };
            plugins.insert(name.clone(), plugin);
        }
        plugins
    }

    fn fresh(&mut self, entries: &Section, path: &str) -> Option<bool> {
        let found = self.find(entries, "plugins.*", "instances", path)?;
        self.read(&found, Self::kind("plugins.*", "instances"), |text| match text {
            "warm" => Some(false),
            "fresh" => Some(true),
            _ => None,
        })
    }

    fn limits(&mut self, entries: &Section, path: &str) -> Option<Limits> {
        const SECTION: &str = "plugins.*.limits";
        // Each is read, so that all mistakes are told at once.
        let call_timeout = self.duration(entries, SECTION, "call_timeout", path);
        let memory = self.size(entries, SECTION, "memory", path);
        let output = self.size(entries, SECTION, "output", path);
        let log_bytes = self.size(entries, SECTION, "log_bytes", path);
        let state_value = self.size(entries, SECTION, "state_value", path);
        let mut number = |name| self.integer(entries, SECTION, name, path);
        let (outputs, table_elements) = (number("outputs"), number("table_elements"));
        let (host_calls, log_lines, calls) = (number("host_calls"), number("log_lines"), number("calls"));
        let state_keys = number("state_keys");
        let instances = number("instances");
        let time_per_second = self.duration(entries, SECTION, "time_per_second", path);
        let http = self.http_limits(entries, path);
        let memory = memory?;
        Some(Limits {
            call_timeout: call_timeout?,
            memory,
            output: output?,
            outputs: usize::try_from(outputs?).ok()?,
            table_elements: usize::try_from(table_elements?).ok()?,
            host_calls: u32::try_from(host_calls?).ok()?,
            log_lines: u32::try_from(log_lines?).ok()?,
            log_bytes: log_bytes?,
            calls: u32::try_from(calls?).ok()?,
            instances: match instances {
                Some(instances) => usize::try_from(instances).ok()?,
                None => Limits::instances_of(memory),
            },
            state_keys: state_keys?,
            state_value: state_value?,
            time_per_second,
            http: http?,
        })
    }

    fn http_limits(&mut self, entries: &Section, path: &str) -> Option<HttpLimits> {
        const SECTION: &str = "plugins.*.limits";
        let requests = self.integer(entries, SECTION, "http_requests", path);
        let in_flight = self.integer(entries, SECTION, "http_in_flight", path);
        let request = self.size(entries, SECTION, "http_request", path);
        let response = self.size(entries, SECTION, "http_response", path);
        Some(HttpLimits {
            requests: u32::try_from(requests?).ok()?,
            in_flight: usize::try_from(in_flight?).ok()?,
            request: request?,
            response: response?,
        })
    }

    fn rehearse(&mut self, entries: &Section, path: &str) -> Option<Rehearse> {
        const SECTION: &str = "plugins.*.rehearse";
        let messages = self.integer(entries, SECTION, "messages", path);
        let tolerance = self.tolerance(entries, SECTION, path);
        Some(Rehearse { messages: usize::try_from(messages?).ok()?, tolerance: tolerance? })
    }

    /// None within: the section is not there, and every new build is live for all at once.
    fn canary(&mut self, entries: Option<&Section>, place: &Option<Place>, path: &str) -> Option<Option<Canary>> {
        const SECTION: &str = "plugins.*.canary";
        let Some(entries) = entries else { return Some(None) };
        let percent = self.number(entries, SECTION, "percent", path);
        let named = self.find(entries, SECTION, "machines", path);
        let for_ = self.duration(entries, SECTION, "for", path);
        let fits = |text: &&String| !text.is_empty() && text.len() <= 1_024 && !text.chars().any(char::is_control);
        if let Some(found) = &named
            && let Some(odd) = found.texts.iter().find(|text| !fits(text))
        {
            self.misread(found, format!("`{}` is no serial number, nor a pattern of one", odd.escape_debug()));
        }
        let machines = Machines { percent: percent?, named: named?.texts };
        if machines == Machines::default() {
            self.wrong(place.clone(), path, "names no machines; set `percent`, `machines` or both");
        }
        Some(Some(Canary { machines, for_: for_? }))
    }

    fn probation(&mut self, entries: &Section, path: &str) -> Option<Probation> {
        const SECTION: &str = "plugins.*.probation";
        let for_ = self.duration(entries, SECTION, "for", path);
        let min_calls = self.integer(entries, SECTION, "min_calls", path);
        let tolerance = self.tolerance(entries, SECTION, path);
        Some(Probation { for_: for_?, min_calls: min_calls?, tolerance: tolerance? })
    }

    fn tolerance(&mut self, entries: &Section, section: &'static str, path: &str) -> Option<Tolerance> {
        let new_failures = self.share(entries, section, "max_new_failures", path);
        let slowdown = self.number(entries, section, "max_slowdown", path);
        Some(Tolerance { new_failures: new_failures?, slowdown: slowdown? })
    }

    pub(super) fn grants(&mut self, entries: &Section, path: &str) -> Grants {
        let state = self.find(entries, "plugins.*.grants", "state", path);
        let state = state.and_then(|found| self.read(&found, Type::Bool, |text| text.parse().ok())).unwrap_or_default();
        let publish = self.find(entries, "plugins.*.grants", "publish", path);
        let mut topics = Vec::new();
        for topic in publish.iter().flat_map(|found| &found.texts) {
            match (TopicPattern::parse(topic), &publish) {
                // Those are the broker's, and no plugin reaches them whatever is granted [MQTT-4.7.2].
                (Ok(_), Some(found)) if topic.starts_with('$') => {
                    self.misread(found, format!("`{topic}`: it begins with `$`, which is the broker's"));
                }
                (Ok(topic), _) => topics.push(topic),
                (Err(error), Some(found)) => self.misread(found, format!("`{topic}`: {error}")),
                (Err(_), None) => {}
            }
        }
        Grants { state, publish: topics, http: self.http(entries, path) }
    }

    fn http(&mut self, entries: &Section, path: &str) -> Vec<HttpGrant> {
        let servers = self.find(entries, "plugins.*.grants", "http", path);
        let private = self.find(entries, "plugins.*.grants", "http_private", path);
        let mut grants: Vec<HttpGrant> = Vec::new();
        for text in servers.iter().flat_map(|found| &found.texts) {
            match (HttpGrant::parse(text), &servers) {
                (Err(error), Some(found)) => self.misread(found, format!("`{text}`: {error}")),
                (Ok(grant), _) if !grants.contains(&grant) => grants.push(grant),
                _ => {}
            }
        }
        for text in private.iter().flat_map(|found| &found.texts) {
            let name = Host::parse(text).ok().filter(|host| matches!(host, Host::Name(_)));
            let mut known = false;
            for grant in grants.iter_mut().filter(|grant| Some(&grant.host) == name.as_ref()) {
                (grant.private, known) = (true, true);
            }
            if let (false, Some(found)) = (known, &private) {
                self.misread(found, format!("`{text}` is no name in grants.http; write it there, too, as it is here"));
            }
        }
        grants
    }

    /// Whether a plugin that is named in `found` has a section.
    pub(super) fn known(&mut self, name: &str, plugins: &[&str], found: &Found) {
        if !plugins.contains(&name) && !self.errors.iter().any(|error| error.key == "plugins") {
            let hint = match suggest(name, plugins.iter().copied()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("write a section `[plugins.{name}]` with its path"),
            };
            self.misread(found, format!("there is no plugin `{name}`; {hint}"));
        }
    }
}
