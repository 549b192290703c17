//! What is asked for goes to standard output; mistakes to standard error.

use std::io::{self, Write as _};
use std::process::{self, ExitCode};

use serde_json::{Value, json};

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

/// Why a command could not do what was asked, and what to do next.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    messages: Vec<String>,
    next: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::many(code, vec![message.into()], next)
    }

    pub(super) fn many(code: Code, messages: Vec<String>, next: impl Into<String>) -> Self {
        Self { code, messages, next: next.into() }
    }

    /// The same, with another next step.
    pub(super) fn then(self, next: impl Into<String>) -> Self {
        Self { next: next.into(), ..self }
    }
}

pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints what was asked for: `text` for people, `data` for scripts.
    pub(super) fn good(&self, text: &str, data: &Value) -> Code {
        self.verdict(Code::Good, text, data, &[])
    }

    /// The same, where something is wrong: the mistakes stand in the JSON beside the data, and in the text already.
    pub(super) fn verdict(&self, code: Code, text: &str, data: &Value, errors: &[String]) -> Code {
        if self.json {
            let errors: Vec<Value> = errors.iter().map(|message| json!({ "message": message })).collect();
            print(&format!("{:#}\n", json!({ "ok": code == Code::Good, "data": data, "errors": errors })));
        } else {
            print(text);
        }
        code
    }

    /// Prints what people see as it comes.
    pub(super) fn people(&self, text: &str) {
        if !self.json {
            print(text);
        }
    }

    /// Prints a failure.
    pub(super) fn fail(&self, failure: &Failure) -> Code {
        if self.json {
            let errors: Vec<Value> =
                failure.messages.iter().map(|message| json!({ "message": message, "hint": failure.next })).collect();
            print(&format!("{:#}\n", json!({ "ok": false, "data": null, "errors": errors })));
        } else {
            let mut err = io::stderr().lock();
            for message in &failure.messages {
                let _ = writeln!(err, "error: {message}");
            }
            if !failure.next.is_empty() {
                let _ = writeln!(err, "next: {}", failure.next);
            }
        }
        failure.code
    }
}

/// Prints text as it is.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => {}
        // A reader that has seen enough (`| head`) closes the pipe; that is no failure, and there is nobody to go on for.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => process::exit(Code::Good as i32),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: the output cannot be written: {error}");
            process::exit(Code::Wrong as i32);
        }
    }
}
