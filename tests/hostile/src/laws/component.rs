//! A component's bytes: looked through without running them, and refused in words that people can read.

use sluicegate::sandbox::inspect;

use super::is_readable;

/// # Panics
/// Where what is said of the bytes is not theirs, or no one could read it.
pub fn component(bytes: &[u8]) {
    match inspect::inspect(bytes) {
        Ok(found) => {
            assert_eq!((found.size, found.digest), (bytes.len() as u64, inspect::digest(bytes)));
            let manifest = &found.manifest;
            for text in [&manifest.name, &manifest.version, &manifest.description] {
                assert!(is_readable(text), "{text:?}");
            }
            assert!(
                found
                    .imports
                    .iter()
                    .all(|import| import.starts_with("sluicegate:plugin/") || import.starts_with("wasi:"))
            );
        }
        Err(refusal) => {
            let reason = refusal.to_string();
            assert!(is_readable(&reason), "{} bytes: {reason:.400?}", reason.len());
        }
    }
}
