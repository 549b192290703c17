use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::interpolate::Sources;
use super::*;

fn read_with(text: Option<&str>, environment: &[(&str, &str)]) -> Result<Resolved, SettingsErrors> {
    let environment: HashMap<&str, &str> = environment.iter().copied().collect();
    let variable = |name: &str| Ok(environment.get(name).map(|value| (*value).to_owned()));
    let file = |path: &str| if path == "secret" { Ok("s3cret\n".to_owned()) } else { Err("no such file".to_owned()) };
    let outside = Outside {
        sources: Sources { variable: &variable, file: &file },
        base: Path::new("/etc/sluicegate"),
        built_in_plugin: &|name| PathBuf::from(format!("/plugins/{name}.wasm")),
    };
    read(text.map(|text| ("s.toml", text)), &outside)
}

#[track_caller]
fn wrong(text: &str, expected: &[&str]) {
    let errors = read_with(Some(text), &[]).expect_err("refused");
    let lines: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expected);
}

#[test]
fn with_no_file_the_environment_alone_is_enough() {
    let environment = [
        ("MQTT_BROKER_HOST", "emqx"),
        ("MQTT_BROKER_PORT", "1884"),
        ("MQTT_GATEWAY_CLIENT_ID", "gw"),
        ("MQTT_REDIS_HOST", "cache"),
        ("MQTT_REDIS_PORT", ""),
    ];
    let settings = read_with(None, &environment).expect("good").settings;
    assert_eq!(settings.mqtt.url, MqttUrl::At { tls: false, host: "emqx".into(), port: 1884 });
    assert_eq!(settings.mqtt.client_id, "gw");
    assert!(matches!(settings.redis.url, RedisUrl::At { ref host, port: 6379, .. } if host == "cache"));
    assert_eq!(settings.plugins["heartbeat"].path, Path::new("/plugins/heartbeat.wasm"));
    assert_eq!(settings.routes.len(), 3);
    assert_eq!(settings.commands.validator.as_deref(), Some("command-validation"));
}

#[test]
fn the_shipped_file_is_the_defaults_and_has_no_warning() {
    let shipped = read_with(Some(BUILT_IN), &[]).expect("good");
    assert_eq!(shipped.warnings, Vec::<String>::new());
    let mut none = read_with(None, &[]).expect("good").settings;
    for (name, plugin) in &mut none.plugins {
        plugin.path = PathBuf::from(format!("/etc/sluicegate/plugins/{name}.wasm"));
    }
    assert_eq!(shipped.settings, none);
}

/// Every default that the shipped file shows in a comment or sets is the table's.
#[test]
fn the_shipped_file_shows_the_tables_defaults() {
    let mut section = "";
    let mut seen = 0;
    for line in BUILT_IN.lines() {
        section = match line {
            "# [plugins.NAME.limits]" => "plugins.*.limits",
            _ if line.starts_with("# [plugins.NAME.grants]") => "plugins.*.grants",
            _ if line.starts_with("# Every route may also have") => "routes",
            "# [access]" => "access",
            _ if line.starts_with('[') => match line.trim_end_matches(']').trim_start_matches('[') {
                name if name.starts_with("plugins.") => "plugins.*",
                name => table::KEYS.iter().find(|key| key.section == name).map_or("", |key| key.section),
            },
            _ => section,
        };
        let Some((name, rest)) = line.trim_start_matches("# ").split_once(" = ") else { continue };
        let Some(default) = table::of(section).find(|key| key.name == name).and_then(|key| key.default) else {
            continue;
        };
        let value = rest.split("  ").next().unwrap_or(rest).trim().replace('_', "");
        let value = if value.starts_with('"') { value.trim_matches('"').to_owned() } else { value };
        assert_eq!(value, default.replace('_', ""), "{section}.{name}");
        seen += 1;
    }
    assert!(seen >= 25, "only {seen} defaults were compared");
}

#[test]
fn a_mistake_is_told_with_place_key_and_what_is_allowed() {
    wrong(
        "[mqtt]\nrecieve_maximum = 5\n",
        &["s.toml:2:1: mqtt.recieve_maximum: unknown key; did you mean `receive_maximum`?"],
    );
    wrong("[mqqt]\n", &["s.toml:1:2: mqqt: unknown section; did you mean `mqtt`?"]);
    wrong(
        "[mqtt]\n  receive_maximum = \"many\"\n",
        &["s.toml:2:21: mqtt.receive_maximum: expected an integer from 1 to 65535, found `many`"],
    );
    wrong(
        "[mqtt]\nreceive_maximum = 0\nsession_expiry = \"soon\"\n",
        &[
            "s.toml:3:18: mqtt.session_expiry: expected a duration such as \"10s\" (units ms, s, m, h, d), from 1s to 3650d, found `soon`",
            "s.toml:2:19: mqtt.receive_maximum: expected an integer from 1 to 65535, found `0`",
        ],
    );
    wrong(
        "[mqtt]\nurl = 5\n",
        &["s.toml:2:7: mqtt.url: expected \"mqtt://host:port\", \"mqtts://host:port\" or \"embedded\", found `5`"],
    );
    wrong(
        "[mqtt]\nurl = \"mqtt://u:p@h\"\n",
        &["s.toml:2:7: mqtt.url: holds a user name; write it in mqtt.username and mqtt.password"],
    );
    wrong("[mqtt]\npassword = \"x\"\n", &["s.toml:2:12: mqtt.password: needs `mqtt.username` beside it"]);
    wrong(
        "[gateway]\ninstance = \"a b\"\n",
        &["s.toml:2:12: gateway.instance: must be 1 to 64 of letters, digits, `_`, `.` and `-`, found `a b`"],
    );
    wrong(
        "[admin]\nlisten = \"9090\"\n",
        &["s.toml:2:10: admin.listen: expected an address and a port such as \"127.0.0.1:9090\", found `9090`"],
    );
    wrong(
        "[queues]\noutgoing = \"mqtt_incoming_jobs\"\n",
        &["s.toml:2:12: queues.outgoing: is the same list as queues.incoming; it must be one of its own"],
    );
    wrong(
        "[redis]\nkey_prefix = \"{x}\"\n",
        &["s.toml:2:14: redis.key_prefix: must hold no braces: they are what a Redis cluster places keys by"],
    );
    wrong(
        "[redis]\nurl = \"redis://h/1\"\ncluster = true\n",
        &["s.toml:3:11: redis.cluster: a cluster has database 0 alone; take the number off redis.url"],
    );
    wrong(
        "[redis]\ncluster_nodes = [\"a:7001\"]\n",
        &["s.toml:2:17: redis.cluster_nodes: needs `redis.cluster = true` beside it"],
    );
    wrong(
        "[redis]\ncluster = true\ncluster_nodes = [\"a:7001\", \"b:x\"]\n",
        &["s.toml:3:17: redis.cluster_nodes: `b:x`: the port must be a number from 1 to 65535"],
    );
    wrong(
        "[redis]\nurl = \"embedded\"\ncluster = true\n",
        &["s.toml:3:11: redis.cluster: `embedded` is no cluster; name a node of one in redis.url, or take this out"],
    );
    wrong(
        "[commands]\ntopic = \"machine/+/command\"\n",
        &[
            "s.toml:2:9: commands.topic: the topic holds a wildcard; commands are published, so it must be a full topic with `{target}`",
        ],
    );
    wrong(
        "[mqtt]\nname = \"${NONE}\"\n",
        &["s.toml:2:8: mqtt.name: the environment has no NONE; set it, or write `${NONE:-default}`"],
    );
    wrong("mqtt = 5", &["s.toml:1:8: mqtt: must be a section, `[mqtt]`"]);
}

#[test]
fn a_mistake_from_outside_names_where_it_came_from() {
    let said = |text: Option<&str>, environment: &[(&str, &str)]| {
        read_with(text, environment).expect_err("refused").0.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        said(None, &[("MQTT_BROKER_PORT", "abc")]),
        ["mqtt.url (environment MQTT_BROKER_PORT): the port must be a number from 1 to 65535"]
    );
    assert_eq!(
        said(None, &[("MQTT_BROKER_HOST", "::1")]),
        ["mqtt.url (environment MQTT_BROKER_HOST): an IPv6 address stands in brackets, `[::1]:1883`"]
    );
    assert_eq!(
        said(Some("[mqtt]\nreceive_maximum = \"${MANY}\"\n"), &[("MANY", "many")]),
        ["s.toml:2:19: mqtt.receive_maximum (environment MANY): expected an integer from 1 to 65535, found `many`"]
    );
}

#[test]
fn a_mistake_never_shows_a_secret() {
    wrong("[mqtt]\nusername = \"g\"\npassword = 12345\n", &["s.toml:3:12: mqtt.password: expected a text, found ***"]);
    wrong(
        "[mqtt]\nreceive_maximum = \"${file:secret}\"\n",
        &["s.toml:2:19: mqtt.receive_maximum (file secret): expected an integer from 1 to 65535, found ***"],
    );
    for text in [
        "[gateway]\ninstance = \"${file:secret} \"\n",
        "[mqtt]\nurl = \"${file:secret}\"\n",
        "[redis]\nurl = \"redis://${file:secret}\"\n[mqtt]\nname = \"\"\n",
        "[redis]\nurl = \"redis://app:s3cret\"\n",
        "[commands]\nvalidator = \"${file:secret}\"\n",
        "[commands]\ntopic = \"${file:secret}#/{target}\"\n",
    ] {
        let errors = read_with(Some(text), &[]).expect_err("refused");
        assert!(!errors.to_string().contains("s3cret"), "{errors}");
    }
}

#[test]
fn one_mistake_makes_no_second_one() {
    let route = "[[routes]]\nname = \"r\"\ntopic = \"{serial_no}\"\nhandlers = [\"heartbeat\"]\n";
    wrong(
        &format!("[plugins.heartbeat]\npath = \"a\"\n[plugins.heartbeat.limits]\ncall_timeout = \"fast\"\n{route}"),
        &[
            "s.toml:4:16: plugins.heartbeat.limits.call_timeout: expected a duration such as \"10s\" (units ms, s, m, h, d), from 1ms to 1m, found `fast`",
        ],
    );
    wrong(
        &format!("{route}[plugins]\nheartbeat = 5\n"),
        &["s.toml:6:13: plugins.heartbeat: must be a section, `[plugins.heartbeat]`"],
    );
    wrong(
        &format!("[plugins.heartbeat]\npath = 2026-04-14\n{route}"),
        &["s.toml:2:8: plugins.heartbeat.path: expected a text, found datetime"],
    );
    wrong(
        "[plugins.a]\npath = \"a\"\n[[routes]]\nname = \"r\"\ntopic = \"{serial_no}\"\nhandlers = [\"a\", 5]\n",
        &["s.toml:6:18: routes[0].handlers: expected a list of texts, found integer as number 2 of the list"],
    );
    wrong(&format!("routes = 5\n{PLUGIN}"), &["s.toml:1:10: routes: must be a list of sections, `[[routes]]`"]);
}

#[test]
fn a_syntax_error_has_a_place() {
    let errors = read_with(Some("[mqtt]\nurl = \n"), &[]).expect_err("refused");
    let place = errors.0[0].place.clone().expect("a place");
    assert_eq!((place.line, errors.0[0].key.as_str()), (2, ""));
    wrong("[mqtt]\nname = \"a\"\nname = \"b\"\n", &["s.toml:3:1: `name` is there twice; leave one of them"]);
}

const PLUGIN: &str = "[plugins.a]\npath = \"a.wasm\"\n";

#[test]
fn routes_are_checked_against_plugins_and_each_other() {
    let route = |rest: &str| format!("{PLUGIN}[[routes]]\n{rest}\n");
    wrong(
        &route("topic = \"m/{serial_no}\"\nhandlers = [\"a\"]"),
        &["s.toml:3:1: routes[0].name: is missing; a route needs name, topic and handlers"],
    );
    wrong(
        &route("name = \"r\"\ntopic = \"m/{serial}\"\nhandlers = [\"aa\"]"),
        &[
            "s.toml:5:9: routes[0].topic: must hold `{serial_no}` as a level: it says which machine a message is from",
            "s.toml:6:12: routes[0].handlers: there is no plugin `aa`; did you mean `a`?",
        ],
    );
    wrong(
        &format!(
            "{PLUGIN}[[routes]]\nname = \"r\"\ntopic = \"m/{{serial_no}}/+\"\nhandlers = [\"a\"]\n\
             [[routes]]\nname = \"r\"\ntopic = \"m/{{serial_no}}/x\"\nhandlers = [\"a\"]\n"
        ),
        &[
            "s.toml:8:8: routes[1].name: `r` is the name of another route; names are unique",
            "s.toml:9:9: routes[1].topic: `m/{serial_no}/x` can never match: route `r` stands before it and takes every topic of it; put it before",
        ],
    );
    wrong(
        PLUGIN,
        &["s.toml:1:2: routes: there is none; write at least one `[[routes]]` with name, topic and handlers"],
    );
    wrong(
        "[plugins.a]\n[[routes]]\nname = \"r\"\ntopic = \"{serial_no}\"\nhandlers = []\n",
        &["s.toml:1:10: plugins.a.path: is missing; it names the component file"],
    );
    wrong(
        &route("name = \"r\"\ntopic = \"{serial_no}\"\nhandlers = [\"a\"]\non_failure = \"panic\""),
        &[
            "s.toml:7:14: routes[0].on_failure: expected one of \"dead-letter\", \"drop\", \"block\", \"pass-through\", found `panic`",
        ],
    );
}

#[test]
fn a_shared_subscription_is_refused() {
    for prefix in ["$share/gateways", "$queue"] {
        wrong(
            &format!("{PLUGIN}[[routes]]\nname = \"r\"\ntopic = \"{prefix}/m/{{serial_no}}\"\nhandlers = [\"a\"]\n"),
            &[
                "s.toml:5:9: routes[0].topic: must not be a shared subscription: it would spread a machine's messages over \
                 gateways, out of order; leave out what stands before the topic itself",
            ],
        );
    }
}

#[test]
fn files_for_tls_without_tls_are_warned_of() {
    let with = |url: &str| {
        let text = format!("[mqtt]\nurl = \"{url}\"\nusername = \"g\"\npassword = \"p\"\nca_file = \"ca.pem\"\n");
        read_with(Some(&text), &[]).expect("good").warnings
    };
    assert!(with("mqtt://h")[0].starts_with("mqtt.ca_file: has no effect: mqtt.url is not `mqtts://…`"));
    assert_eq!(with("mqtts://h"), Vec::<String>::new());
    wrong(
        "[mqtt]\nclient_key_file = \"k\"\n",
        &["s.toml:2:19: mqtt.client_key_file: needs `mqtt.client_cert_file` beside it"],
    );
}

#[test]
fn the_limits_defaults_are_the_tables() {
    let settings = read_with(None, &[]).expect("good").settings;
    assert_eq!(settings.plugins["heartbeat"].limits, Limits::default());
}

#[test]
fn fresh_instances_serve_one_call_and_their_number_follows_from_their_memory() {
    let read = |own: &str, limits: &str| {
        let text = format!(
            "[plugins.a]\npath = \"a\"\n{own}\n[plugins.a.limits]\n{limits}\n[[routes]]\nname = \"r\"\ntopic = \"{{serial_no}}\"\nhandlers = [\"a\"]\n"
        );
        read_with(Some(&text), &[]).expect("good").settings.plugins["a"].limits
    };
    assert_eq!((read("", "").calls, read("", "").instances), (10_000, 8));
    assert_eq!(read("instances = \"fresh\"", "calls = 5").calls, 1);
    assert_eq!(read("instances = \"warm\"", "calls = 5").calls, 5);
    assert_eq!(read("", "memory = \"256MiB\"").instances, 2);
    assert_eq!(read("", "memory = \"256MiB\"\ninstances = 5").instances, 5);
    assert_eq!(read("", "time_per_second = \"500ms\"").time_per_second, Some(Duration::from_millis(500)));
}

#[test]
fn all_plugins_together_have_no_more_instances_than_there_are() {
    let read = |a: &str, b: &str| {
        let text = format!(
            "[plugins.a]\npath = \"a\"\n{a}\n[plugins.b]\npath = \"b\"\n{b}\n[[routes]]\nname = \"r\"\n\
             topic = \"{{serial_no}}\"\nhandlers = [\"a\", \"b\"]\n"
        );
        read_with(Some(&text), &[]).map(drop).map_err(|errors| errors.to_string())
    };
    let of = |instances: usize| format!("limits.instances = {instances}");
    assert_eq!(read(&of(200), &of(300)), Ok(()));
    let error = read(&of(200), &of(301)).expect_err("too many");
    assert!(
        error.contains("plugins.b.limits.instances") && error.contains("may have 500 instances at once, and have 501"),
        "{error}"
    );
    assert!(read(&format!("canary.percent = 5\n{}", of(150)), &of(201)).is_err(), "a canary's come on top");
}

#[test]
fn what_is_left_out_and_another_key_gives_is_shown() {
    let shown = to_toml(&read_with(None, &[]).expect("good").effective);
    assert!(
        shown.contains("validator = \"command-validation\"  # default: there is a plugin of this name\n"),
        "{shown}"
    );
    assert!(shown.contains("type = \"heartbeat\"  # default: the route's name\n"), "{shown}");
    assert!(shown.contains("queue = \"mqtt_incoming_jobs\"  # default: queues.incoming\n"), "{shown}");
    let text = "[plugins.a]\npath = \"a\"\n[plugins.a.settings]\n\"a.b\" = 1\n\"\\\"x\\n\\u007f.\" = \"y\"\nplain = true\n\
                [[routes]]\nname = \"r\"\ntopic = \"{serial_no}\"\nhandlers = [\"a\"]\n";
    let resolved = read_with(Some(text), &[]).expect("good");
    let shown = to_toml(&resolved.effective);
    assert!(shown.contains("\n\"a.b\" = \"1\"  # s.toml:4\n"), "{shown}");
    assert_eq!(read_with(Some(&shown), &[]).expect("good").settings, resolved.settings, "{shown}");
}

#[test]
fn overlaps_and_unused_plugins_are_warned_of() {
    let text = format!(
        "{PLUGIN}[plugins.b]\npath = \"b.wasm\"\n[[routes]]\nname = \"x\"\ntopic = \"m/{{serial_no}}/x\"\nhandlers = [\"a\"]\n\
         [[routes]]\nname = \"all\"\ntopic = \"m/{{serial_no}}/+\"\nhandlers = [\"a\"]\n"
    );
    let warnings = read_with(Some(&text), &[]).expect("good").warnings;
    assert_eq!(warnings.len(), 3);
    assert!(warnings[0].contains("match route `x` too"), "{warnings:?}");
    assert!(warnings[1].contains("commands.validator"), "{warnings:?}");
    assert_eq!(warnings[2], "plugins.b: no route and no command uses it");
    let text = text.replace("handlers = [\"a\"]\n[[", "handlers = [\"a\"]\nwhen_behind = \"latest\"\n[[");
    let warnings = read_with(Some(&text), &[]).expect("good").warnings;
    assert!(warnings[0].starts_with("routes[0].when_behind: has no effect without priority"), "{warnings:?}");
}

#[test]
fn secrets_are_never_shown_and_sources_are() {
    let text = "[mqtt]\nusername = \"g\"\npassword = \"${file:secret}\"\n[redis]\nurl = \"redis://:hunter2@h\"\n";
    let resolved = read_with(Some(text), &[("SLUICEGATE_INSTANCE", "gw-7")]).expect("good");
    assert_eq!(resolved.settings.mqtt.password, Some(Secret("s3cret".to_owned())));
    let shown = to_toml(&resolved.effective);
    assert!(
        !shown.contains("s3cret")
            && !shown.contains("hunter2")
            && !format!("{:?}", resolved.settings).contains("s3cret")
    );
    assert!(shown.contains("password = \"***\"  # s.toml:3, file secret\n"), "{shown}");
    assert!(shown.contains("url = \"redis://:***@h\"  # s.toml:5\n"), "{shown}");
    assert!(shown.contains("instance = \"gw-7\"  # environment SLUICEGATE_INSTANCE\n"), "{shown}");
    assert!(shown.contains("receive_maximum = 2000  # default\n"), "{shown}");
}

#[test]
fn what_is_shown_loads_to_the_same() {
    let resolved = read_with(Some(BUILT_IN), &[]).expect("good");
    let again = read_with(Some(&to_toml(&resolved.effective)), &[]).expect("good");
    assert_eq!(again.settings, resolved.settings);
}

#[test]
fn what_no_key_can_be_wrong_about_alone_is_refused() {
    let with = |commands: &str, route: &str| {
        let text = format!(
            "[plugins.heartbeat]\npath = \"a\"\n[plugins.command-validation]\npath = \"b\"\n[commands]\n{commands}\n\
             [[routes]]\nname = \"r\"\ntopic = \"machine/{{serial_no}}/heartbeat\"\n{route}\n"
        );
        let errors = read_with(Some(&text), &[]).expect_err("a mistake");
        errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let handlers = "handlers = [\"heartbeat\"]";
    for (commands, route, place, expected) in [
        ("", format!("{handlers}\nqueue = \"mqtt_outgoing_commands\""), "s.toml:11:9", "taken for commands"),
        ("", format!("{handlers}\nqueue = \"mqtt_dead_letters\""), "s.toml:11:9", "only the newest"),
        ("", format!("{handlers}\nqueue = \"a{{b}}\"\ndedupe = \"1h\""), "s.toml:11:9", "no braces"),
        ("topic = \"machine/{target}/heartbeat\"", handlers.to_owned(), "s.toml:9:9", "come back as jobs"),
        ("", "handlers = [\"command-validation\"]".to_owned(), "s.toml:10:12", "one world"),
    ] {
        let said = with(commands, &route);
        assert!(said.contains(expected) && said.starts_with(&format!("{place}: routes[0].")), "{said}");
    }
    // The route is a built-in one, so what the file holds of the two tells the place.
    wrong(
        "[commands]\ntopic = \"machine/{target}/heartbeat\"\n",
        &[
            "s.toml:2:9: routes[0].topic: takes topics of commands.topic (`machine/{target}/heartbeat`): commands would come back as jobs",
        ],
    );
}

#[test]
fn the_brokers_questions_need_a_secret_that_is_one() {
    wrong(
        "[access]\nlisten = \"127.0.0.1:9092\"\n",
        &["s.toml:2:10: access.listen: needs `access.secret` beside it: whoever reaches it could try tokens"],
    );
    for secret in ["short", "with a space in it", "sécret-sécret-sécret"] {
        wrong(
            &format!("[access]\nlisten = \"127.0.0.1:9092\"\nsecret = \"{secret}\"\n"),
            &["s.toml:3:10: access.secret: must be 16 or more visible ASCII characters without a space"],
        );
    }
    let good = read_with(Some("[access]\nlisten = \"[::1]:0\"\nsecret = \"sixteen-letters!\"\n"), &[]).expect("good");
    assert!(!format!("{:?} {:?}", good.settings, good.effective).contains("sixteen"));
    assert_eq!(read_with(None, &[]).expect("good").settings.access.listen, None);
}

#[test]
fn a_secret_from_a_file_is_never_shown() {
    let text = "[plugins.heartbeat]\npath = \"a\"\n[plugins.heartbeat.settings]\napi_key = \"key ${file:secret}\"\n\
                [[routes]]\nname = \"r\"\ntopic = \"machine/{serial_no}/x\"\nhandlers = [\"heartbeat\"]\n";
    let shown = super::to_toml(&read_with(Some(text), &[]).expect("good").effective);
    assert!(shown.contains("api_key = \"***\""), "{shown}");
    let shown = super::to_toml(
        &read_with(Some(&text.replace("${file:secret}", "${KEY}")), &[("KEY", "hidden")]).expect("good").effective,
    );
    assert!(shown.contains("api_key = \"***\"  # s.toml:4, environment KEY\n"), "{shown}");
    let errors = read_with(Some("[mqtt]\nurl = \"tcp://me:hidden@host\"\n"), &[]).expect_err("a mistake");
    assert!(!errors.0.iter().any(|error| error.to_string().contains("hidden")), "{errors:?}");
}

#[test]
fn a_canary_names_machines() {
    let with = |canary: &str| {
        let text = format!(
            "[plugins.a]\npath = \"a\"\n{canary}\n[[routes]]\nname = \"r\"\ntopic = \"{{serial_no}}/x\"\nhandlers = [\"a\"]\n"
        );
        let read = read_with(Some(&text), &[]).map(|resolved| resolved.settings.plugins["a"].canary.clone());
        read.map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    assert_eq!(with(""), Ok(None));
    let canary = with("canary = { percent = 5, machines = [\"M-00*\"], for = \"5m\" }").expect("good").expect("one");
    assert_eq!((canary.machines.percent, canary.for_.as_secs()), (5.0, 300));
    assert!(canary.machines.take("M-001"));
    let canary = with("[plugins.a.canary]\npercent = 0.5").expect("good").expect("one");
    assert_eq!((canary.machines.percent, canary.machines.named.len()), (0.5, 0));
    for (wrong, part) in [
        (
            "canary = { for = \"5m\" }",
            "s.toml:1:10: plugins.a.canary: names no machines; set `percent`, `machines` or both",
        ),
        ("canary = { percent = 101 }", "expected a number from 0 to 100 such as 5.0, found `101`"),
        ("canary = { percent = \"5%\" }", "expected a number from 0 to 100 such as 5.0, found `5%`"),
        ("canary = { machines = [\"\"] }", "`` is no serial number, nor a pattern of one"),
        ("canary = { machines = [\"M-1\"], for = \"1ms\" }", "plugins.a.canary.for: expected a duration"),
        ("canary = 5", "plugins.a.canary: must be a section, `[plugins.a.canary]`"),
    ] {
        let error = with(wrong).expect_err(wrong);
        assert!(error.contains(part), "{wrong}: {error}");
    }
}

/// Settings with one plugin that handles `machine/{serial_no}/x` and may publish to these topics.
fn publishing(grants: &str) -> String {
    format!(
        "[plugins.a]\npath = \"a\"\n[plugins.a.grants]\npublish = [{grants}]\n[[routes]]\nname = \"r\"\n\
         topic = \"machine/{{serial_no}}/x\"\nhandlers = [\"a\"]\n"
    )
}

#[test]
fn a_plugin_is_not_granted_what_would_feed_it() {
    for (grants, mistake) in [
        ("\"machine/{serial_no}/x\"", "`machine/{serial_no}/x` overlaps `machine/{serial_no}/x` of the route `r`"),
        ("\"alerts\", \"machine/#\"", "`machine/#` overlaps"),
        ("\"+/M-1/+\"", "`+/M-1/+` overlaps"),
        ("\"#\"", "`#` overlaps"),
        ("\"$SYS/x\"", "`$SYS/x`: it begins with `$`, which is the broker's"),
        ("\"a/+b\"", "`a/+b`: level `+b`: a wildcard stands alone"),
        (
            "\"machine/{serial}/y\"",
            "`machine/{serial}/y`: `{serial}` stands for what the message's own topic has there",
        ),
    ] {
        let errors = read_with(Some(&publishing(grants)), &[]).expect_err("a mistake");
        let [error] = errors.0.as_slice() else { panic!("{errors:?}") };
        let error = error.to_string();
        assert!(error.starts_with("s.toml:4:11: plugins.a.grants.publish: "), "{error}");
        assert!(error.contains(mistake), "{error}");
    }
}

#[test]
fn a_plugin_may_be_granted_the_topic_of_commands_and_people_are_told() {
    let resolved = read_with(Some(&publishing("\"alerts/#\", \"machine/{serial_no}/y\"")), &[]).expect("good");
    let told = |resolved: &Resolved| {
        resolved.warnings.iter().filter(|warning| warning.contains("grants.publish")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(told(&resolved), Vec::<String>::new());
    let granted = &resolved.settings.plugins["a"].grants.publish;
    assert_eq!(granted.iter().map(|topic| topic.as_str()).collect::<Vec<_>>(), ["alerts/#", "machine/{serial_no}/y"]);
    let resolved = read_with(Some(&publishing("\"machine/{serial_no}/command\"")), &[]).expect("good");
    assert_eq!(
        told(&resolved),
        [
            "plugins.a.grants.publish: `machine/{serial_no}/command` holds commands.topic: the plugin may send commands to machines, and no validator sees them"
        ]
    );
}

/// What is made from the table is committed as it is made.
#[track_caller]
fn current(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, made).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, made, "run `BLESS=1 cargo test -p sluicegate-core settings` and commit {file}");
}

#[test]
fn the_schema_is_current() {
    current("config/sluicegate.schema.json", &schema::schema());
}

#[test]
fn the_page_of_settings_is_current() {
    current("docs/settings.md", &document::document());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]a-z={}\"$:.\\n0-9 -]{0,200}") {
        let _ = read_with(Some(&text), &[]);
    }

    #[test]
    fn no_value_makes_it_panic(value in any::<String>(), key in 0..table::KEYS.len()) {
        let key = table::KEYS[key];
        let section = key.section.replace('*', "a");
        let value = toml::Value::String(value).to_string();
        let header = if section == "routes" { "[[routes]]".to_owned() } else { format!("[{section}]") };
        let _ = read_with(Some(&format!("{header}\n{} = {value}\n", key.name)), &[]);
    }
}
