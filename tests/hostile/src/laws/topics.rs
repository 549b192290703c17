//! Topics: what a pattern matches, and what it says of other patterns.

use sluicegate_core::topic::{TopicPattern, check_target};

use super::halves;

/// Two texts, with NUL between them: a pattern, and a topic or another pattern.
///
/// # Panics
/// Where the two sides of a law differ.
pub fn topics(bytes: &[u8]) {
    let (pattern, topic) = halves(bytes);
    let (Ok(pattern), Ok(topic)) = (std::str::from_utf8(pattern), std::str::from_utf8(topic)) else { return };
    if check_target(topic).is_ok() {
        let levels = topic.contains(['/', '+', '#', '\0']);
        assert!(!levels && !topic.starts_with('$'), "`{topic}` is one level that nobody subscribes to");
    }
    let Ok(pattern) = TopicPattern::parse(pattern) else { return };
    assert!(pattern.covers(&pattern) && pattern.overlaps(&pattern), "`{pattern}` covers itself");
    let found = pattern.matches(topic);
    if let Some(fields) = &found {
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, pattern.captures().collect::<Vec<_>>(), "each capture once, in order");
        assert!(fields.iter().all(|field| !field.value.contains('/')), "a capture is one level: {fields:?}");
        // The captured levels in their gaps are the topic again.
        let filled = fields.iter().fold(pattern.as_str().to_owned(), |text, field| {
            text.replacen(&format!("{{{}}}", field.name), &field.value, 1)
        });
        let plain = !pattern.filter().contains('#') && !pattern.as_str().contains('+');
        assert!(!plain || filled == topic || topic.contains('{'), "`{pattern}` filled is `{filled}`, not `{topic}`");
    }
    let Ok(other) = TopicPattern::parse(topic) else { return };
    assert_eq!(pattern.overlaps(&other), other.overlaps(&pattern), "`{pattern}` and `{other}`");
    if pattern.covers(&other) {
        assert!(pattern.overlaps(&other), "`{pattern}` covers `{other}`, and meets it");
    }
    // Of a plain topic all three say the same.
    if other.as_str() == other.filter() && !topic.contains(['+', '#']) {
        let all = [found.is_some(), pattern.covers(&other), pattern.overlaps(&other)];
        assert!(all.iter().all(|one| *one == all[0]), "`{pattern}` and the topic `{topic}`: {all:?}");
    }
}
