//! Commands: what is published is what was pushed, and it goes to its target alone.

use bytes::Bytes;
use sluicegate_core::command::{self, Command};
use sluicegate_core::json;

/// # Panics
/// Where a command is published as another one than it was.
pub fn command(bytes: &[u8]) {
    let (target, message_id) = command::named(bytes);
    assert!(target.chars().count() <= 128 && message_id.chars().count() <= 128, "a name is bounded");
    let raw = Bytes::copy_from_slice(bytes);
    let parsed = match Command::parse(raw.clone()) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(error.to_string().len() <= super::MAX_REASON, "{error}");
            return;
        }
    };
    assert!(!parsed.target.contains(['/', '+', '#', '\0']) && !parsed.target.starts_with('$'), "{}", parsed.target);
    assert!(parsed.payload().is_empty() || json::check(&parsed.payload()).is_ok(), "its payload is JSON");
    let unchanged = parsed.body(&parsed.payload()).expect("what was walked already");
    assert_eq!(unchanged, raw, "byte for byte");
    let other = Bytes::from_static(br#"{"rewritten":true}"#);
    let changed = parsed.body(&other).expect("JSON");
    let again = Command::parse(changed.clone()).unwrap_or_else(|error| panic!("{error}: {changed:?}"));
    assert_eq!(
        (&again.target, &again.name, &again.message_id, again.expires, again.payload()),
        (&parsed.target, &parsed.name, &parsed.message_id, parsed.expires, other),
        "nothing but the payload is another"
    );
}
