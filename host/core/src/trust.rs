//! Whose builds are taken: pinned and revoked digests, and minisign signatures. Pure: bytes in, a verdict out.
//!
//! A signature stands in `FILE.minisig`, and is then of the whole file; or in the component's custom section
//! `sluicegate:signature`, and is then of all other bytes (`section`).

mod section;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::{Error, PublicKey, Signature};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::lifecycle::Identity;

pub use section::{SECTION, Split, embed, split};

/// A signature has four lines; its comments are somebody's words.
pub const MAX_SIGNATURE: usize = 16 << 10;

/// What tells minisign's keys apart; printed as minisign prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// The id of a key, as its files hold it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

/// The id that stands behind the algorithm in a line of base64, of a key or a signature.
fn id(line: &str) -> Option<KeyId> {
    let bytes = STANDARD.decode(line.trim()).ok()?;
    Some(KeyId::from_bytes(bytes.get(2..10)?.try_into().ok()?))
}

/// A minisign public key that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    id: KeyId,
    key: PublicKey,
}

/// What is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no minisign public key: it is the second line of `minisign.pub`, which begins with `RW`")]
pub struct NoKey;

impl TrustedKey {
    /// Reads the key's own line, `RW…`.
    ///
    /// # Errors
    /// [`NoKey`], where it is none.
    pub fn parse(line: &str) -> Result<Self, NoKey> {
        let key = PublicKey::from_base64(line).map_err(|_| NoKey)?;
        Ok(Self { id: id(line).ok_or(NoKey)?, key })
    }

    /// What tells it from others.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// `[trust]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Whose signatures are good.
    pub keys: Vec<TrustedKey>,
    /// Whether a build without a signature is refused.
    pub required: bool,
    /// Builds that are refused whoever signed them: digests of whole files, or of what was signed.
    pub revoked: Vec<Digest>,
}

/// Why a build is not taken, whatever is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The settings pin another build.
    #[error("its digest is {found}, and plugins.{plugin}.digest pins {wanted}; write the first one there to allow it")]
    Pinned {
        /// The settings' name of the plugin.
        plugin: String,
        /// Of the file.
        found: Digest,
        /// The settings'.
        wanted: Digest,
    },
    /// It was revoked.
    #[error("its digest {0} is revoked; take it out of trust.revoked to allow it")]
    Revoked(Digest),
    /// This file was revoked, and not what it is without its signature: whoever writes another one into it has another file.
    #[error(
        "its digest {file} is revoked; with another signature inside it, or none, it would be another file: revoke {content} in its \
         place, which it has however it is signed"
    )]
    FileRevoked {
        /// The file's.
        file: Digest,
        /// Of the file without its signature.
        content: Digest,
    },
    /// It has no signature.
    #[error(
        "it is not signed, and trust.required = true; sign it (`sluicegate plugin sign`), or set trust.required = false"
    )]
    Unsigned,
    /// Nobody whom the settings trust signed it.
    #[error("it is signed with the key {0}, which is none of trust.keys; write that key there to allow it")]
    UnknownKey(KeyId),
    /// The signature is of something else.
    #[error("its signature {place} is wrong: key {key} did not sign these bytes; get file and signature once more")]
    Wrong {
        /// `in FILE.minisig` or `in its section …`.
        place: &'static str,
        /// Whose it says to be.
        key: KeyId,
    },
    /// A signature of the kind that minisign made before 2021: of the file itself, not of its hash.
    #[error(
        "its signature {place} is of the old kind; sign it again, with `sluicegate plugin sign` or a newer minisign"
    )]
    Legacy {
        /// Where it stands.
        place: &'static str,
    },
    /// What is there is no signature.
    #[error("its signature {place} is none that minisign made")]
    NoSignature {
        /// Where it stands.
        place: &'static str,
    },
    /// It has two sections for one signature.
    #[error("it has more than one section `{SECTION}`; sign it again with `sluicegate plugin sign --embed`")]
    Twice,
}

/// SHA-256 of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

impl Trust {
    /// Whether a build is revoked, as its file or as what was signed of it.
    #[must_use]
    pub fn revokes(&self, build: Identity) -> bool {
        [build.content, build.file].iter().any(|digest| self.revoked.contains(digest))
    }

    /// Whether this build may be taken, and who signed it; `beside`: what `FILE.minisig` holds.
    ///
    /// Every signature that is there must be good, whether or not one is required.
    ///
    /// # Errors
    /// [`Distrust`] says why not, and which setting would allow it.
    pub fn judge(
        &self,
        plugin: &str,
        pinned: Option<Digest>,
        bytes: &[u8],
        beside: Option<&[u8]>,
    ) -> Result<Option<KeyId>, Distrust> {
        let found = digest(bytes);
        let split = split(bytes)?;
        // A revoked build with another signature in it, or none, is the same code.
        let signed = if split.signature.is_some() { digest(&split.content) } else { found };
        match [signed, found].map(|digest| self.revoked.contains(&digest)) {
            [true, _] => return Err(Distrust::Revoked(signed)),
            [false, true] => return Err(Distrust::FileRevoked { file: found, content: signed }),
            [false, false] => {}
        }
        if let Some(wanted) = pinned.filter(|wanted| *wanted != found) {
            return Err(Distrust::Pinned { plugin: plugin.to_owned(), found, wanted });
        }
        let inside =
            split.signature.map(|signature| (signature, &*split.content, "in its section sluicegate:signature"));
        let beside = beside.map(|signature| (signature, bytes, "in FILE.minisig"));
        let mut signer = None;
        for (signature, content, place) in inside.into_iter().chain(beside) {
            signer = Some(self.check(signature, content, place)?);
        }
        if signer.is_none() && self.required {
            return Err(Distrust::Unsigned);
        }
        Ok(signer)
    }

    fn check(&self, signature: &[u8], content: &[u8], place: &'static str) -> Result<KeyId, Distrust> {
        let none = || Distrust::NoSignature { place };
        let text = std::str::from_utf8(signature).ok().filter(|text| text.len() <= MAX_SIGNATURE).ok_or_else(none)?;
        let key = text.lines().nth(1).and_then(id).ok_or_else(none)?;
        let signature = Signature::decode(text).map_err(|_| none())?;
        // Two keys may have one id: it is chance, not a hash of the key.
        let mut known = self.keys.iter().filter(|trusted| trusted.id == key).peekable();
        if known.peek().is_none() {
            return Err(Distrust::UnknownKey(key));
        }
        let mut wrong = Distrust::Wrong { place, key };
        for trusted in known {
            match trusted.key.verify(content, &signature, false) {
                Ok(()) => return Ok(key),
                Err(Error::UnexpectedAlgorithm) => wrong = Distrust::Legacy { place },
                Err(_) => {}
            }
        }
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of the ordinary tool: its own example.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const OF_TEST: &str = "untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1556193335\tfile:test
y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==
";
    /// The same with minisign's older kind.
    const OLD_OF_TEST: &str = "untrusted comment: signature from minisign secret key
RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73YiIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=
trusted comment: timestamp:1555779966\tfile:test
QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/VqE81QFuMKI5k/SfNQUaOAA==
";

    fn trust(keys: &[&str], required: bool) -> Trust {
        Trust { keys: keys.iter().map(|key| TrustedKey::parse(key).unwrap()).collect(), required, revoked: Vec::new() }
    }

    fn id() -> KeyId {
        TrustedKey::parse(KEY).unwrap().id()
    }

    #[test]
    fn a_signature_of_the_ordinary_minisign_is_good() {
        assert_eq!(id().to_string(), "E7620F1842B4E81F");
        let trust = trust(&[KEY], true);
        assert_eq!(trust.judge("a", None, b"test", Some(OF_TEST.as_bytes())), Ok(Some(id())));
        let place = "in FILE.minisig";
        assert_eq!(
            trust.judge("a", None, b"Test", Some(OF_TEST.as_bytes())),
            Err(Distrust::Wrong { place, key: id() })
        );
        assert_eq!(trust.judge("a", None, b"test", Some(OLD_OF_TEST.as_bytes())), Err(Distrust::Legacy { place }));
        assert_eq!(trust.judge("a", None, b"test", None), Err(Distrust::Unsigned));
        // The trusted comment is signed, too.
        let renamed = OF_TEST.replace("file:test", "file:tess");
        assert_eq!(
            trust.judge("a", None, b"test", Some(renamed.as_bytes())),
            Err(Distrust::Wrong { place, key: id() })
        );
    }

    #[test]
    fn a_signature_that_is_there_must_be_good_though_none_is_required() {
        let nobody = trust(&[], false);
        assert_eq!(nobody.judge("a", None, b"test", None), Ok(None));
        assert_eq!(nobody.judge("a", None, b"test", Some(OF_TEST.as_bytes())), Err(Distrust::UnknownKey(id())));
        for garbage in [&b""[..], b"\xff", b"a\nb\nc\nd\n", &OF_TEST.as_bytes()[..100], &[b'x'; MAX_SIGNATURE + 1]] {
            assert_eq!(
                nobody.judge("a", None, b"test", Some(garbage)),
                Err(Distrust::NoSignature { place: "in FILE.minisig" })
            );
        }
    }

    #[test]
    fn what_is_pinned_or_revoked_is_told_with_the_setting() {
        let [one, two] = [digest(b"one"), digest(b"two")];
        let mut trust = trust(&[], false);
        assert_eq!(trust.judge("acme", Some(one), b"one", None), Ok(None));
        let pinned = trust.judge("acme", Some(one), b"two", None).unwrap_err().to_string();
        assert_eq!(
            pinned,
            format!("its digest is {two}, and plugins.acme.digest pins {one}; write the first one there to allow it")
        );
        trust.revoked.push(two);
        assert_eq!(trust.judge("acme", Some(two), b"two", None), Err(Distrust::Revoked(two)));
        // With a signature put into it the file is another one, and what is in it is not.
        let component = b"\0asm\x0d\0\x01\0";
        trust.revoked.push(digest(component));
        let signed = embed(component, OF_TEST).unwrap();
        assert_eq!(trust.judge("acme", None, &signed, None), Err(Distrust::Revoked(digest(component))));
    }

    #[test]
    fn what_is_revoked_stays_so_whatever_is_written_into_its_signature() {
        let component = b"\0asm\x0d\0\x01\0";
        let signed = embed(component, OF_TEST).unwrap();
        let renamed = embed(component, &OF_TEST.replace("untrusted comment: ", "untrusted comment: another ")).unwrap();
        let mut trust = trust(&[], false);
        let build = |bytes: &[u8]| Identity { file: digest(bytes), content: digest(component) };
        // Of the file alone it is not known what would be the same: the refusal says which digest is.
        trust.revoked.push(digest(&signed));
        let refused = trust.judge("acme", None, &signed, None).unwrap_err();
        assert_eq!(refused, Distrust::FileRevoked { file: digest(&signed), content: digest(component) });
        assert!(refused.to_string().contains(&format!("revoke {} in its place", digest(component))), "{refused}");
        assert_eq!([&signed[..], &renamed, component].map(|bytes| trust.revokes(build(bytes))), [true, false, false]);
        trust.revoked.push(digest(component));
        for again in [&signed[..], &renamed, component] {
            assert_eq!(trust.judge("acme", None, again, None), Err(Distrust::Revoked(digest(component))));
            assert!(trust.revokes(build(again)));
        }
    }

    #[test]
    fn no_key_is_told() {
        for wrong in ["", "RW", &KEY[1..], &format!("{KEY} "), "untrusted comment: minisign public key"] {
            assert_eq!(TrustedKey::parse(wrong), Err(NoKey), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), beside in prop::option::of(".{0,200}")) {
            let mut component = b"\0asm\x0d\0\x01\0".to_vec();
            component.extend_from_slice(&bytes);
            let _ = trust(&[KEY], false).judge("a", None, &component, beside.as_deref().map(str::as_bytes));
            let _ = embed(&component, "x");
        }
    }
}
