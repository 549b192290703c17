//! A plugin's life: the steps that a build takes, and which builds of it are kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A step of a plugin's life; the same word in code, log, metric and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The file is there and can be read.
    Found,
    /// It is the build that the settings pin, of somebody whom they trust, and a component with a manifest.
    Verified,
    /// The engine compiled it.
    Compiled,
    /// It implements one world of this interface and imports nothing that was not granted.
    Checked,
    /// Its own samples gave what they promise.
    Rehearsed,
    /// The messages of some machines are handled with it, before those of all are.
    Canary,
    /// New messages are handled with it.
    Live,
    /// It is live, and judged by how it does there.
    Probation,
    /// It was live before, and is kept for the case that the one after it fails.
    Fallback,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 9] = [
        Self::Found,
        Self::Verified,
        Self::Compiled,
        Self::Checked,
        Self::Rehearsed,
        Self::Canary,
        Self::Live,
        Self::Probation,
        Self::Fallback,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Verified => "verified",
            Self::Compiled => "compiled",
            Self::Checked => "checked",
            Self::Rehearsed => "rehearsed",
            Self::Canary => "canary",
            Self::Live => "live",
            Self::Probation => "probation",
            Self::Fallback => "fallback",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What tells one build from another. A signature inside a file is outside what it signs, so anybody may write another one, or none: the file
/// is another one then, and the build is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The digest of its file.
    pub file: Digest,
    /// That of the file without a signature inside it.
    pub content: Digest,
}

impl Identity {
    fn digests(self) -> impl Iterator<Item = Digest> {
        std::iter::once(self.file).chain((self.content != self.file).then_some(self.content))
    }

    fn has(self, digest: Digest) -> bool {
        self.digests().any(|own| own == digest)
    }
}

/// A build that is or was live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Of its file.
    pub digest: Digest,
    /// Of the file without the signature inside it, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// What its manifest calls the plugin.
    pub name: String,
    /// As its manifest says.
    pub version: String,
}

impl Build {
    /// What tells it from others.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { file: self.digest, content: self.content.unwrap_or(self.digest) }
    }
}

/// The builds of one plugin that are more than a file: what is live, what it was before, what is not tried again.
///
/// Invariant: the live build is neither the fallback nor rejected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Builds {
    /// Served with now, or before the last end.
    pub live: Option<Build>,
    /// Live before that one; what a rollback goes back to.
    pub fallback: Option<Build>,
    /// Rolled back, or withdrawn as a canary: not tried again until the file holds another build. Digests of files, and of what they are without
    /// the signature inside them.
    pub rejected: Vec<Digest>,
}

impl Builds {
    /// The plugin's file holds this build now. Whether that changes something.
    pub fn found(&mut self, build: Identity) -> bool {
        let changed = !self.rejected.is_empty() && !self.is_rejected(build);
        if changed {
            self.rejected.clear();
        }
        changed
    }

    /// The build of the plugin's file went live: the one before it is kept as its fallback, where it is not the same with another signature.
    pub fn took(&mut self, build: Build) {
        let same = self.live.as_ref().is_some_and(|live| live.identity().content == build.identity().content);
        let before = self.live.replace(build);
        if !same {
            self.fallback = before;
        }
        self.rejected.clear();
    }

    /// The fallback went live again. `reject`: what was live is not tried again until the file holds another build.
    pub fn fell_back(&mut self, reject: bool) {
        let Some(fallback) = self.fallback.take() else { return };
        // It may have been tried as a canary since, and withdrawn.
        self.rejected.retain(|digest| !fallback.identity().has(*digest));
        let before = self.live.replace(fallback);
        if let Some(before) = before.filter(|_| reject) {
            self.withdrew(before.identity());
        }
    }

    /// A build that does not serve is not tried again until the file holds another one.
    pub fn withdrew(&mut self, build: Identity) {
        for digest in build.digests() {
            let live = self.live.as_ref().is_some_and(|live| live.identity().has(digest));
            if !live && !self.rejected.contains(&digest) {
                self.rejected.push(digest);
            }
        }
    }

    /// Whether the build is one that was rolled back or withdrawn, whatever signature is inside it now.
    #[must_use]
    pub fn is_rejected(&self, build: Identity) -> bool {
        build.digests().any(|digest| self.rejected.contains(&digest))
    }

    /// What is to be kept on the disk.
    pub fn kept(&self) -> impl Iterator<Item = &Build> {
        self.live.iter().chain(&self.fallback)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build(number: u8) -> Build {
        Build { digest: Digest([number; 32]), content: None, name: "guest".to_owned(), version: number.to_string() }
    }

    /// The same with a signature inside it; there are several.
    fn signed(number: u8, signature: u8) -> Build {
        let content = Some(build(number).digest);
        Build { digest: Digest([100 + 10 * signature + number; 32]), content, ..build(number) }
    }

    fn id(number: u8) -> Identity {
        build(number).identity()
    }

    fn versions(builds: &Builds) -> (Option<&str>, Option<&str>, Vec<u8>) {
        (
            builds.live.as_ref().map(|build| build.version.as_str()),
            builds.fallback.as_ref().map(|build| build.version.as_str()),
            builds.rejected.iter().map(|digest| digest.0[0]).collect(),
        )
    }

    #[test]
    fn one_build_back_and_no_further() {
        let mut builds = Builds::default();
        builds.took(build(1));
        assert_eq!(versions(&builds), (Some("1"), None, vec![]));
        builds.took(build(2));
        builds.took(build(2));
        assert_eq!(versions(&builds), (Some("2"), Some("1"), vec![]));
        builds.fell_back(true);
        assert_eq!(versions(&builds), (Some("1"), None, vec![2]));
        builds.fell_back(true);
        assert_eq!(versions(&builds), (Some("1"), None, vec![2]));
        // The same file once more, then another.
        assert!(!builds.found(id(2)) && builds.is_rejected(id(2)));
        assert!(builds.found(id(3)) && !builds.is_rejected(id(2)));
        builds.took(build(3));
        assert_eq!(versions(&builds), (Some("3"), Some("1"), vec![]));
    }

    #[test]
    fn what_was_withdrawn_is_not_tried_again_and_yet_may_be_gone_back_to() {
        let mut builds = Builds::default();
        builds.took(build(1));
        builds.took(build(2));
        builds.withdrew(id(3));
        builds.withdrew(id(3));
        builds.withdrew(id(2));
        assert_eq!(versions(&builds), (Some("2"), Some("1"), vec![3]));
        assert!(builds.found(id(1)));
        builds.withdrew(id(1));
        builds.fell_back(true);
        assert_eq!(versions(&builds), (Some("1"), None, vec![2]));
    }

    #[test]
    fn what_was_rejected_does_not_return_with_another_signature_or_none() {
        let mut builds = Builds::default();
        builds.took(build(1));
        builds.took(signed(2, 0));
        builds.fell_back(true);
        assert_eq!(versions(&builds), (Some("1"), None, vec![102, 2]));
        for again in [signed(2, 0), signed(2, 1), build(2)] {
            assert!(!builds.found(again.identity()) && builds.is_rejected(again.identity()));
        }
        assert!(builds.found(id(3)));
        builds.withdrew(id(3));
        assert!(builds.is_rejected(signed(3, 1).identity()));
        // What is live may be signed anew: there is no going back to the same build by that, and it is not rejected for the other file's sake.
        assert!(builds.found(id(2)));
        builds.took(build(2));
        builds.took(signed(2, 1));
        assert_eq!(versions(&builds), (Some("2"), Some("1"), vec![]));
        builds.withdrew(signed(2, 0).identity());
        assert!(!builds.is_rejected(signed(2, 1).identity()));
    }

    #[test]
    fn an_index_of_before_contents_were_told_apart_is_read() {
        let digest = build(1).digest.to_string();
        let written = format!(r#"{{"digest":"{digest}","name":"guest","version":"1"}}"#);
        let read: Build = serde_json::from_str(&written).unwrap();
        assert_eq!((read.identity(), serde_json::to_string(&read).unwrap()), (id(1), written));
    }

    #[test]
    fn every_step_is_written_as_it_is_named() {
        for step in Step::ALL {
            assert_eq!(serde_json::to_value(step).unwrap(), step.name());
        }
        assert!(Step::ALL.is_sorted());
    }

    proptest! {
        /// Whatever happens to a plugin: what is live is neither its own fallback nor rejected.
        #[test]
        fn what_is_live_is_neither_its_own_fallback_nor_rejected(history in prop::collection::vec((0_u8..5, 0_u8..4, 0_u8..3), 0..50)) {
            let mut builds = Builds::default();
            for (what, number, signature) in history {
                let build = if signature == 0 { build(number) } else { signed(number, signature) };
                match what {
                    // As the registry does: a rejected build is not taken, any other one clears that.
                    0 | 1 => {
                        builds.found(build.identity());
                        if !builds.is_rejected(build.identity()) {
                            builds.took(build);
                        }
                    }
                    2 => builds.fell_back(true),
                    3 => builds.withdrew(build.identity()),
                    _ => builds.fell_back(false),
                }
                if let Some(live) = &builds.live {
                    prop_assert!(!builds.is_rejected(live.identity()));
                    let other = |fallback: &Build| fallback.identity().content != live.identity().content;
                    prop_assert!(builds.fallback.as_ref().is_none_or(other));
                }
            }
        }
    }
}
