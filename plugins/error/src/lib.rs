//! Errors of a machine: a code, and optionally what, where and how bad.

use sluicegate_sdk::{Failure, Message, Object, Output, Value, capture, handler, job};

handler!(handle);

/// The longest `message_id`, in characters.
const MAX_ID: usize = 128;
const LEVELS: [&str; 4] = ["info", "warning", "error", "critical"];

fn handle(message: Message) -> Result<Vec<Output>, Failure> {
    let object = Object::parse(&message.payload)?;
    let code = object.required("error_code")?;
    let fits = if code.is_string() { code.string(1..=64).map(drop) } else { code.any_integer() };
    fits.map_err(|_| code.must_be("a string of 1 to 64 characters, or an integer"))?;
    if let Some(text) = object.optional("message")? {
        text.any_string()?;
    }
    if let Some(slot) = object.optional("slot_no")? {
        slot.integer(1)?;
    }
    if let Some(level) = object.optional("level")? {
        level.one_of(&LEVELS)?;
    }
    match object.optional("message_id")? {
        Some(id) => {
            let key = format!("{}:{}", capture(&message, "serial_no"), key_of(&id)?);
            job(message.payload).keyed(key)
        }
        None => job(message.payload).unkeyed(),
    }
}

/// Counters of firmware are integers: 7 and "7" are one id.
fn key_of(id: &Value<'_>) -> Result<String, Failure> {
    let key = if id.is_string() { id.string(1..=MAX_ID) } else { id.any_integer().map(|()| id.text().to_owned()) };
    match key {
        Ok(key) if key.chars().count() <= MAX_ID => Ok(key),
        _ => Err(id.must_be(format_args!("a string of 1 to {MAX_ID} characters, or an integer of as many"))),
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_sdk::testing::{handler_samples, message, one_job, rejection};

    use super::*;

    #[test]
    fn samples() {
        handler_samples(env!("CARGO_MANIFEST_DIR"), handle);
    }

    #[test]
    fn a_code_is_a_string_or_an_integer() {
        for good in [r#"{"error_code":"E1"}"#, r#"{"error_code":-12}"#, r#"{"error_code":18446744073709551615}"#] {
            assert_eq!(one_job(handle(message(good))), (good.to_owned(), None));
        }
        let reason = |payload: &str| rejection(handle(message(payload)));
        assert_eq!(reason("{}"), "error_code: is missing, must be there");
        assert_eq!(
            reason(r#"{"error_code":1.5}"#),
            "error_code: was `1.5`, must be a string of 1 to 64 characters, or an integer"
        );
        assert!(reason(r#"{"error_code":""}"#).starts_with("error_code"));
        assert!(reason(&format!(r#"{{"error_code":"{}"}}"#, "é".repeat(65))).starts_with("error_code"));
        assert!(reason(r#"{"error_code":null}"#).starts_with("error_code"));
    }

    #[test]
    fn the_rest_is_optional_and_checked() {
        let reason = |payload: &str| rejection(handle(message(payload)));
        assert_eq!(
            reason(r#"{"error_code":1,"level":"bad"}"#),
            "level: was `\"bad\"`, must be one of info, warning, error, critical"
        );
        assert_eq!(reason(r#"{"error_code":1,"slot_no":0}"#), "slot_no: was `0`, must be an integer of at least 1");
        assert!(reason(r#"{"error_code":1,"message":5}"#).starts_with("message"));
        let (_, key) = one_job(handle(message(r#"{"error_code":1,"message_id":"X"}"#)));
        assert_eq!(key.as_deref(), Some("M-001:X"));
        let long = format!(r#"{{"error_code":1,"message":"{}"}}"#, "x".repeat(5_000));
        assert_eq!(one_job(handle(message(long.as_str()))).0, long);
    }

    #[test]
    fn a_message_id_is_a_string_or_an_integer() {
        let with = |id: &str| handle(message(format!(r#"{{"error_code":1,"message_id":{id}}}"#)));
        assert_eq!(one_job(with("18446744073709551616")).1.as_deref(), Some("M-001:18446744073709551616"));
        assert_eq!(one_job(with("7")).1, one_job(with("\"7\"")).1);
        assert_eq!(
            rejection(with("1.5")),
            "message_id: was `1.5`, must be a string of 1 to 128 characters, or an integer of as many"
        );
        for bad in ["\"\"", "null", "[]", "true", &format!("\"{}\"", "x".repeat(129)), &"1".repeat(129)] {
            assert!(rejection(with(bad)).starts_with("message_id"), "{bad}");
        }
    }
}
