//! A customer's payload transform: Acme's firmware has its own field names, degrees Fahrenheit and a nested object. It goes
//! before `heartbeat` in a chain, which then checks what came of it.

use sluicegate_sdk::{Failure, Message, Object, Output, handler, job};

handler!(handle);

/// `{"tempF":77.9,"ui":{"page":"3"},"fw":"9.1"}` → `{"temperature":25.5,"current_page":3,"firmware_version":"9.1"}`
fn handle(message: Message) -> Result<Vec<Output>, Failure> {
    let object = Object::parse(&message.payload)?;
    let mut fields = Vec::new();
    if let Some(fahrenheit) = object.optional("tempF")? {
        let celsius = (fahrenheit.number(-459.67..=1_000.0)? - 32.0) / 1.8;
        // To a hundredth of a degree: no sensor knows more.
        fields.push(format!(r#""temperature":{}"#, (celsius * 100.0).round() / 100.0));
    }
    if let Some(ui) = object.optional("ui")? {
        let ui = Object::parse(ui.text().as_bytes()).map_err(|_| ui.must_be("an object"))?;
        if let Some(page) = ui.optional("page")? {
            fields.push(format!(r#""current_page":{}"#, page.integer_or_digits(0)?.digits));
        }
    }
    if let Some(firmware) = object.optional("fw")? {
        firmware.string(0..=64)?;
        fields.push(format!(r#""firmware_version":{}"#, firmware.text()));
    }
    job(format!("{{{}}}", fields.join(",")).into_bytes()).unkeyed()
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
    fn converts_to_a_hundredth() {
        for (fahrenheit, celsius) in
            [("32", "0"), ("77.9", "25.5"), ("-40", "-40"), ("100", "37.78"), ("31.99", "-0.01")]
        {
            let (payload, _) = one_job(handle(message(format!(r#"{{"tempF":{fahrenheit}}}"#))));
            assert_eq!(payload, format!(r#"{{"temperature":{celsius}}}"#));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(
            rejection(handle(message(r#"{"tempF":"warm"}"#))),
            "tempF: was `\"warm\"`, must be a number from -459.67 to 1000"
        );
        assert_eq!(rejection(handle(message(r#"{"ui":[1]}"#))), "ui: was `[1]`, must be an object");
        assert!(rejection(handle(message(r#"{"ui":{"page":-1}}"#))).starts_with("page"));
    }
}
