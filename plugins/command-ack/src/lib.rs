//! What a machine says of a command: its `message_id`, and whether it did it. An acknowledgement that comes twice is one.

use sluicegate_sdk::{Failure, Message, Object, Output, capture, handler, job};

handler!(handle);

/// Yes in four words, no in three. A machine that says none of them says yes.
const STATUSES: [&str; 7] = ["acknowledged", "ok", "done", "success", "rejected", "error", "failed"];

fn handle(message: Message) -> Result<Vec<Output>, Failure> {
    let object = Object::parse(&message.payload)?;
    let id = object.required("message_id")?.string(1..=128)?;
    let mut said = "acknowledged".to_owned();
    if let Some(status) = object.optional("status")? {
        status.one_of(&STATUSES)?;
        said = status.string(1..=16)?;
    }
    if let Some(reason) = object.optional("reason")? {
        reason.any_string()?;
    }
    let key = format!("{}:{id}:{said}", capture(&message, "serial_no"));
    job(message.payload).keyed(key)
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
    fn a_machine_may_first_say_one_thing_and_then_another() {
        let key = |text: &str| one_job(handle(message(text))).1;
        assert_eq!(key(r#"{"message_id":"X"}"#).as_deref(), Some("M-001:X:acknowledged"));
        assert_eq!(key(r#"{"message_id":"X","status":"failed","reason":"jam"}"#).as_deref(), Some("M-001:X:failed"));
    }

    #[test]
    fn says_what_is_wrong() {
        let reason = |text: &str| rejection(handle(message(text)));
        assert_eq!(reason("{}"), "message_id: is missing, must be there");
        assert!(reason(r#"{"message_id":""}"#).starts_with("message_id"));
        assert!(reason(r#"{"message_id":"X","status":"perhaps"}"#).starts_with("status: was `\"perhaps\"`"));
        assert!(reason(r#"{"message_id":"X","reason":5}"#).starts_with("reason"));
    }
}
