//! What a plugin may publish to: only what the operator granted it, and of what is a machine's own, only the message's own machine's.

use crate::message::Field;
use crate::topic::{MAX_BYTES, TopicPattern};

/// Of a topic that was not granted, the bytes that are told: it is a stranger's words.
const MAX_SHOWN: usize = 256;

/// Why a publication is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No topic name [MQTT-4.7.3-1], [MQTT-4.7.3-3], [MQTT-3.3.2-2].
    #[error("the plugin publishes to a topic that is none: {0}")]
    NoTopic(&'static str),
    /// No grant names it.
    #[error("the plugin publishes to `{0}`, which is not granted (grants.publish){1}")]
    NotGranted(String, &'static str),
}

/// Whether a plugin that handles a message with these captures may publish to a topic. A named level of a grant, such as `{serial_no}`, stands
/// for what the message's own topic has there, so that one machine's message never reaches another's topic.
///
/// # Errors
/// [`PublishError`] says why not.
pub fn check(grants: &[TopicPattern], topic: &str, captures: &[Field]) -> Result<(), PublishError> {
    let none = |why| Err(PublishError::NoTopic(why));
    if topic.is_empty() {
        return none("it is empty");
    }
    if topic.len() > MAX_BYTES {
        return none("it is longer than 65,535 bytes");
    }
    if topic.contains(['+', '#']) {
        return none("it holds a wildcard");
    }
    if topic.chars().any(char::is_control) {
        return none("it holds a control character");
    }
    // Those are the broker's, whatever a grant says [MQTT-4.7.2].
    if topic.starts_with('$') {
        return none("it begins with `$`, which is the broker's");
    }
    let own = |field: &Field| captures.iter().any(|own| own == field);
    let mut others = false;
    for grant in grants {
        match grant.matches(topic) {
            Some(named) if named.iter().all(own) => return Ok(()),
            Some(_) => others = true,
            None => {}
        }
    }
    let hint = if others { "; a named level of a grant stands for the message's own" } else { "" };
    let shown = &topic[..topic.floor_char_boundary(MAX_SHOWN)];
    Err(PublishError::NotGranted(shown.escape_debug().to_string(), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(grants: &[&str], topic: &str) -> Result<(), String> {
        let grants: Vec<TopicPattern> =
            grants.iter().map(|text| TopicPattern::parse(text).expect("a pattern")).collect();
        let captures = [Field { name: "serial_no".to_owned(), value: "M-1".to_owned() }];
        check(&grants, topic, &captures).map_err(|error| error.to_string())
    }

    #[test]
    fn a_message_reaches_its_own_machine_and_what_is_nobodys() {
        let grants = ["machine/{serial_no}/config", "alerts/#"];
        assert_eq!(granted(&grants, "machine/M-1/config"), Ok(()));
        assert_eq!(granted(&grants, "alerts/door"), Ok(()));
        let other = granted(&grants, "machine/M-2/config").expect_err("another's");
        assert!(other.ends_with("a named level of a grant stands for the message's own"), "{other}");
        assert!(granted(&grants, "machine/M-1/command").is_err());
        assert!(granted(&[], "machine/M-1/config").is_err());
        // A name that the route's topic does not have is nobody's.
        assert!(granted(&["machine/{other}/config"], "machine/M-1/config").is_err());
    }

    #[test]
    fn what_is_no_topic_is_refused_whatever_is_granted() {
        for topic in ["", "machine/+/config", "machine/#", "a\0b", "a\nb", "$SYS/broker/uptime", &"x".repeat(70_000)] {
            let refused = granted(&["#", "$SYS/#", "+/+/+"], topic).expect_err("refused");
            assert!(refused.starts_with("the plugin publishes to a topic that is none: "), "{refused}");
        }
    }
}
