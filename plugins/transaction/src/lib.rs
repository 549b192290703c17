//! Transactions: what was sold where for how much; the transaction's id makes it the same as another.
//!
//! A `quantity` that is not there means 1. Nothing is added for it: the payload passes byte for byte, and the back end reads
//! it that way.

use sluicegate_sdk::{Failure, Message, Object, Output, capture, handler, job, reject, setting};

handler!(handle);

/// What a transaction may hold. `required` is a list of them.
const FIELDS: [&str; 7] = ["transaction_id", "slot_no", "amount", "quantity", "payment_type", "product_id", "status"];
const REQUIRED: &str = "transaction_id,slot_no,amount";

fn handle(message: Message) -> Result<Vec<Output>, Failure> {
    let object = Object::parse(&message.payload)?;
    require(&object)?;
    if let Some(slot) = object.optional("slot_no")? {
        slot.integer(1)?;
    }
    if let Some(amount) = object.optional("amount")? {
        amount.amount()?;
    }
    if let Some(quantity) = object.optional("quantity")? {
        quantity.integer(1)?;
    }
    for name in ["payment_type", "product_id", "status"] {
        if let Some(value) = object.optional(name)? {
            let fits = if value.is_string() { value.string(0..=64).map(drop) } else { value.any_integer() };
            fits.map_err(|_| value.must_be("a string of at most 64 characters, or an integer"))?;
        }
    }
    match object.optional("transaction_id")? {
        Some(id) => {
            let key = format!("{}:{}", capture(&message, "serial_no"), id.string(1..=64)?);
            job(message.payload).keyed(key)
        }
        None => job(message.payload).unkeyed(),
    }
}

fn require(object: &Object<'_>) -> Result<(), Failure> {
    let setting = setting("required");
    for name in setting.as_deref().unwrap_or(REQUIRED).split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let Some(field) = FIELDS.into_iter().find(|field| *field == name) else {
            return Err(Failure::Retry(format!(
                "the plugin's setting required names `{name}`, which is none of {}",
                FIELDS.join(", ")
            )));
        };
        if object.optional(field)?.is_none() {
            return reject(format!("{field}: is missing, must be there"));
        }
    }
    Ok(())
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
    fn the_key_is_the_machine_and_the_transaction() {
        let text = r#"{"transaction_id":"T1","slot_no":5,"amount":12.30}"#;
        assert_eq!(one_job(handle(message(text))), (text.to_owned(), Some("M-001:T1".to_owned())));
    }

    #[test]
    fn says_what_is_wrong() {
        let reason = |rest: &str| rejection(handle(message(format!(r#"{{"transaction_id":"T1",{rest}}}"#))));
        assert_eq!(reason(r#""slot_no":5"#), "amount: is missing, must be there");
        assert_eq!(reason(r#""amount":1,"slot_no":"5""#), "slot_no: was `\"5\"`, must be an integer of at least 1");
        assert_eq!(
            reason(r#""amount":"-1","slot_no":5"#),
            "amount: was `\"-1\"`, must be a number of at least 0, or the same as a string"
        );
        let without = r#"{"transaction_id":"T1","slot_no":18446744073709551616,"amount":1}"#;
        assert_eq!(one_job(handle(message(without))).0, without, "no quantity is added, and a large integer is one");
        assert!(reason(r#""amount":1,"slot_no":5,"quantity":0"#).starts_with("quantity"));
        assert!(reason(r#""amount":1,"slot_no":5,"status":[]"#).starts_with("status"));
        assert!(reason(r#""amount":1,"slot_no":5,"amount":2"#).starts_with("amount: stands there twice"));
        let id = |id: &str| rejection(handle(message(format!(r#"{{"transaction_id":{id},"slot_no":1,"amount":1}}"#))));
        assert!(id("\"\"").starts_with("transaction_id"));
        assert!(id("5").starts_with("transaction_id"));
        assert!(id(&format!("\"{}\"", "x".repeat(65))).starts_with("transaction_id"));
    }

    #[test]
    fn what_is_required_is_a_setting() {
        with_settings(&[("required", "transaction_id, status")], || {
            assert_eq!(rejection(handle(message(r#"{"transaction_id":"T1"}"#))), "status: is missing, must be there");
            assert!(handle(message(r#"{"transaction_id":"T1","status":"ok"}"#)).is_ok());
        });
        with_settings(&[("required", "price")], || {
            assert!(matches!(handle(message("{}")), Err(Failure::Retry(reason)) if reason.contains("`price`")));
        });
    }
}
