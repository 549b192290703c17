//! Why a build does not go live.

use std::time::Duration;

use sluicegate_core::fault::Fault;
pub use sluicegate_core::lifecycle::Step;
use sluicegate_core::settings::ByteSize;
use sluicegate_core::trust::Distrust;

/// A build that was refused, and at which step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {step}: {problem}")]
pub struct Refusal {
    /// The step that it did not pass.
    pub step: Step,
    /// Why.
    pub problem: Problem,
}

impl Refusal {
    pub(crate) fn new(step: Step, problem: Problem) -> Self {
        Self { step, problem }
    }
}

impl Problem {
    /// Whether the same file may do better later: it was the machine that was busy, or the engine that failed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Slow { .. }
                | Self::Host(_)
                | Self::CompileWait { .. }
                | Self::SampleFault { fault: Fault::TimedOut(_) | Fault::Instantiate(_), .. }
        )
    }

    /// Whether there is no file at all.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

/// The most bytes of a stranger's words in a reason, which stands in the log, the status and the history.
const MAX_QUOTED: usize = 512;

/// A stranger's words: on one line, and cut.
pub(super) fn quoted(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(MAX_QUOTED)];
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_debug())
}

/// What is wrong with a build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read, or is none.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// Nothing is there.
    #[error("{0}: no such file; check the plugin's path")]
    Absent(String),
    /// Larger than a plugin may be.
    #[error("the file has {size} bytes; a plugin may have {max}")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// More of something than a plugin may have.
    #[error("it has {found} {what}; a plugin may have {max}")]
    TooMuch {
        /// How many.
        found: u64,
        /// The limit.
        max: u64,
        /// Of what.
        what: &'static str,
    },
    /// Resources of its own: the host would hold a table of them, without a bound.
    #[error(
        "it makes resources of its own (`resource.new`), which the host would have to keep; build the plugin without them"
    )]
    Resources,
    /// The settings do not trust it.
    #[error(transparent)]
    Untrusted(#[from] Distrust),
    /// Not a component.
    #[error("not a WebAssembly component: {0}")]
    NotComponent(String),
    /// A core module.
    #[error("a core WebAssembly module, not a component; make it one with `wasm-tools component new`")]
    CoreModule,
    /// Its manifest.
    #[error("the manifest (custom section `sluicegate:manifest`) is wrong: {0}")]
    Manifest(String),
    /// Its samples.
    #[error("the samples (custom section `sluicegate:samples`) are wrong: {0}")]
    Samples(String),
    /// It says of itself two things.
    #[error("it has more than one custom section `{0}`, and may have one; build the plugin anew")]
    Twice(&'static str),
    /// The engine refuses it.
    #[error("the engine refuses it: {0}")]
    Engine(String),
    /// Compiling it takes too much of the processor.
    #[error(
        "compiling it takes more than {limit:?} of the processor (gateway.compile_time); make its functions smaller"
    )]
    CompileTime {
        /// The limit.
        limit: Duration,
    },
    /// Compiling it takes too much memory.
    #[error("compiling it takes more than {limit} of memory (gateway.compile_memory); make its functions smaller")]
    CompileMemory {
        /// The limit.
        limit: ByteSize,
    },
    /// The machine was too busy to compile it.
    #[error("it was not compiled within {limit:?}, since others need the processor; give the gateway more of it")]
    CompileWait {
        /// How long it was waited for.
        limit: Duration,
    },
    /// What the compiler makes of it is too large.
    #[error("its compiled code has more than {max}; leave out what it does not need")]
    TooMuchCode {
        /// The limit.
        max: ByteSize,
    },
    /// Something else was wanted meanwhile.
    #[error("it was given up, since something else was wanted")]
    GivenUp,
    /// The compiler did not survive it.
    #[error("the compiler failed on it, alone in its process: {0}")]
    Compiler(String),
    /// It exports neither function, or both.
    #[error(
        "it exports {found}; a plugin exports either `handle` (world topic-handler) or `validate` (world command-validator)"
    )]
    World {
        /// What it exports.
        found: String,
    },
    /// It is written on another version of the interface.
    #[error("it is built on `{found}`; this gateway serves sluicegate:plugin@0.1.0")]
    Version {
        /// The package it names.
        found: String,
    },
    /// An import that nobody granted.
    #[error("it imports `{import}`, which is not granted; {remedy}")]
    Import {
        /// Which.
        import: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A sample gave something else.
    #[error("sample `{sample}`: {reason}")]
    Sample {
        /// Its name.
        sample: String,
        /// The difference.
        reason: String,
    },
    /// A sample gave no answer.
    #[error("sample `{sample}`: the plugin {fault}")]
    SampleFault {
        /// Its name.
        sample: String,
        /// What happened.
        fault: Fault,
    },
    /// It says that it is another plugin than the one whose place it takes.
    #[error(
        "it says that it is the plugin `{found}`, and the live build is of `{wanted}`; put each file in its own place, or write \
         this one's digest into plugins.NAME.digest"
    )]
    Other {
        /// Its manifest's name.
        found: String,
        /// The live build's.
        wanted: String,
    },
    /// It does worse than the live build on the last real messages.
    #[error("on the last real messages it is worse than the live build: {0}")]
    Worse(String),
    /// Its samples took too long.
    #[error("its {samples} samples took longer than {limit:?} together; leave some out")]
    Slow {
        /// How many.
        samples: usize,
        /// How long all of them may take.
        limit: Duration,
    },
    /// The gateway could not try it.
    #[error("it could not be tried: {0}")]
    Host(String),
    /// The settings want another world.
    #[error("it is a {found}, but the settings name it as a {wanted}")]
    Role {
        /// Its world.
        found: String,
        /// The world that its place in the settings needs.
        wanted: String,
    },
}
