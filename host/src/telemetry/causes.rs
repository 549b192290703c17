//! An error as people read it.

use std::error::Error;

/// An error with its causes in one line, each said once: libraries repeat a cause in their own text, ours do not.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot start")]
        Ours(#[source] io::Error),
        #[error("it failed: {0}")]
        Repeats(#[source] io::Error),
        #[error(transparent)]
        Through(Box<Outer>),
    }

    #[test]
    fn each_cause_is_said_once() {
        let cause = || io::Error::other("the port is taken");
        assert_eq!(with_causes(&Outer::Ours(cause())), "cannot start: the port is taken");
        assert_eq!(with_causes(&Outer::Repeats(cause())), "it failed: the port is taken");
        assert_eq!(with_causes(&Outer::Through(Box::new(Outer::Ours(cause())))), "cannot start: the port is taken");
    }
}
