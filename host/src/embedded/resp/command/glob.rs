//! Patterns as `KEYS` takes them: `*`, `?`, `[a-z]`, `[^a]`, and a backslash before what stands for itself.

/// Whether the whole text matches. It takes at most pattern × text steps.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // The last star, and where in the text what it stands for ends so far.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        let step = match text.get(t) {
            None if p == pattern.len() => return true,
            None => return false,
            Some(byte) => one(&pattern[p..], *byte),
        };
        match (step, star) {
            (Some(length), _) => (p, t) = (p + length, t + 1),
            (None, Some((after, from))) => {
                (p, t) = (after, from + 1);
                star = Some((after, t));
            }
            (None, None) => return false,
        }
    }
}

/// How much of the pattern the byte matches; `None` where it does not.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', rest @ ..] => {
            let (matched, length) = class(rest, byte);
            matched.then_some(length + 1)
        }
        [plain, ..] => (*plain == byte).then_some(1),
    }
}

/// Whether the byte is in the class, and how long the class is, with its closing bracket if there is one.
fn class(rest: &[u8], byte: u8) -> (bool, usize) {
    let not = rest.first() == Some(&b'^');
    let mut at = usize::from(not);
    let mut found = false;
    loop {
        match &rest[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                at += 3;
            }
            [plain, ..] => {
                found |= *plain == byte;
                at += 1;
            }
        }
    }
    (found != not, at)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
    }

    #[test]
    fn patterns() {
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("?", "", false);
        check("a*c*e", "abcde", true);
        check("a*c*e", "abcdef", false);
        check("mqtt_*", "mqtt_incoming_jobs", true);
        check("h[ae]llo", "hallo", true);
        check("h[^e]llo", "hello", false);
        check("h[a-c]llo", "hbllo", true);
        check("h[c-a]llo", "hbllo", true);
        check(r"a\*", "a*", true);
        check(r"a\*", "ab", false);
        check("[", "a", false);
        check("a[b", "ab", true);
        check(&"*a".repeat(40), &"a".repeat(60), true);
        check(&("*a".repeat(40) + "b"), &"a".repeat(60), false);
    }
}
