//! MQTT topic names, patterns with named captures, and templates that a topic is made from.

use std::fmt;

use crate::message::Field;

/// The longest topic, in bytes: its length is a two byte integer [MQTT-1.5.4].
pub const MAX_BYTES: usize = 65_535;

/// Why a text is no pattern or template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    #[error("the topic is empty")]
    Empty,
    /// [MQTT-4.7.3-3]
    #[error("the topic is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// [MQTT-4.7.3-2], and control characters, which a server may refuse.
    #[error("the topic holds {}; control characters are not allowed", .0.escape_unicode())]
    Control(char),
    /// [MQTT-4.7.1-1], [MQTT-4.7.1-2]: wildcards stand alone in their level, `#` only at the end.
    #[error("level `{0}`: a wildcard stands alone in its level, and `#` only in the last one")]
    Wildcard(String),
    /// `{name}` fills a whole level.
    #[error("level `{0}`: a capture such as `{{serial_no}}` fills a whole level")]
    Capture(String),
    /// A name of a capture is `[a-z_][a-z0-9_]*`.
    #[error("capture `{{{0}}}`: a name is lower case letters, digits and underscores")]
    CaptureName(String),
    /// The same name twice.
    #[error("capture `{{{0}}}` stands there twice")]
    Twice(String),
    /// A template needs this capture once.
    #[error("the topic must hold `{{{0}}}` once, as a level of its own")]
    Missing(String),
    /// A template has no wildcards.
    #[error("the topic holds a wildcard; commands are published, so it must be a full topic with `{{target}}`")]
    NotPublishable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(String),
    Capture(String),
    /// `+`
    Any,
    /// `#`, the last level; matches its parent too [MQTT-4.7.1-2].
    Rest,
}

impl Level {
    /// Whether some one level matches both.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a == b,
            _ => true,
        }
    }
}

/// A topic filter in which levels may be named: `machine/{serial_no}/heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    text: String,
    levels: Vec<Level>,
}

impl TopicPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`TopicError`], for what no broker would take as a filter or what names a level badly.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let levels = parse_levels(text)?;
        Ok(Self { text: text.to_owned(), levels })
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The filter to subscribe with: captures become `+`.
    #[must_use]
    pub fn filter(&self) -> String {
        let levels: Vec<&str> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Literal(text) => text.as_str(),
                Level::Capture(_) | Level::Any => "+",
                Level::Rest => "#",
            })
            .collect();
        levels.join("/")
    }

    /// The names of its captures, in order.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter_map(|level| match level {
            Level::Capture(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// What a topic's named levels are; none where it does not match [MQTT-4.7.1].
    #[must_use]
    pub fn matches(&self, topic: &str) -> Option<Vec<Field>> {
        // A wildcard in the first level does not match a topic that begins with `$` [MQTT-4.7.2-1].
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Literal(_))) {
            return None;
        }
        let mut fields = Vec::new();
        let mut rest = topic.split('/');
        for level in &self.levels {
            if *level == Level::Rest {
                return Some(fields);
            }
            let value = rest.next()?;
            match level {
                Level::Literal(text) if text != value => return None,
                Level::Capture(name) => fields.push(Field { name: name.clone(), value: value.to_owned() }),
                Level::Literal(_) | Level::Any | Level::Rest => {}
            }
        }
        rest.next().is_none().then_some(fields)
    }

    /// Whether every topic of `other` begins with `$`, and no topic of this one does [MQTT-4.7.2-1].
    fn leaves_out(&self, other: &Self) -> bool {
        !matches!(self.levels.first(), Some(Level::Literal(_)))
            && matches!(other.levels.first(), Some(Level::Literal(text)) if text.starts_with('$'))
    }

    /// Whether some topic matches both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.leaves_out(other) || other.leaves_out(self) {
            return false;
        }
        let (mut a, mut b) = (self.levels.iter(), other.levels.iter());
        loop {
            match (a.next(), b.next()) {
                (None, None) | (Some(Level::Rest), _) | (_, Some(Level::Rest)) => return true,
                (Some(x), Some(y)) if x.meets(y) => {}
                _ => return false,
            }
        }
    }

    /// Whether every topic that `other` matches is matched by this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.leaves_out(other) {
            return false;
        }
        let (mut a, mut b) = (self.levels.iter(), other.levels.iter());
        loop {
            match (a.next(), b.next()) {
                (None, None) | (Some(Level::Rest), _) => return true,
                (Some(Level::Literal(x)), Some(Level::Literal(y))) if x == y => {}
                (Some(Level::Capture(_) | Level::Any), Some(Level::Literal(_) | Level::Capture(_) | Level::Any)) => {}
                _ => return false,
            }
        }
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A topic with one gap: `machine/{target}/command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    text: String,
    before: String,
    after: String,
    pattern: TopicPattern,
}

impl TopicTemplate {
    /// Reads a template whose gap is `{name}`.
    ///
    /// # Errors
    /// [`TopicError`], for wildcards, for other captures, for none or two of the one.
    pub fn parse(text: &str, name: &str) -> Result<Self, TopicError> {
        let levels = parse_levels(text)?;
        if levels.iter().any(|level| matches!(level, Level::Any | Level::Rest)) {
            return Err(TopicError::NotPublishable);
        }
        let names: Vec<&Level> = levels.iter().filter(|level| matches!(level, Level::Capture(_))).collect();
        if !matches!(names.as_slice(), [Level::Capture(only)] if only == name) {
            return Err(TopicError::Missing(name.to_owned()));
        }
        let (before, after) =
            text.split_once(&format!("{{{name}}}")).ok_or_else(|| TopicError::Missing(name.to_owned()))?;
        let pattern = TopicPattern::parse(text)?;
        Ok(Self { text: text.to_owned(), before: before.to_owned(), after: after.to_owned(), pattern })
    }

    /// The topic with the gap filled. The caller has checked that `value` is one level ([`check_target`]).
    #[must_use]
    pub fn fill(&self, value: &str) -> String {
        [&self.before, value, &self.after].concat()
    }

    /// All topics that it can be filled to.
    #[must_use]
    pub fn pattern(&self) -> &TopicPattern {
        &self.pattern
    }

    /// The template as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The longest target of a command, in characters.
pub const MAX_TARGET_CHARS: usize = 64;

/// Why a command's target cannot be a level of a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// An empty level would reach nobody.
    #[error("`target` is empty; it must be 1 to {MAX_TARGET_CHARS} characters")]
    Empty,
    /// More than [`MAX_TARGET_CHARS`] characters.
    #[error("`target` has {0} characters; it must be 1 to {MAX_TARGET_CHARS}")]
    TooLong(usize),
    /// A character that would make it more than one level, or a pattern, or unreadable.
    #[error("`target` holds {}; it must be one level of a topic: no `/`, `+`, `#`, control or bidirectional characters", .0.escape_default())]
    Forbidden(char),
    /// Topics that begin with `$` are the broker's [MQTT-4.7.2].
    #[error("`target` begins with `$`, which is the broker's")]
    Dollar,
}

/// Checks that a command's target is one level of a topic and nothing else: whoever writes the command list cannot reach
/// another topic with it.
///
/// # Errors
/// [`TargetError`] says what is wrong.
pub fn check_target(target: &str) -> Result<(), TargetError> {
    if target.is_empty() {
        return Err(TargetError::Empty);
    }
    let count = target.chars().count();
    if count > MAX_TARGET_CHARS {
        return Err(TargetError::TooLong(count));
    }
    if target.starts_with('$') {
        return Err(TargetError::Dollar);
    }
    match target.chars().find(|&c| matches!(c, '/' | '+' | '#') || crate::message::is_deceptive(c)) {
        Some(c) => Err(TargetError::Forbidden(c)),
        None => Ok(()),
    }
}

fn parse_levels(text: &str) -> Result<Vec<Level>, TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(TopicError::TooLong);
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(TopicError::Control(c));
    }
    let mut levels = Vec::new();
    let mut parts = text.split('/').peekable();
    while let Some(part) = parts.next() {
        let level = parse_level(part)?;
        if level == Level::Rest && parts.peek().is_some() {
            return Err(TopicError::Wildcard(part.to_owned()));
        }
        if let Level::Capture(name) = &level
            && levels.contains(&level)
        {
            return Err(TopicError::Twice(name.clone()));
        }
        levels.push(level);
    }
    Ok(levels)
}

fn parse_level(part: &str) -> Result<Level, TopicError> {
    match part {
        "+" => return Ok(Level::Any),
        "#" => return Ok(Level::Rest),
        _ if part.contains(['+', '#']) => return Err(TopicError::Wildcard(part.to_owned())),
        _ if !part.contains(['{', '}']) => return Ok(Level::Literal(part.to_owned())),
        _ => {}
    }
    let name = part
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .filter(|name| !name.contains(['{', '}']))
        .ok_or_else(|| TopicError::Capture(part.to_owned()))?;
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    if first && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        Ok(Level::Capture(name.to_owned()))
    } else {
        Err(TopicError::CaptureName(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, topic: &str, expected: Option<&[(&str, &str)]>) {
        let pattern = TopicPattern::parse(pattern).expect("a pattern");
        let got = pattern.matches(topic);
        let expected = expected.map(|fields| {
            fields.iter().map(|(n, v)| Field { name: (*n).into(), value: (*v).into() }).collect::<Vec<_>>()
        });
        assert_eq!(got, expected, "{pattern} on {topic}");
    }

    #[test]
    fn matches_as_the_specification_says() {
        check("machine/{serial_no}/heartbeat", "machine/M-1/heartbeat", Some(&[("serial_no", "M-1")]));
        check("machine/{serial_no}/heartbeat", "machine//heartbeat", Some(&[("serial_no", "")]));
        check("machine/{serial_no}/heartbeat", "machine/M-1/x/heartbeat", None);
        check("machine/{serial_no}/heartbeat", "machine/M-1/heartbeat/", None);
        check("a/+/{b}", "a/x/y", Some(&[("b", "y")]));
        check("a/#", "a", Some(&[]));
        check("a/#", "a/b/c", Some(&[]));
        check("#", "$SYS/broker", None);
        check("{x}/broker", "$SYS/broker", None);
        check("$SYS/{x}", "$SYS/broker", Some(&[("x", "broker")]));
        check("/{x}", "/y", Some(&[("x", "y")]));
    }

    #[track_caller]
    fn refused(pattern: &str, expected: TopicError) {
        assert_eq!(TopicPattern::parse(pattern), Err(expected));
    }

    #[test]
    fn refuses_what_no_broker_would_take() {
        refused("", TopicError::Empty);
        refused("a/b#", TopicError::Wildcard("b#".into()));
        refused("a/#/b", TopicError::Wildcard("#".into()));
        refused("a/b+", TopicError::Wildcard("b+".into()));
        refused("a/x{b}", TopicError::Capture("x{b}".into()));
        refused("a/{B}", TopicError::CaptureName("B".into()));
        refused("a/{}", TopicError::CaptureName(String::new()));
        refused("{a}/{a}", TopicError::Twice("a".into()));
        refused("a\0", TopicError::Control('\0'));
        refused(&"a".repeat(MAX_BYTES + 1), TopicError::TooLong);
    }

    #[test]
    fn overlap_and_cover() {
        let p = |text| TopicPattern::parse(text).expect("a pattern");
        assert!(p("machine/{s}/heartbeat").overlaps(&p("machine/M-1/+")));
        assert!(!p("machine/{s}/heartbeat").overlaps(&p("machine/{s}/error")));
        assert!(p("machine/#").overlaps(&p("machine/{s}/error")));
        assert!(p("machine/#").covers(&p("machine/{s}/error")));
        assert!(!p("machine/{s}/error").covers(&p("machine/#")));
        assert!(!p("machine/M-1/error").covers(&p("machine/{s}/error")));
        for wild in ["{s}/x", "+/x", "#"] {
            assert!(!p(wild).covers(&p("$SYS/x")) && !p(wild).overlaps(&p("$SYS/x")), "{wild}");
            assert!(!p("$SYS/x").overlaps(&p(wild)), "{wild}");
        }
        assert!(p("$SYS/#").covers(&p("$SYS/x")) && p("$SYS/x").overlaps(&p("$SYS/+")));
    }

    #[test]
    fn templates_have_one_gap() {
        let t = TopicTemplate::parse("machine/{target}/command", "target").expect("a template");
        assert_eq!(t.fill("M-1"), "machine/M-1/command");
        assert_eq!(TopicTemplate::parse("machine/+/{target}", "target"), Err(TopicError::NotPublishable));
        assert_eq!(TopicTemplate::parse("machine/x", "target"), Err(TopicError::Missing("target".into())));
        assert_eq!(TopicTemplate::parse("{target}/{other}", "target"), Err(TopicError::Missing("target".into())));
    }

    #[test]
    fn a_target_is_one_level() {
        assert_eq!(check_target("M-001"), Ok(()));
        assert_eq!(check_target(""), Err(TargetError::Empty));
        assert_eq!(check_target(&"x".repeat(65)), Err(TargetError::TooLong(65)));
        assert_eq!(check_target(&"ü".repeat(64)), Ok(()));
        assert_eq!(check_target("a/b"), Err(TargetError::Forbidden('/')));
        assert_eq!(check_target("+"), Err(TargetError::Forbidden('+')));
        assert_eq!(check_target("a\0"), Err(TargetError::Forbidden('\0')));
        assert_eq!(check_target("$SYS"), Err(TargetError::Dollar));
    }
}
