//! What must hold of any bytes: each is a fuzz target in `fuzz/`, and a property in the ordinary tests.
//!
//! None may panic, whatever the bytes are, but where its law is broken.

mod command;
mod component;
mod envelope;
mod output;
mod settings;
mod topics;

pub use command::command;
pub use component::component;
pub use envelope::envelope;
pub use output::output;
pub use settings::settings;
pub use topics::topics;

/// The longest text that anything is refused with: it stands in a log, a status and a dead letter.
const MAX_REASON: usize = 4 << 10;

/// A reason that people read: bounded, and on one line.
#[must_use]
pub fn is_readable(reason: &str) -> bool {
    reason.len() <= MAX_REASON && !reason.chars().any(char::is_control)
}

/// The bytes up to the first NUL, and what is behind it.
fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0);
    at.map_or((bytes, &[]), |at| (&bytes[..at], &bytes[at + 1..]))
}
