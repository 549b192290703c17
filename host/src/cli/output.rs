//! What is asked for goes to standard output; progress and mistakes to standard error.

use std::io::{self, Write as _};
use std::process::{self, ExitCode};

use serde_json::{Value, json};
pub(super) use sluicegate_core::text::terminal;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Good = 0,
    Wrong = 1,
    Usage = 2,
    Refused = 3,
    NotReachable = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command could not do what was asked, and what to type next.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    messages: Vec<String>,
    next: String,
    /// Who reads standard error has read it.
    logged: bool,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { code, messages: vec![message.into()], next: next.into(), logged: false }
    }

    pub(super) fn many(code: Code, messages: Vec<String>, next: impl Into<String>) -> Self {
        Self { code, messages, next: next.into(), logged: false }
    }

    /// The same, which was logged as an error.
    pub(super) fn logged(self) -> Self {
        Self { logged: tracing::enabled!(tracing::Level::ERROR), ..self }
    }

    /// The same, with another way on where the gateway refused.
    pub(super) fn refused(self, next: &str) -> Self {
        if self.code == Code::Refused { self.then(next) } else { self }
    }

    /// The same, with another exit code.
    pub(super) fn with(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The same, with another way on.
    pub(super) fn then(mut self, next: &str) -> Self {
        self.next = next.to_owned();
        self
    }

    /// The same, with what it is about before it, and another way on.
    pub(super) fn because(mut self, before: &str, next: &str) -> Self {
        for message in &mut self.messages {
            *message = format!("{before}, and {message}");
        }
        self.next = next.to_owned();
        self
    }
}

pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints what people see as it comes, and scripts only as a whole.
    pub(super) fn people(&self, text: &str) {
        if !self.json {
            self.text(text);
        }
    }

    /// Prints what was asked for: `text` for people, `data` for scripts.
    pub(super) fn good(&self, text: &str, data: &Value) -> Code {
        self.verdict(Code::Good, text, data, &[])
    }

    /// The same, where something is wrong: the mistakes stand in the JSON beside the data, and in the text already.
    pub(super) fn verdict(&self, code: Code, text: &str, data: &Value, errors: &[String]) -> Code {
        if self.json {
            let errors: Vec<Value> = errors.iter().map(|message| json!({ "message": message })).collect();
            self.text(&format!("{:#}\n", json!({ "ok": code == Code::Good, "data": data, "errors": errors })));
        } else {
            self.text(text);
        }
        code
    }

    /// Prints text as it is.
    #[expect(clippy::unused_self, reason = "all that is printed goes this way")]
    pub(super) fn text(&self, text: &str) -> Code {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Code::Good,
            // A reader that has seen enough (`| head`) closes the pipe; that is no failure, and there is nobody to go on for.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => process::exit(Code::Good as i32),
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: the output cannot be written: {error}");
                process::exit(Code::Wrong as i32);
            }
        }
    }

    /// Prints a failure.
    pub(super) fn fail(&self, failure: &Failure) -> Code {
        if self.json {
            let errors: Vec<Value> =
                failure.messages.iter().map(|message| json!({ "message": message, "hint": failure.next })).collect();
            self.text(&format!("{:#}\n", json!({ "ok": false, "data": null, "errors": errors })));
        } else {
            let mut err = io::stderr().lock();
            for message in failure.messages.iter().filter(|_| !failure.logged) {
                let _ = writeln!(err, "error: {message}");
            }
            if !failure.next.is_empty() {
                let _ = writeln!(err, "next: {}", failure.next);
            }
        }
        failure.code
    }
}
