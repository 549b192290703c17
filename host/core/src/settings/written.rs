//! The settings as written: a TOML text made into entries that remember where they stand. Nothing is resolved here.

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::effective::bare_or_quoted;
use super::error::{Place, SettingsError};
use super::table::{self, Key};

/// One value, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) place: Option<Place>,
}

/// A scalar as text, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// A number or a boolean.
    Bare(String),
    List(Vec<String>),
    /// It stands there, and what is wrong with it is said already.
    Broken,
}

/// The entries of one section, by key.
pub(super) type Section = IndexMap<&'static str, Entry>;

/// `[plugins.NAME]`
#[derive(Debug, Default)]
pub(super) struct Plugin {
    pub(super) place: Option<Place>,
    /// It is no section, and that is said already.
    pub(super) broken: bool,
    pub(super) own: Section,
    pub(super) limits: Section,
    pub(super) rehearse: Section,
    /// None: it is not there.
    pub(super) canary: Option<Section>,
    pub(super) probation: Section,
    pub(super) grants: Section,
    pub(super) settings: IndexMap<String, Entry>,
}

/// A route and where it begins.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) place: Option<Place>,
    pub(super) own: Section,
}

/// A whole file.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// By the name of the section.
    pub(super) sections: IndexMap<&'static str, Section>,
    pub(super) plugins: Option<IndexMap<String, Plugin>>,
    pub(super) routes: Option<Vec<Route>>,
    /// Where the first of the two stands.
    pub(super) own: Option<Place>,
}

/// The sections that are tables of keys.
const SECTIONS: [&str; 9] = ["gateway", "mqtt", "redis", "queues", "spool", "trust", "commands", "admin", "access"];

type Table<'i> = DeTable<'i>;

pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    pub(super) errors: Vec<SettingsError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, errors: Vec::new() }
    }

    pub(super) fn read(&mut self) -> Written {
        let mut written = Written::default();
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let span = error.span().unwrap_or_default();
            let mut message = error.message().to_owned();
            if message == "duplicate key" {
                // The parser does not say which.
                let named = self.text.get(span.clone()).and_then(|text| text.lines().next()).unwrap_or_default();
                message = format!("`{named}` is there twice; leave one of them");
            }
            self.wrong(span.start, "", message);
        }
        if !errors.is_empty() {
            return written;
        }
        for (name, value) in root.get_ref() {
            let (at, name) = (name.span().start, name.get_ref().as_ref());
            if matches!(name, "plugins" | "routes") && written.own.is_none() {
                written.own = Some(self.place(at));
            }
            match name {
                "plugins" => written.plugins = self.table(value, "plugins").map(|table| self.plugins(table)),
                "routes" => written.routes = self.routes(value),
                _ => match SECTIONS.into_iter().find(|section| *section == name) {
                    Some(section) => {
                        if let Some(table) = self.table(value, section) {
                            let entries = self.section(table, section, section);
                            written.sections.insert(section, entries);
                        }
                    }
                    None => {
                        let known = SECTIONS.into_iter().chain(["plugins", "routes"]);
                        self.unknown(at, name, "section", name, known);
                    }
                },
            }
        }
        written
    }

    fn place(&self, at: usize) -> Place {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Place { file: self.file.to_owned(), line, column }
    }

    fn wrong(&mut self, at: usize, key: &str, message: String) {
        let place = Some(self.place(at));
        self.errors.push(SettingsError { place, from: Vec::new(), key: key.to_owned(), message });
    }

    fn unknown(&mut self, at: usize, path: &str, what: &str, name: &str, known: impl Iterator<Item = &'static str>) {
        let known: Vec<&str> = known.collect();
        let hint = match suggest(name, known.iter().copied()) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("allowed are {}", known.join(", ")),
        };
        self.wrong(at, path, format!("unknown {what}; {hint}"));
    }

    fn table<'t, 'i>(&mut self, value: &'t Spanned<DeValue<'i>>, path: &str) -> Option<&'t Table<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(value.span().start, path, format!("must be a section, `[{path}]`"));
        }
        table
    }

    fn section(&mut self, table: &Table<'_>, section: &'static str, path: &str) -> Section {
        self.section_but(table, section, path, &[])
    }

    /// `but`: sub-sections that the caller reads.
    fn section_but(&mut self, table: &Table<'_>, section: &'static str, path: &str, but: &[&'static str]) -> Section {
        let mut entries = Section::new();
        for (name, value) in table {
            let text = name.get_ref().as_ref();
            let full = format!("{path}.{text}");
            match table::of(section).find(|key| key.name == text) {
                Some(key) => {
                    let entry = self.entry(key, value, &full);
                    entries.insert(key.name, entry);
                }
                None if but.contains(&text) => {}
                None => {
                    let known = table::of(section).map(|key| key.name).chain(but.iter().copied());
                    self.unknown(name.span().start, &full, "key", text, known);
                }
            }
        }
        entries
    }

    fn entry(&mut self, key: &Key, value: &Spanned<DeValue<'_>>, path: &str) -> Entry {
        let at = value.span().start;
        let place = Some(self.place(at));
        let value = scalar(value.get_ref()).unwrap_or_else(|| {
            let items = value.get_ref().as_array().into_iter().flat_map(|items| items.iter().enumerate());
            let other = items.into_iter().find(|(_, item)| !item.get_ref().is_str());
            let (at, found) = match other {
                Some((index, item)) => {
                    (item.span().start, format!("{} as number {} of the list", item.get_ref().type_str(), index + 1))
                }
                None => (at, value.get_ref().type_str().to_owned()),
            };
            self.wrong(at, path, format!("expected {}, found {found}", key.kind));
            Value::Broken
        });
        Entry { value, place }
    }

    fn plugins(&mut self, table: &Table<'_>) -> IndexMap<String, Plugin> {
        let mut plugins = IndexMap::new();
        for (name, value) in table {
            let at = name.span().start;
            let name = name.get_ref().as_ref();
            let path = format!("plugins.{name}");
            let fits = name.len() <= 64
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if !fits {
                self.wrong(at, &path, "a plugin's name is 1 to 64 lower case letters, digits and hyphens".to_owned());
            }
            let Some(table) = self.table(value, &path) else {
                plugins.insert(name.to_owned(), Plugin { broken: true, ..Plugin::default() });
                continue;
            };
            let mut plugin = Plugin {
                place: Some(self.place(at)),
                own: self.section_but(
                    table,
                    "plugins.*",
                    &path,
                    &["settings", "limits", "rehearse", "canary", "probation", "grants"],
                ),
                ..Plugin::default()
            };
            for (name, section, entries) in [
                ("limits", "plugins.*.limits", &mut plugin.limits),
                ("rehearse", "plugins.*.rehearse", &mut plugin.rehearse),
                ("probation", "plugins.*.probation", &mut plugin.probation),
                ("grants", "plugins.*.grants", &mut plugin.grants),
            ] {
                let path = format!("{path}.{name}");
                if let Some(table) = table.get(name).and_then(|value| self.table(value, &path)) {
                    *entries = self.section(table, section, &path);
                }
            }
            let path_of_canary = format!("{path}.canary");
            if let Some(table) = table.get("canary").and_then(|value| self.table(value, &path_of_canary)) {
                plugin.canary = Some(self.section(table, "plugins.*.canary", &path_of_canary));
            }
            if let Some(own) = table.get("settings").and_then(|value| self.table(value, &format!("{path}.settings"))) {
                for (name, value) in own {
                    let place = Some(self.place(value.span().start));
                    match scalar(value.get_ref()) {
                        Some(value @ (Value::Text(_) | Value::Bare(_))) => {
                            plugin.settings.insert(name.get_ref().to_string(), Entry { value, place });
                        }
                        _ => self.wrong(
                            value.span().start,
                            &format!("{path}.settings.{}", bare_or_quoted(name.get_ref())),
                            "expected a text, a number or a boolean: a plugin reads its settings as text".to_owned(),
                        ),
                    }
                }
            }
            plugins.insert(name.to_owned(), plugin);
        }
        plugins
    }

    fn routes(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<Route>> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(value.span().start, "routes", "must be a list of sections, `[[routes]]`".to_owned());
            return None;
        };
        let mut routes = Vec::new();
        for (index, value) in array.iter().enumerate() {
            let path = format!("routes[{index}]");
            if let Some(table) = self.table(value, &path) {
                let place = Some(self.place(value.span().start));
                routes.push(Route { place, own: self.section(table, "routes", &path) });
            }
        }
        Some(routes)
    }
}

fn scalar(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Integer(number) if number.radix() == 10 => Some(Value::Bare(number.as_str().replace('_', ""))),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| Value::Bare(number.to_string()))
        }
        DeValue::Float(number) => Some(Value::Bare(number.as_str().to_owned())),
        DeValue::Boolean(value) => Some(Value::Bare(value.to_string())),
        DeValue::Array(items) => {
            items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect::<Option<_>>().map(Value::List)
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

/// The known word that was probably meant.
pub(super) fn suggest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
