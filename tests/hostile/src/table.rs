//! What is printed of the cases: what must be, and what is.

use std::fmt::Write as _;

use crate::case::{Case, Must};

/// A case, what must have become of it, and what did.
pub struct Row<'a> {
    /// It.
    pub case: &'a Case,
    /// What must have become of it here.
    pub must: &'a Must,
    /// What became of it.
    pub is: Must,
    /// Whether that is what must be.
    pub good: bool,
    /// What else is to be said of it.
    pub note: String,
}

/// One line a case, those that are wrong marked.
#[must_use]
pub fn show(rows: &[Row<'_>]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "  | name | made of | must | is | |\n  | --- | --- | --- | --- | --- |");
    for row in rows {
        let mark = if row.good { ' ' } else { '!' };
        let must = cell(&row.must.to_string());
        let Row { case, is, note, .. } = row;
        let _ = writeln!(text, "{mark} | {} | {} | {must} | {} | {note} |", case.name, case.made_of, short(is));
    }
    let good = rows.iter().filter(|row| row.good).count();
    let _ = writeln!(text, "{good} of {}", rows.len());
    text
}

/// All calls of one kind need saying once.
fn short(is: &Must) -> String {
    let once = match is {
        Must::Live(ends) if ends.windows(2).all(|two| two[0] == two[1]) => Must::Live(ends[..1].to_vec()),
        other => other.clone(),
    };
    cell(&once.to_string())
}

/// In one cell, on one line; what a stranger wrote stays a stranger's words.
fn cell(text: &str) -> String {
    let escaped = text.escape_debug().to_string().replace("\\\"", "\"").replace('|', "\\|");
    let cut = escaped.floor_char_boundary(160);
    if cut < escaped.len() { format!("{}…", &escaped[..cut]) } else { escaped }
}
