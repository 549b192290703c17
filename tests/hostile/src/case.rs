//! A case: its name, how it is made, what must become of it.

use std::any::Any;
use std::fmt;
use std::fs;
use std::path::Path;

use sluicegate::sandbox::Step;
use sluicegate_guests::Guest;

/// What a file needs as long as it is used: a thread that writes to it, say.
pub type Kept = Option<Box<dyn Any>>;

/// One thing that a stranger puts into a plugin's place.
pub struct Case {
    /// Unique; of small letters, digits and hyphens.
    pub name: String,
    /// How it is made, in a few words.
    pub made_of: String,
    /// What must become of it.
    pub must: Must,
    /// What must become of it in a gateway, where that is another thing.
    pub in_gateway: Option<Must>,
    /// It would cost more than a test by itself may have.
    pub only_in_gateway: bool,
    make: Box<dyn Fn(&Path) -> Kept + Send + Sync>,
}

/// What must become of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Must {
    /// It is refused at this step, with these words in the reason.
    Refused(Step, String),
    /// It is refused, at whichever step.
    NotLive,
    /// It goes live, and its calls end so, one after another, and from the beginning again.
    Live(Vec<End>),
    /// Either is harmless: refused so, or live and its messages go on as they came.
    Either(Step, String),
}

/// How one call of a live case ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The message is pushed as it came.
    AsItCame,
    /// This payload is pushed instead.
    Makes(String),
    /// It is a dead letter with these words in the reason.
    Dead(String),
}

/// Refused at a step.
#[must_use]
pub fn refused(step: Step, words: &str) -> Must {
    Must::Refused(step, words.to_owned())
}

/// Live, and each message is a dead letter.
#[must_use]
pub fn dead(words: &str) -> Must {
    Must::Live(vec![End::Dead(words.to_owned())])
}

/// Live, and each message goes on as it came.
#[must_use]
pub fn harmless() -> Must {
    Must::Live(vec![End::AsItCame])
}

/// Either refused at a step or harmless.
#[must_use]
pub fn refused_or_harmless(step: Step, words: &str) -> Must {
    Must::Either(step, words.to_owned())
}

impl Case {
    /// Whatever is to stand at a path.
    #[must_use]
    pub fn place(name: &str, made_of: &str, must: Must, make: impl Fn(&Path) -> Kept + Send + Sync + 'static) -> Self {
        Self {
            name: name.to_owned(),
            made_of: made_of.to_owned(),
            must,
            in_gateway: None,
            only_in_gateway: false,
            make: Box::new(make),
        }
    }

    /// A file.
    ///
    /// # Panics
    /// Where it is made and cannot be written.
    #[must_use]
    pub fn file(name: &str, made_of: &str, must: Must, bytes: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::place(name, made_of, must, move |path| {
            fs::write(path, bytes()).expect("written");
            None
        })
    }

    /// A handler made of WebAssembly text.
    #[must_use]
    pub fn guest(name: &str, made_of: &str, must: Must, guest: Guest) -> Self {
        Self::file(name, made_of, must, move || guest.handler())
    }

    /// The engine refuses it, with these words, if it gets so far within a gateway's limits.
    #[must_use]
    pub fn refused(mut self, words: &str) -> Self {
        self.must = refused(Step::Compiled, words);
        self.in_gateway(refused(Step::Compiled, ""))
    }

    /// In a gateway something else becomes of it.
    #[must_use]
    pub fn in_gateway(mut self, must: Must) -> Self {
        self.in_gateway = Some(must);
        self
    }

    /// Only a gateway, which compiles in a process of its own, is to see it.
    #[must_use]
    pub fn only_in_gateway(mut self) -> Self {
        self.only_in_gateway = true;
        self
    }

    /// Puts it there. It stays as it is while what this gives is kept.
    #[must_use]
    pub fn make(&self, path: &Path) -> Kept {
        (self.make)(path)
    }
}

impl Must {
    /// How many calls show it.
    #[must_use]
    pub fn calls(&self) -> usize {
        match self {
            Self::Refused(..) | Self::NotLive => 1,
            // Each twice: what a fault leaves behind shows at the next call.
            Self::Live(ends) => ends.len() * 2,
            Self::Either(..) => 2,
        }
    }

    /// How the call of a number ends, the first one being 0.
    ///
    /// # Panics
    /// Where a live case says of no call how it ends.
    #[must_use]
    pub fn end(&self, call: usize) -> &End {
        match self {
            Self::Live(ends) => &ends[call % ends.len()],
            Self::Refused(..) | Self::NotLive | Self::Either(..) => &End::AsItCame,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsItCame => f.write_str("as it came"),
            Self::Makes(payload) => write!(f, "makes {payload}"),
            Self::Dead(words) => write!(f, "dead: {words}"),
        }
    }
}

impl fmt::Display for Must {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(step, words) => write!(f, "not {step}: {words}"),
            Self::NotLive => f.write_str("not live"),
            Self::Live(ends) => {
                f.write_str("live; ")?;
                for (index, end) in ends.iter().enumerate() {
                    write!(f, "{}{end}", if index > 0 { ", then " } else { "" })?;
                }
                Ok(())
            }
            Self::Either(step, words) => write!(f, "not {step}: {words}; or live, as it came"),
        }
    }
}
