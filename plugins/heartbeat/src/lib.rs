//! Heartbeats: `temperature` within a range, `current_page` an integer; everything else passes.

use sluicegate_sdk::{Failure, Message, Object, Output, handler, job, setting_or};

handler!(handle);

fn handle(message: Message) -> Result<Vec<Output>, Failure> {
    let object = Object::parse(&message.payload)?;
    if let Some(temperature) = object.optional("temperature")? {
        temperature.number(setting_or("min_temperature", -60.0)?..=setting_or("max_temperature", 120.0)?)?;
    }
    if let Some(page) = object.optional("current_page")? {
        // Real firmware sends it as a string of digits; the back end gets an integer.
        let integer = page.integer_or_digits(0)?;
        if integer.quoted {
            return job(object.with(&page, &integer.digits)).unkeyed();
        }
    }
    job(message.payload).unkeyed()
}

#[cfg(test)]
mod tests {
    use sluicegate_sdk::testing::{handler_samples, message, one_job, rejection, with_settings};

    use super::*;

    #[test]
    fn samples() {
        handler_samples(env!("CARGO_MANIFEST_DIR"), handle);
    }

    #[test]
    fn a_page_of_digits_becomes_an_integer_and_nothing_else_changes() {
        let (payload, key) = one_job(handle(message(r#"{ "current_page" : "007","temperature":12.30 }"#)));
        assert_eq!(payload, r#"{ "current_page" : 7,"temperature":12.30 }"#);
        assert_eq!(key, None);
    }

    #[test]
    fn says_what_is_wrong() {
        let reason = |payload: &str| rejection(handle(message(payload)));
        assert_eq!(reason(r#"{"temperature":120.1}"#), "temperature: was `120.1`, must be a number from -60 to 120");
        assert_eq!(reason(r#"{"temperature":"25"}"#), "temperature: was `\"25\"`, must be a number from -60 to 120");
        assert_eq!(
            reason(r#"{"current_page":-1}"#),
            "current_page: was `-1`, must be an integer of at least 0, or the same as a string of digits"
        );
        assert!(reason(r#"{"current_page":1.5}"#).starts_with("current_page: was `1.5`"));
        assert!(reason(r#"{"current_page":""}"#).starts_with("current_page"));
        assert!(reason("[]").starts_with("payload"));
    }

    #[test]
    fn the_range_is_a_setting_and_a_wrong_one_is_not_the_messages_fault() {
        with_settings(&[("max_temperature", "8")], || {
            assert!(rejection(handle(message(r#"{"temperature":9}"#))).contains("from -60 to 8"));
        });
        with_settings(&[("max_temperature", "warm")], || {
            assert!(
                matches!(handle(message(r#"{"temperature":9}"#)), Err(Failure::Retry(reason)) if reason.contains("max_temperature"))
            );
        });
    }
}
