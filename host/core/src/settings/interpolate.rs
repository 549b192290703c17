//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` in string values, after the file was parsed: spliced into its text they
//! would be an injection hole. What comes in is not looked at again.

/// Where values come from.
pub struct Sources<'a> {
    /// A variable of the environment, where it is set; the error says why it cannot be read.
    pub variable: &'a dyn Fn(&str) -> Result<Option<String>, String>,
    /// A file's content; the error says why it cannot be read.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// A value, and what it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpolated {
    /// The text.
    pub text: String,
    /// Variables and files that gave a part of it.
    pub from: Vec<String>,
}

/// Replaces every `${…}`. `$${` is a literal `${`.
///
/// # Errors
/// Says which variable is not set, which file cannot be read, or where a brace is missing.
pub fn interpolate(text: &str, sources: &Sources<'_>) -> Result<Interpolated, String> {
    let (mut out, mut from) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start - 1]);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let Some(end) = inner.find('}') else {
            return Err("`${` has no `}`; write `$${` for a literal one".to_owned());
        };
        resolve(&inner[..end], sources, &mut out, &mut from)?;
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(Interpolated { text: out, from })
}

fn resolve(inner: &str, sources: &Sources<'_>, out: &mut String, from: &mut Vec<String>) -> Result<(), String> {
    if let Some(path) = inner.strip_prefix("file:") {
        let content = (sources.file)(path).map_err(|reason| format!("cannot read {path}: {reason}"))?;
        out.push_str(
            content.strip_suffix('\n').map_or(content.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)),
        );
        from.push(format!("file {path}"));
        return Ok(());
    }
    let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
    let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !valid {
        return Err(format!(
            "`${{{inner}}}` names no variable; write `${{NAME}}`, `${{NAME:-default}}` or `${{file:PATH}}`"
        ));
    }
    let value = (sources.variable)(name).map_err(|reason| format!("cannot read the environment's {name}: {reason}"))?;
    // As in a shell, `:-` takes an empty variable for one that is not set.
    match (value.filter(|value| default.is_none() || !value.is_empty()), default) {
        (Some(value), _) => {
            out.push_str(&value);
            from.push(format!("environment {name}"));
        }
        (None, Some(default)) => out.push_str(default),
        (None, None) => {
            return Err(format!("the environment has no {name}; set it, or write `${{{name}:-default}}`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<Interpolated, String> {
        let variable = |name: &str| match name {
            "A" => Ok(Some("1".to_owned())),
            "EMPTY" => Ok(Some(String::new())),
            "TRICK" => Ok(Some("${A}".to_owned())),
            "LATIN" => Err("it is not UTF-8".to_owned()),
            _ => Ok(None),
        };
        let file = |path: &str| if path == "p" { Ok("secret\n".to_owned()) } else { Err("no such file".to_owned()) };
        interpolate(text, &Sources { variable: &variable, file: &file })
    }

    #[track_caller]
    fn gives(text: &str, expected: &str) {
        assert_eq!(run(text).expect("good").text, expected);
    }

    #[test]
    fn replaces_once() {
        gives("x${A}y${A}", "x1y1");
        gives("${EMPTY:-d}${NONE:-}${EMPTY}", "d");
        gives("${TRICK}", "${A}");
        gives("$${A} $A }", "${A} $A }");
        gives("${file:p}", "secret");
        assert_eq!(run("${A}${file:p}").expect("good").from, ["environment A", "file p"]);
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(run("${NONE}"), Err("the environment has no NONE; set it, or write `${NONE:-default}`".to_owned()));
        assert_eq!(run("${LATIN:-d}"), Err("cannot read the environment's LATIN: it is not UTF-8".to_owned()));
        assert!(run("${file:q}").expect_err("refused").contains("cannot read q: no such file"));
        assert!(run("${A").expect_err("refused").contains("has no `}`"));
        assert!(run("${}").expect_err("refused").contains("names no variable"));
        assert!(run("${A B}").expect_err("refused").contains("names no variable"));
    }
}
