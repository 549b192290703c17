//! Heartbeats: `temperature` within a range, `current_page` an integer; everything else passes.

use std::ops::RangeInclusive;

use sluicegate_sdk::{Failure, Message, Object, Output, handler, job, setting_or};

handler!(handle);

fn handle(message: Message) -> Result<Vec<Output>, Failure> {
    let object = Object::parse(&message.payload)?;
    if let Some(temperature) = object.optional("temperature")? {
        temperature.number(range()?)?;
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

/// Which temperatures pass. A range that nothing lies in is the operator's mistake, so the message is to be tried again.
fn range() -> Result<RangeInclusive<f64>, Failure> {
    let (least, most) = (setting_or("min_temperature", -60.0)?, setting_or("max_temperature", 120.0)?);
    if f64::is_finite(least) && f64::is_finite(most) && least <= most {
        return Ok(least..=most);
    }
    Err(Failure::Retry(format!(
        "the plugin's settings min_temperature and max_temperature are {least} and {most}; they must be two numbers, the \
         first not above the second"
    )))
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
        let large = r#"{"current_page":9223372036854775808}"#;
        assert_eq!(one_job(handle(message(large))).0, large);
        assert!(reason("[]").starts_with("payload"));
    }

    #[test]
    fn the_range_is_a_setting_and_a_wrong_one_is_not_the_messages_fault() {
        with_settings(&[("max_temperature", "8")], || {
            assert!(rejection(handle(message(r#"{"temperature":9}"#))).contains("from -60 to 8"));
        });
        for (name, value) in [
            ("max_temperature", "warm"),
            ("min_temperature", "NaN"),
            ("max_temperature", "inf"),
            ("min_temperature", "-inf"),
            ("min_temperature", "120.5"),
        ] {
            with_settings(&[(name, value)], || {
                let answer = handle(message(r#"{"temperature":9}"#));
                assert!(matches!(&answer, Err(Failure::Retry(reason)) if reason.contains(name)), "{value}: {answer:?}");
            });
        }
    }
}
