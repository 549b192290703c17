//! Commands: one of those that the operator allows, with what it needs, for a machine that can be named in a topic.

use sluicegate_sdk::{Command, Failure, Object, reject, setting, validator};

validator!(validate);

const COMMANDS: &str = "dispense,reboot,unlock,sync_slots,set_temperature";

fn validate(command: Command) -> Result<Vec<u8>, Failure> {
    check_target(&command.target)?;
    let setting = setting("commands");
    let allowed = setting.as_deref().unwrap_or(COMMANDS);
    if !allowed.split(',').map(str::trim).any(|name| !name.is_empty() && name == command.name) {
        return reject(format!("command: was `{}`, must be one of {allowed}", shown(&command.name)));
    }
    let length = command.message_id.chars().count();
    if !(1..=128).contains(&length) {
        return reject(format!("message_id: has {length} characters, must have 1 to 128"));
    }
    if command.name == "dispense" {
        let payload = Object::parse(&command.payload)?;
        payload.required("slot_no")?.integer(1)?;
        payload.required("transaction_id")?.string(1..=64)?;
    }
    // An empty `payload` of Laravel is `[]`: it passes as it came.
    Ok(command.payload)
}

fn check_target(target: &str) -> Result<(), Failure> {
    let length = target.chars().count();
    if !(1..=64).contains(&length) {
        return reject(format!("target: has {length} characters, must have 1 to 64"));
    }
    if target.starts_with('$') || target.contains(['/', '+', '#', '\0']) {
        return reject(format!("target: was `{}`, must not begin with $ or hold /, +, # or NUL", shown(target)));
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use sluicegate_sdk::testing::{rejection, validator_samples, with_settings};

    use super::*;

    fn command(target: &str, name: &str, payload: &str, message_id: &str) -> Command {
        Command {
            target: target.to_owned(),
            name: name.to_owned(),
            payload: payload.into(),
            message_id: message_id.to_owned(),
        }
    }

    #[test]
    fn samples() {
        validator_samples(env!("CARGO_MANIFEST_DIR"), validate);
    }

    #[test]
    fn a_target_is_one_level_of_a_topic() {
        for bad in ["", "a/b", "+", "a#", "a\0", "$SYS", &"x".repeat(65)] {
            assert!(rejection(validate(command(bad, "reboot", "[]", "1"))).starts_with("target"), "{bad}");
        }
        assert!(validate(command(&"ü".repeat(64), "reboot", "[]", "1")).is_ok());
    }

    #[test]
    fn the_list_is_a_setting() {
        let reason = rejection(validate(command("M-1", "format", "[]", "1")));
        assert_eq!(reason, "command: was `format`, must be one of dispense,reboot,unlock,sync_slots,set_temperature");
        with_settings(&[("commands", "format, x")], || {
            assert!(validate(command("M-1", "format", "[]", "1")).is_ok());
            assert!(rejection(validate(command("M-1", "", "[]", "1"))).starts_with("command"));
        });
    }

    #[test]
    fn dispense_needs_a_slot_and_a_transaction() {
        let reason = |payload: &str| rejection(validate(command("M-1", "dispense", payload, "1")));
        assert!(reason("[]").starts_with("payload"));
        assert_eq!(reason(r#"{"transaction_id":"T"}"#), "slot_no: is missing, must be there");
        assert_eq!(reason(r#"{"slot_no":5}"#), "transaction_id: is missing, must be there");
        assert!(reason(r#"{"slot_no":"5","transaction_id":"T"}"#).starts_with("slot_no: was"));
    }

    #[test]
    fn a_message_id_is_needed() {
        assert_eq!(
            rejection(validate(command("M-1", "reboot", "[]", ""))),
            "message_id: has 0 characters, must have 1 to 128"
        );
        assert!(rejection(validate(command("M-1", "reboot", "[]", &"x".repeat(129)))).starts_with("message_id"));
    }
}
