//! Texts of strangers, made fit for where people read them.

/// Strangers' words, fit for a terminal: quotes stay, what could move its cursor or forge a line does not.
#[must_use]
pub fn terminal(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor_or_forges_a_line() {
        assert_eq!(terminal("`M-1` \u{1b}[2Jx\ny\u{202e}"), "`M-1` \\u{1b}[2Jx\\u{a}y\\u{202e}");
    }
}
