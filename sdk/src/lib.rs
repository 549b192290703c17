//! What a Sluicegate plugin is written on: a plugin is one function and one macro.
//!
//! ```
//! use sluicegate_sdk::{Failure, Message, Object, Output, job, reject};
//!
//! fn handle(message: Message) -> Result<Vec<Output>, Failure> {
//!     let object = Object::parse(&message.payload)?;
//!     let id = object.required("order_id")?.string(1..=64)?;
//!     if id.starts_with("TEST-") {
//!         return Ok(Vec::new()); // dropped on purpose
//!     }
//!     job(message.payload.clone()).keyed(id)
//! }
//!
//! sluicegate_sdk::handler!(handle);
//! # let _ = reject::<()>("").is_err();
//! ```
//!
//! Natively, under `cargo test`, the same function is called as it is: [`testing`] gives it messages, settings and its own
//! samples.

#[cfg(feature = "http")]
pub mod http;
mod json;
pub mod state;
pub mod testing;

pub use bindings::handler::sluicegate::plugin::types::{Command, Failure, Field, Job, Message, Output, Publication};
pub use json::{Integer, Object, Value};

/// The generated bindings. Use the names above them.
#[doc(hidden)]
#[expect(clippy::all, reason = "generated from wit/plugin.wit")]
pub mod bindings {
    pub mod handler {
        wit_bindgen::generate!({
            path: "../wit",
            world: "topic-handler",
            pub_export_macro: true,
            generate_all,
        });
    }
    pub mod validator {
        wit_bindgen::generate!({
            path: "../wit",
            world: "command-validator",
            pub_export_macro: true,
            with: {
                "sluicegate:plugin/types@0.1.0": crate::bindings::handler::sluicegate::plugin::types,
                "sluicegate:plugin/host@0.1.0": crate::bindings::handler::sluicegate::plugin::host,
                "sluicegate:plugin/state@0.1.0": crate::bindings::handler::sluicegate::plugin::state,
            },
        });
    }
}

/// Makes `fn(Message) -> Result<Vec<Output>, Failure>` the plugin's `handle`.
#[macro_export]
macro_rules! handler {
    ($handle:path) => {
        // Natively nothing exports it, and it is no dead code all the same.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Message) -> Result<Vec<$crate::Output>, $crate::Failure> = $handle;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Plugin;
            impl $crate::bindings::handler::Guest for Plugin {
                fn handle(message: $crate::Message) -> Result<Vec<$crate::Output>, $crate::Failure> {
                    $handle(message)
                }
            }
    $crate::bindings::handler::export!(Plugin with_types_in $crate::bindings::handler);
        };
    };
}

/// Makes `fn(Command) -> Result<Vec<u8>, Failure>` the plugin's `validate`.
#[macro_export]
macro_rules! validator {
    ($validate:path) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Command) -> Result<Vec<u8>, $crate::Failure> = $validate;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Plugin;
            impl $crate::bindings::validator::Guest for Plugin {
                fn validate(command: $crate::Command) -> Result<Vec<u8>, $crate::Failure> {
                    $validate(command)
                }
            }
    $crate::bindings::validator::export!(Plugin with_types_in $crate::bindings::validator);
        };
    };
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes a line to the gateway's log; natively, to standard error.
pub fn log(level: Level, text: &str) {
    #[cfg(target_arch = "wasm32")]
    {
        use bindings::handler::sluicegate::plugin::host;
        let level = match level {
            Level::Debug => host::Level::Debug,
            Level::Info => host::Level::Info,
            Level::Warn => host::Level::Warn,
            Level::Error => host::Level::Error,
        };
        host::log(level, text);
    }
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?}: {text}");
}

/// The value of `name` in `[plugins.NAME.settings]`; natively, what [`testing::with_settings`] gave.
#[must_use]
pub fn setting(name: &str) -> Option<String> {
    #[cfg(target_arch = "wasm32")]
    return bindings::handler::sluicegate::plugin::host::setting(name);
    #[cfg(not(target_arch = "wasm32"))]
    return testing::setting(name);
}

/// A setting as a number or the like, or its default.
///
/// # Errors
/// `retry`, where the operator wrote something else: the message is not wrong, and it is right once the setting is.
pub fn setting_or<T: std::str::FromStr>(name: &str, default: T) -> Result<T, Failure> {
    match setting(name) {
        None => Ok(default),
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| Failure::Retry(format!("the plugin's setting {name} is `{text}`, which cannot be read"))),
    }
}

/// Refuses what was given, for good.
///
/// # Errors
/// Always: that is what it is for.
pub fn reject<T>(reason: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Reject(reason.into()))
}

/// The answer of most handlers: one job.
#[must_use]
pub fn job(payload: Vec<u8>) -> One {
    One { payload }
}

/// One job, with or without a key.
#[derive(Debug)]
pub struct One {
    payload: Vec<u8>,
}

impl One {
    /// Without an idempotency key.
    ///
    /// # Errors
    /// Never; a handler's answer is a `Result`.
    pub fn unkeyed(self) -> Result<Vec<Output>, Failure> {
        Ok(vec![Output::Job(Job { payload: self.payload, idempotency_key: None })])
    }

    /// With an idempotency key.
    ///
    /// # Errors
    /// Never; a handler's answer is a `Result`.
    pub fn keyed(self, key: impl Into<String>) -> Result<Vec<Output>, Failure> {
        Ok(vec![Output::Job(Job { payload: self.payload, idempotency_key: Some(key.into()) })])
    }
}

/// What a named part of the topic matched; empty where the route has no such part.
#[must_use]
pub fn capture<'a>(message: &'a Message, name: &str) -> &'a str {
    message.captures.iter().find(|field| field.name == name).map_or("", |field| &field.value)
}
