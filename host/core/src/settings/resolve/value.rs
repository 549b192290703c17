//! One key's value: found, filled in, read as its type.

use std::time::Duration;

use super::{Origin, Resolver};
use crate::settings::error::Place;
use crate::settings::interpolate::interpolate;
use crate::settings::table::{self, Key, Type};
use crate::settings::written::{Entry, Section, Value};
use crate::settings::{ByteSize, Effective, units};

/// A value on its way. Where it came from, the resolver remembers by its path.
pub(super) struct Found {
    pub(super) texts: Vec<String>,
    pub(super) path: String,
    kind: Type,
    hidden: bool,
}

/// Which values nobody is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hide {
    /// Those that a file gave a part of: `${file:…}` is for secrets.
    FromFile,
    /// Those that anything outside gave a part of: which settings of a plugin are secrets, the host cannot know, and what
    /// a person keeps out of the file mostly is one.
    FromOutside,
    /// All.
    Always,
}

impl Resolver<'_> {
    /// A key's value after interpolation, from the file or its default; none where it has neither, or is wrong.
    pub(super) fn find(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<Found> {
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
        self.interpolated(&value, place, path, key.kind, if key.secret { Hide::Always } else { Hide::FromFile })
    }

    pub(super) fn interpolated(
        &mut self,
        value: &Value,
        place: Option<Place>,
        path: String,
        kind: Type,
        hide: Hide,
    ) -> Option<Found> {
        let (texts, list) = match value {
            Value::Text(text) | Value::Bare(text) => (std::slice::from_ref(text), false),
            Value::List(texts) => (texts.as_slice(), true),
            Value::Broken => return None,
        };
        let text_wanted = matches!(
            kind,
            Type::Text | Type::Percent | Type::MqttUrl | Type::RedisUrl | Type::Offset | Type::Address | Type::Word(_)
        );
        if list != (kind == Type::Texts) || (text_wanted && matches!(value, Value::Bare(_))) {
            let found = match (list, hide) {
                (true, _) => "a list".to_owned(),
                (false, Hide::Always) => "***".to_owned(),
                (false, _) => format!("`{}`", texts[0]),
            };
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
        let hidden = match hide {
            Hide::Always => true,
            Hide::FromOutside => !from.is_empty(),
            Hide::FromFile => from.iter().any(|part| part.starts_with("file ")),
        };
        self.effective.push(Effective::new(&path, &out, list, kind, hidden, place.as_ref(), &from));
        self.origins.insert(path.clone(), Origin { place, from });
        Some(Found { texts: out, path, kind, hidden })
    }

    /// A mistake in a value. What is said of it may hold the value, so of a hidden one only its type is told.
    pub(super) fn misread(&mut self, found: &Found, message: impl Into<String>) {
        if found.hidden {
            self.wrong(None, &found.path, format!("expected {}, found ***", found.kind));
        } else {
            self.wrong(None, &found.path, message);
        }
    }

    /// Reads a found value as its type.
    pub(super) fn read<T>(&mut self, found: &Found, kind: Type, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = found.texts.first()?;
        let value = parse(text);
        if value.is_none() {
            self.misread(found, format!("expected {kind}, found `{text}`"));
        }
        value
    }

    pub(super) fn kind(section: &str, name: &str) -> Type {
        table::of(section).find(|key| key.name == name).map_or(Type::Text, |key| key.kind)
    }

    pub(super) fn text(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<String> {
        self.find(entries, section, name, path).and_then(|found| found.texts.into_iter().next())
    }

    /// A text that must not be empty or hold control characters.
    pub(super) fn word(
        &mut self,
        entries: &Section,
        section: &'static str,
        name: &str,
        path: &str,
        most: usize,
    ) -> Option<String> {
        let found = self.find(entries, section, name, path)?;
        let text = found.texts.into_iter().next()?;
        if !text.is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control) {
            return Some(text);
        }
        self.wrong(None, &found.path, format!("must be 1 to {most} characters, none a control character"));
        None
    }

    pub(super) fn integer(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<u64> {
        let kind = Self::kind(section, name);
        let found = self.find(entries, section, name, path)?;
        self.read(&found, kind, |text| {
            let value = text.parse().ok()?;
            matches!(kind, Type::Integer(least, most) if (least..=most).contains(&value)).then_some(value)
        })
    }

    pub(super) fn duration(
        &mut self,
        entries: &Section,
        section: &'static str,
        name: &str,
        path: &str,
    ) -> Option<Duration> {
        let kind = Self::kind(section, name);
        let found = self.find(entries, section, name, path)?;
        self.read(&found, kind, |text| {
            let value = units::parse_duration(text)?;
            let millis = u64::try_from(value.as_millis()).ok()?;
            matches!(kind, Type::Duration(least, most) if (least..=most).contains(&millis)).then_some(value)
        })
    }

    pub(super) fn size(
        &mut self,
        entries: &Section,
        section: &'static str,
        name: &str,
        path: &str,
    ) -> Option<ByteSize> {
        let kind = Self::kind(section, name);
        let found = self.find(entries, section, name, path)?;
        self.read(&found, kind, |text| {
            let value = units::parse_size(text)?;
            matches!(kind, Type::Size(least, most) if (least..=most).contains(&value.0)).then_some(value)
        })
    }

    /// A share, 0 to 1.
    pub(super) fn share(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<f64> {
        let found = self.find(entries, section, name, path)?;
        self.read(&found, Type::Percent, |text| {
            let percent: f64 = text.strip_suffix('%')?.trim_end().parse().ok()?;
            (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
        })
    }

    /// A number that need not be whole.
    pub(super) fn number(&mut self, entries: &Section, section: &'static str, name: &str, path: &str) -> Option<f64> {
        let kind = Self::kind(section, name);
        let found = self.find(entries, section, name, path)?;
        self.read(&found, kind, |text| {
            let number: f64 = text.parse().ok()?;
            #[expect(clippy::cast_precision_loss, reason = "bounds that a person wrote")]
            let fits = matches!(kind, Type::Number(least, most) if (least as f64..=most as f64).contains(&number));
            fits.then_some(number)
        })
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        entries: &Section,
        name: &str,
        path: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let kind = Self::kind("routes", name);
        let found = self.find(entries, "routes", name, path)?;
        self.read(&found, kind, |text| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value))
    }
}
