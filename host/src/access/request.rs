//! What EMQX 5 sends, as `config/emqx/http.hocon` has it: the body's fields are templates, and EMQX puts texts into them (`"1"`, `"false"`; an
//! empty one for what it does not know). A template that somebody wrote without quotes is a number or a boolean.

use serde_json::{Map, Value};
use sluicegate_core::access::Action;

/// The fields of a question.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub user: String,
    pub password: String,
    pub client_id: String,
    /// The client's address, as the broker sees it.
    pub from: String,
    pub topic: String,
    action: String,
    retain: String,
}

/// The longest address that there is has fewer characters; what is longer comes from nobody.
const ADDRESS: usize = 64;

impl Asked {
    /// Reads a body: EMQX writes JSON, or a form where its `content-type` header says so. None: it is no question.
    pub(super) fn read(content_type: &str, body: &[u8]) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let mut asked = Self::default();
        if kind.eq_ignore_ascii_case("application/json") {
            let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
            for (name, value) in fields {
                let text = match value {
                    Value::String(text) => text,
                    Value::Number(number) => number.to_string(),
                    Value::Bool(flag) => flag.to_string(),
                    Value::Null => String::new(),
                    Value::Array(_) | Value::Object(_) => return None,
                };
                asked.set(&name, text);
            }
        } else if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            for (name, value) in form_urlencoded::parse(body) {
                asked.set(&name, value.into_owned());
            }
        } else {
            return None;
        }
        Some(asked)
    }

    fn set(&mut self, name: &str, text: String) {
        // EMQX 4 wrote this for what it does not know; nobody is to be called so by mistake.
        let text = if text == "undefined" { String::new() } else { text };
        match name {
            "username" => self.user = text,
            "password" => self.password = text,
            "clientid" => self.client_id = text,
            "peerhost" if text.len() <= ADDRESS => self.from = text,
            "topic" => self.topic = text,
            "action" => self.action = text,
            "retain" => self.retain = text,
            // `qos`, and whatever else somebody put there, changes nothing.
            _ => {}
        }
    }

    /// What is to be done with the topic.
    pub(super) fn action(&self) -> Option<Action> {
        match self.action.as_str() {
            // Whatever is not clearly no may be yes, and so may what the request's template leaves out.
            "publish" => Some(Action::Publish { retain: !matches!(self.retain.as_str(), "0" | "false") }),
            "subscribe" => Some(Action::Subscribe),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "application/json";

    #[test]
    fn reads_what_emqx_writes() {
        let asked = Asked::read(
            JSON,
            br#"{"action":"publish","clientid":"M-1","qos":"1","retain":"false","topic":"machine/M-1/error","username":"M-1"}"#,
        )
        .expect("a question");
        assert_eq!(
            (asked.user.as_str(), asked.client_id.as_str(), asked.topic.as_str()),
            ("M-1", "M-1", "machine/M-1/error")
        );
        assert_eq!(asked.action(), Some(Action::Publish { retain: false }));
        let form = "application/x-www-form-urlencoded";
        let asked = Asked::read(form, b"action=subscribe&username=M-1&topic=machine%2FM-1%2Fcommand&qos=1")
            .expect("a question");
        assert_eq!((asked.topic.as_str(), asked.action()), ("machine/M-1/command", Some(Action::Subscribe)));
    }

    #[test]
    fn retain_is_no_only_where_it_clearly_is() {
        for (retain, expected) in [
            (r#""false""#, false),
            ("false", false),
            (r#""0""#, false),
            ("0", false),
            (r#""""#, true),
            ("null", true),
            (r#""true""#, true),
            ("true", true),
            (r#""1""#, true),
            ("1", true),
            (r#""yes""#, true),
        ] {
            let body = format!(r#"{{"action":"publish","retain":{retain}}}"#);
            let asked = Asked::read(JSON, body.as_bytes()).expect("a question");
            assert_eq!(asked.action(), Some(Action::Publish { retain: expected }), "{retain}");
        }
        let asked = Asked::read(JSON, br#"{"action":"publish"}"#).expect("a question");
        assert_eq!(asked.action(), Some(Action::Publish { retain: true }), "nobody said that it is not");
    }

    #[test]
    fn what_is_missing_is_empty_and_garbage_is_nothing() {
        let asked =
            Asked::read("application/json; charset=utf-8", br#"{"username":"undefined","password":null,"x":1}"#);
        assert_eq!(asked, Some(Asked::default()));
        assert_eq!(Asked::default().action(), None);
        for (kind, body) in [
            (JSON, ""),
            (JSON, "x"),
            (JSON, "[]"),
            (JSON, r#"{"username":["M-1"]}"#),
            (JSON, r#"{"username":"M-1"} x"#),
            ("", "{}"),
            ("text/plain", "{}"),
        ] {
            assert_eq!(Asked::read(kind, body.as_bytes()), None, "{kind} {body}");
        }
    }
}
