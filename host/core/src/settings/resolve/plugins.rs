//! `[plugins.NAME]`: where they are, what they read, how much they may use.

use indexmap::IndexMap;

use super::Resolver;
use crate::settings::Effective;
use crate::settings::error::Place;
use crate::settings::resolved::{Grants, Limits, Plugin};
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

    pub(super) fn grants(&mut self, entries: &Section, path: &str) -> Grants {
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

    pub(super) fn known(&mut self, name: &str, plugins: &IndexMap<String, Plugin>, place: Option<Place>, path: &str) {
        if !plugins.contains_key(name) {
            let hint = match suggest(name, plugins.keys().map(String::as_str)) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("write a section `[plugins.{name}]` with its path"),
            };
            self.wrong(place, path, format!("there is no plugin `{name}`; {hint}"));
        }
    }
}
