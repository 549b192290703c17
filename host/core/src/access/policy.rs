//! The rules, as the settings make them.

use super::Denied;
use crate::message::is_deceptive;
use crate::route::SERIAL_NO;
use crate::settings::Settings;
use crate::topic::{TopicPattern, TopicTemplate, check_target};

/// Where brokers count what they drop, which the gateway subscribes to: mosquitto, and EMQX for each of its nodes (its `messages/dropped`
/// counts those that nobody wanted, too).
pub const DROP_COUNTERS: [&str; 2] =
    ["$SYS/broker/publish/messages/dropped", "$SYS/brokers/+/metrics/delivery/dropped/queue_full"];

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Publish on a topic.
    Publish {
        /// Whether the broker is to keep it.
        retain: bool,
    },
    /// Subscribe with a filter.
    Subscribe,
}

/// Who may do what.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The gateway's user name.
    gateway: String,
    /// What no machine may be called: its client id is its name, so its session would be the gateway's.
    reserved: Vec<String>,
    /// What machines publish.
    routes: Vec<TopicPattern>,
    commands: TopicTemplate,
    /// What the gateway subscribes to.
    filters: Vec<String>,
}

/// What stands behind a command's topic where a machine says what became of it.
const ACK: &str = "/ack";

impl Policy {
    /// From the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let (mqtt, gateway) = (&settings.mqtt, settings.access.gateway_user.clone());
        let reserved = [gateway.clone(), mqtt.client_id.clone(), format!("{}-commands", mqtt.client_id)];
        let reserved = reserved.into_iter().chain(mqtt.username.clone()).collect();
        let routes: Vec<TopicPattern> = settings.routes.iter().map(|route| route.topic.clone()).collect();
        let commands = settings.commands.topic.clone();
        let acks = format!("{}{ACK}", commands.pattern().filter());
        let filters = routes.iter().map(TopicPattern::filter).chain([acks]);
        let filters = filters.chain(DROP_COUNTERS.map(str::to_owned)).collect();
        Self { gateway, reserved, routes, commands, filters }
    }

    /// Whether a machine may log in by this name, under this client id: its own name, and no other.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn login(&self, user: &str, client_id: &str) -> Result<(), Denied> {
        self.machine(user)?;
        if client_id == user { Ok(()) } else { Err(Denied::ClientId) }
    }

    /// Whether a name can be a machine's.
    fn machine(&self, user: &str) -> Result<(), Denied> {
        check_target(user).map_err(|_| Denied::Name)?;
        if self.reserved.iter().any(|name| name == user) { Err(Denied::Reserved) } else { Ok(()) }
    }

    /// Whether this is the gateway's name.
    #[must_use]
    pub fn is_gateway(&self, user: &str) -> bool {
        user == self.gateway
    }

    /// Whether a user may do something on a topic.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn decide(&self, user: &str, action: Action, topic: &str) -> Result<(), Denied> {
        let topic = seen_through(action, topic).ok_or(Denied::Topic)?;
        let allowed = match (action, self.is_gateway(user)) {
            (Action::Publish { retain }, true) => {
                let allowed = self.commands.pattern().matches(topic).is_some() && is_topic(topic);
                if allowed && retain {
                    return Err(Denied::Retained);
                }
                allowed
            }
            (Action::Subscribe, true) => self.filters.iter().any(|filter| filter == topic),
            (Action::Publish { .. }, false) => {
                self.machine(user)?;
                is_topic(topic) && self.is_own(user, topic)
            }
            (Action::Subscribe, false) => {
                self.machine(user)?;
                // The name has no wildcard, so a filter that is the same text has none either.
                topic == self.commands.fill(user)
            }
        };
        if allowed { Ok(()) } else { Err(Denied::Topic) }
    }

    /// Whether a topic is one of those that a machine publishes on.
    fn is_own(&self, user: &str, topic: &str) -> bool {
        // No route takes commands: the settings are refused then. It is looked at here all the same, since this is what must never be.
        if self.commands.pattern().matches(topic).is_some() {
            return false;
        }
        let acknowledges = topic.strip_suffix(ACK).is_some_and(|command| command == self.commands.fill(user));
        let own = |route: &TopicPattern| {
            let fields = route.matches(topic);
            fields.is_some_and(|fields| fields.iter().any(|field| field.name == SERIAL_NO && field.value == user))
        };
        acknowledges || self.routes.iter().any(own)
    }
}

/// No wildcard [MQTT-3.3.2-2], and nothing that hides what it is.
fn is_topic(topic: &str) -> bool {
    !topic.contains(['+', '#']) && !topic.contains(is_deceptive)
}

/// The topic behind what EMQX puts before it: it asks for the topic itself, but other versions, or another broker, may not. None: there is
/// no topic behind it.
fn seen_through(action: Action, topic: &str) -> Option<&str> {
    match action {
        Action::Publish { .. } => match topic.strip_prefix("$delayed/") {
            Some(rest) => {
                rest.split_once('/').filter(|(delay, _)| delay.parse::<u32>().is_ok()).map(|(_, topic)| topic)
            }
            None => Some(topic),
        },
        Action::Subscribe => {
            let topic = topic.strip_prefix("$exclusive/").unwrap_or(topic);
            if let Some(rest) = topic.strip_prefix("$share/") {
                return rest.split_once('/').filter(|(group, _)| !group.is_empty()).map(|(_, topic)| topic);
            }
            Some(topic.strip_prefix("$queue/").unwrap_or(topic))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::settings::interpolate::Sources;
    use crate::settings::{BUILT_IN, Outside, read};

    fn policy_of(text: &str) -> Policy {
        let outside = Outside {
            sources: Sources { variable: &|_| Ok(None), file: &|_| Err(String::new()) },
            base: Path::new(""),
            built_in_plugin: &|name| name.into(),
        };
        Policy::new(&read(Some(("settings", text)), &outside).expect("good").settings)
    }

    fn policy() -> Policy {
        policy_of(BUILT_IN)
    }

    const PUBLISH: Action = Action::Publish { retain: false };
    const RETAINED: Action = Action::Publish { retain: true };

    #[track_caller]
    fn check(user: &str, action: Action, topic: &str, expected: Result<(), Denied>) {
        assert_eq!(policy().decide(user, action, topic), expected, "{user} {action:?} {topic}");
    }

    #[test]
    fn a_machine_publishes_its_own_and_nothing_else() {
        for kind in ["heartbeat", "error", "transaction", "command/ack"] {
            check("M-1", PUBLISH, &format!("machine/M-1/{kind}"), Ok(()));
            // As acl.conf and mosquitto have it; the gateway asks for no retained messages.
            check("M-1", RETAINED, &format!("machine/M-1/{kind}"), Ok(()));
            check("M-1", PUBLISH, &format!("$delayed/5/machine/M-1/{kind}"), Ok(()));
            for other in ["M-2", "m-1", "M-1 ", "+", "#", ""] {
                check("M-1", PUBLISH, &format!("machine/{other}/{kind}"), Err(Denied::Topic));
            }
        }
        for topic in [
            "machine/M-1/command",
            "$delayed/1/machine/M-1/command",
            "$delayed/machine/M-1/heartbeat",
            "$delayed/1",
            "$share/g/machine/M-1/heartbeat",
            "machine/M-1/other",
            "machine/M-1/heartbeat/more",
            "machine/M-1",
            "/machine/M-1/heartbeat",
            "machine/M-1/#",
            "#",
            "",
            "$SYS/broker/publish/messages/dropped",
        ] {
            check("M-1", PUBLISH, topic, Err(Denied::Topic));
        }
    }

    #[test]
    fn a_machine_subscribes_to_its_own_commands_alone() {
        for filter in ["machine/M-1/command", "$share/g/machine/M-1/command", "$exclusive/machine/M-1/command"] {
            check("M-1", Action::Subscribe, filter, Ok(()));
        }
        for filter in [
            "machine/M-2/command",
            "machine/+/command",
            "machine/M-1/+",
            "machine/M-1/#",
            "machine/#",
            "#",
            "+/M-1/command",
            "machine/M-1/heartbeat",
            "machine/M-1/command/ack",
            "$share/g/machine/+/command",
            "$share/machine/M-1/command",
            "$share//machine/M-1/command",
            "$queue/machine/+/command",
            "$delayed/1/machine/M-1/command",
            "$SYS/#",
            "",
        ] {
            check("M-1", Action::Subscribe, filter, Err(Denied::Topic));
        }
    }

    #[test]
    fn the_gateway_publishes_commands_and_subscribes_to_the_routes() {
        check("sluicegate", PUBLISH, "machine/M-1/command", Ok(()));
        check("sluicegate", RETAINED, "machine/M-1/command", Err(Denied::Retained));
        for topic in ["machine/M-1/heartbeat", "machine/+/command", "machine/M-1/command/ack", "x", ""] {
            check("sluicegate", PUBLISH, topic, Err(Denied::Topic));
        }
        for kind in ["heartbeat", "error", "transaction", "command/ack"] {
            check("sluicegate", Action::Subscribe, &format!("machine/+/{kind}"), Ok(()));
            check("sluicegate", Action::Subscribe, &format!("$share/g/machine/+/{kind}"), Ok(()));
        }
        DROP_COUNTERS.iter().for_each(|counter| check("sluicegate", Action::Subscribe, counter, Ok(())));
        for filter in ["#", "machine/#", "machine/+/command", "machine/M-1/heartbeat", "$SYS/#"] {
            check("sluicegate", Action::Subscribe, filter, Err(Denied::Topic));
        }
    }

    #[test]
    fn names_that_are_none_and_the_gateways_own_are_refused() {
        let long = "x".repeat(65);
        for name in ["", "+", "#", "a/b", "a+", "$SYS", "a\0", "a\n", "a\u{202e}b", long.as_str()] {
            assert_eq!(policy().login(name, name), Err(Denied::Name), "{name:?}");
            check(name, PUBLISH, &format!("machine/{name}/heartbeat"), Err(Denied::Name));
            check(name, Action::Subscribe, &format!("machine/{name}/command"), Err(Denied::Name));
        }
        let own = policy_of(&BUILT_IN.replacen("[mqtt]\n", "[mqtt]\nusername = \"gw\"\n", 1));
        for name in ["sluicegate", "sluicegate-commands", "gw"] {
            assert_eq!(own.login(name, name), Err(Denied::Reserved), "{name}");
        }
        assert_eq!(policy().decide("sluicegate-commands", PUBLISH, "machine/M-1/command"), Err(Denied::Reserved));
        assert_eq!(policy().login("M-1", "M-1"), Ok(()));
        for id in ["M-2", "", "m-1", "sluicegate", "M-1 "] {
            assert_eq!(policy().login("M-1", id), Err(Denied::ClientId), "{id}");
        }
    }

    #[test]
    fn the_topics_are_the_settings() {
        let routes = "[plugins.p]\npath = \"p\"\n[[routes]]\nname = \"r\"\ntopic = \"site/{site}/{serial_no}/up/#\"\n\
                      handlers = [\"p\"]\n[commands]\ntopic = \"down/{target}\"\n[access]\ngateway_user = \"gw\"\n";
        let policy = policy_of(routes);
        for (user, action, topic, allowed) in [
            ("M-1", PUBLISH, "site/berlin/M-1/up/a/b", true),
            ("M-1", PUBLISH, "site/M-1/M-2/up/a", false),
            ("M-1", PUBLISH, "site/berlin/M-1/up/+", false),
            ("M-1", PUBLISH, "machine/M-1/heartbeat", false),
            ("M-1", PUBLISH, "down/M-1/ack", true),
            ("M-1", PUBLISH, "down/M-1", false),
            ("M-1", Action::Subscribe, "down/M-1", true),
            ("gw", Action::Subscribe, "site/+/+/up/#", true),
            ("gw", PUBLISH, "down/M-1", true),
            ("sluicegate", PUBLISH, "down/M-1", false),
        ] {
            assert_eq!(policy.decide(user, action, topic).is_ok(), allowed, "{user} {action:?} {topic}");
        }
    }

    /// Names and levels that are near each other, so that what is wrong is found.
    fn level() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("machine".to_owned()),
            Just("M-1".to_owned()),
            Just("M-2".to_owned()),
            Just("command".to_owned()),
            Just("ack".to_owned()),
            Just("heartbeat".to_owned()),
            Just("+".to_owned()),
            Just("#".to_owned()),
            Just("$share".to_owned()),
            Just("$delayed".to_owned()),
            Just("$exclusive".to_owned()),
            Just("$queue".to_owned()),
            Just("1".to_owned()),
            "\\PC{0,3}",
        ]
    }

    proptest! {
        /// What one machine may do, no other may; and nobody but the gateway publishes what another subscribes to.
        #[test]
        fn no_two_machines_share_anything(levels in prop::collection::vec(level(), 0..7), a in level(), b in level()) {
            prop_assume!(a != b);
            let (policy, topic) = (policy(), levels.join("/"));
            for action in [PUBLISH, RETAINED, Action::Subscribe] {
                let (first, second) = (policy.decide(&a, action, &topic), policy.decide(&b, action, &topic));
                prop_assert!(first.is_err() || second.is_err(), "{a} and {b}: {action:?} {topic}");
            }
            prop_assert!(policy.decide(&a, PUBLISH, &topic).is_err() || policy.decide(&b, Action::Subscribe, &topic).is_err());
        }

        /// What a machine may do has its own name as a level, and no wildcard.
        #[test]
        fn what_a_machine_may_do_is_its_own(levels in prop::collection::vec(level(), 0..7), user in level()) {
            let topic = levels.join("/");
            for action in [PUBLISH, RETAINED, Action::Subscribe] {
                if policy().decide(&user, action, &topic).is_ok() {
                    let behind = seen_through(action, &topic).expect("it was allowed");
                    prop_assert!(behind.split('/').any(|level| level == user));
                    prop_assert!(!behind.contains(['+', '#']) && check_target(&user).is_ok());
                }
            }
        }

        /// Any text at all is decided.
        #[test]
        fn any_text_is_decided(user in ".*", topic in ".*") {
            for action in [PUBLISH, RETAINED, Action::Subscribe] {
                let _ = policy().decide(&user, action, &topic);
            }
            let _ = policy().login(&user, &topic);
        }
    }
}
