//! Secrets, and what is kept of them: a SHA-256 is enough, since a token is random and long.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::clock;

/// Bytes of randomness in a token.
const BYTES: usize = 32;

/// A secret that is shown once. It has no `Debug` and no `Display`.
pub struct Token(String);

impl Token {
    /// A new one: 64 hexadecimal digits.
    ///
    /// # Errors
    /// Where the system gives no randomness.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(to_hex(&clock::secret::<BYTES>()?)))
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> String {
        to_hex(&sha256(&self.0))
    }
}

/// What is kept of a secret.
#[must_use]
pub fn sha256(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Whether two hashes are the same, in a time that does not say where they differ.
#[must_use]
pub fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let differ = left.iter().zip(right).fold(0_u8, |differ, (left, right)| differ | (left ^ right));
    std::hint::black_box(differ) == 0
}

/// Hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads 64 hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits =
        Some(text.as_bytes()).filter(|digits| digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit))?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_the_hash_that_every_tool_makes() {
        // printf abc | sha256sum
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(to_hex(&sha256("abc")), known);
        assert_eq!(from_hex(known), Some(sha256("abc")));
        assert_eq!(from_hex(&known.to_uppercase()), Some(sha256("abc")));
        for wrong in ["", &known[1..], &format!("+{}", &known[1..]), &"é".repeat(32)] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_two_are_the_same() {
        let (one, other) = (Token::new().expect("randomness"), Token::new().expect("randomness"));
        assert_eq!(one.reveal().len(), 64);
        assert!(!same(&sha256(one.reveal()), &sha256(other.reveal())));
        assert!(same(&sha256(one.reveal()), &from_hex(&one.hash()).expect("a hash")));
    }
}
