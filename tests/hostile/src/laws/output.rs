//! What a handler answers: the walk takes exactly the JSON that every back end can read.

use serde_json::Value;
use sluicegate_core::json;

use super::is_readable;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// # Panics
/// Where the walk and another reader disagree beyond what the walk forbids.
pub fn output(bytes: &[u8]) {
    let read = serde_json::from_slice::<Value>(bytes);
    match json::check(bytes) {
        Ok(text) => {
            assert_eq!(text.as_bytes(), bytes, "the bytes are embedded as they are");
            let value = read.expect("another reader takes it");
            // An object keeps one of several equal keys, so this is a lower bound.
            assert!(depth(&value) <= json::MAX_DEPTH, "{text}");
            assert!(serde_json::from_str::<Value>(&value.to_string()).is_ok(), "it can be written and read again");
        }
        Err(error) => {
            let reason = error.to_string();
            assert!(is_readable(&reason), "{reason:?}");
            let forbidden = reason.contains("nested more than") || reason.contains("begins with NUL");
            assert!(read.is_err() || forbidden, "refused for what is no fault: {reason}");
        }
    }
}
