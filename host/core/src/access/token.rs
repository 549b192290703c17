//! What a machine's token is compared with: its SHA-256, as Redis has it.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::digest::Digest;

/// The SHA-256 of a token, or of the broker's secret.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads the 64 hexadecimal digits that Redis has.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let digest: Digest = format!("sha256:{text}").parse().ok()?;
        Some(Self(digest.0))
    }

    /// Whether it is the token of a machine, or whether there is none. It takes the same time for every token, and where there is none.
    #[must_use]
    pub fn is(&self, stored: Option<&Self>) -> bool {
        let nothing = Self([0; 32]);
        let same = self.0.ct_eq(&stored.unwrap_or(&nothing).0);
        bool::from(same) && stored.is_some()
    }
}

/// It shows nothing: a weak token can be found by its hash.
impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf %s secret | sha256sum`
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn a_token_is_its_own_hash_and_no_other() {
        let stored = TokenHash::read(SECRET).expect("a hash");
        assert!(TokenHash::of("secret").is(Some(&stored)));
        assert!(!TokenHash::of("Secret").is(Some(&stored)) && !TokenHash::of("").is(Some(&stored)));
        assert!(!TokenHash::of("secret").is(None));
        assert!(!TokenHash([0; 32]).is(None));
        assert_eq!(format!("{stored:?}"), "***");
    }

    #[test]
    fn what_is_no_hash_is_nobodys() {
        for text in ["", "secret", &SECRET[1..], &format!("{SECRET}0"), &SECRET.replace('b', "g")] {
            assert!(TokenHash::read(text).is_none(), "{text}");
        }
    }
}
