//! The two URLs of the settings.

use super::resolved::{MqttUrl, RedisUrl, Secret};

/// Redis's own port.
pub(super) const REDIS: u16 = 6379;

/// Reads `mqtt.url`.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn mqtt(text: &str) -> Result<MqttUrl, String> {
    if text == "embedded" {
        return Ok(MqttUrl::Embedded);
    }
    let (tls, rest) = match text.split_once("://") {
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        _ => return Err(format!("expected {}, found `{}`", super::table::Type::MqttUrl, masked(text))),
    };
    if rest.contains('@') {
        return Err("holds a user name; write it in mqtt.username and mqtt.password".to_owned());
    }
    let (host, port) = address(rest.strip_suffix('/').unwrap_or(rest), if tls { 8883 } else { 1883 })?;
    Ok(MqttUrl::At { tls, host, port })
}

/// Reads `redis.url`. What it says of a mistake holds no password.
///
/// # Errors
/// Says what is wrong with it.
pub fn redis(text: &str) -> Result<RedisUrl, String> {
    if text == "embedded" {
        return Ok(RedisUrl::Embedded);
    }
    let (tls, rest) = match text.split_once("://") {
        Some(("redis", rest)) => (false, rest),
        Some(("rediss", rest)) => (true, rest),
        _ => return Err(format!("expected {}", super::table::Type::RedisUrl)),
    };
    let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    let (place, db) = rest.split_once('/').unwrap_or((rest, ""));
    let db = if db.is_empty() { Some(0) } else { db.parse().ok().filter(|db| *db >= 0) };
    let db = db.ok_or("the database behind the last `/` must be a number")?;
    let (host, port) = address(place, REDIS)?;
    let (mut username, mut password) = (None, None);
    if let Some(user) = user {
        let (name, secret) = user.split_once(':').unwrap_or((user, ""));
        let decode = |text: &str| decode(text).ok_or("user name or password holds a wrong `%` sequence");
        username = Some(decode(name)?).filter(|name| !name.is_empty());
        password = Some(decode(secret)?).filter(|secret| !secret.is_empty()).map(Secret);
    }
    Ok(RedisUrl::At { tls, host, port, db, username, password })
}

/// A URL without its password.
pub(super) fn masked(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(start), Some(end)) if end > start => match text[start + 3..end].find(':') {
            Some(colon) => format!("{}:***{}", &text[..start + 3 + colon], &text[end..]),
            None => text.to_owned(),
        },
        // Misspelt: what stands before the host may be a password.
        (None, Some(end)) => format!("***{}", &text[end..]),
        _ => text.to_owned(),
    }
}

const BRACKETS: &str = "an IPv6 address stands in brackets, `[::1]:1883`";

/// Reads a host with a port, or without one.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn address(text: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(BRACKETS)?;
            match after.strip_prefix(':') {
                None if !after.is_empty() => {
                    return Err("behind an address in brackets stands `:port` or nothing".to_owned());
                }
                port => (host, port),
            }
        }
        None if text.matches(':').count() > 1 => return Err(BRACKETS.to_owned()),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#".contains(c)) {
        return Err("the host is missing or holds a character that no host has".to_owned());
    }
    let port = match port {
        None => default,
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => port,
            // What stands there is not shown: where the `@` is forgotten, it is a password.
            _ => return Err("the port must be a number from 1 to 65535".to_owned()),
        },
    };
    Ok((host.to_owned(), port))
}

/// Percent-decoding (RFC 3986, 2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let (hex, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_brokers() {
        let at = |tls, host: &str, port| Ok(MqttUrl::At { tls, host: host.to_owned(), port });
        assert_eq!(mqtt("mqtt://emqx"), at(false, "emqx", 1883));
        assert_eq!(mqtt("mqtts://emqx:8884/"), at(true, "emqx", 8884));
        assert_eq!(mqtt("mqtt://[::1]:1"), at(false, "::1", 1));
        assert_eq!(mqtt("embedded"), Ok(MqttUrl::Embedded));
        for bad in [
            "tcp://x",
            "emqx:1883",
            "mqtt://",
            "mqtt://x:0",
            "mqtt://x:70000",
            "mqtt://a b",
            "mqtt://u:p@x",
            "mqtt://[::1]1884",
        ] {
            assert!(mqtt(bad).is_err(), "{bad}");
        }
        for bad in ["mqtt://::1:1883", "mqtt://[::1"] {
            assert!(mqtt(bad).expect_err("refused").contains("stands in brackets"), "{bad}");
        }
    }

    #[test]
    fn reads_redis_and_masks_its_password() {
        let url = redis("rediss://app:p%40ss@cache:7000/3").expect("good");
        let RedisUrl::At { tls, host, port, db, username, password } = url else { panic!("an address") };
        assert_eq!((tls, host.as_str(), port, db), (true, "cache", 7000, 3));
        assert_eq!((username.as_deref(), password), (Some("app"), Some(Secret("p@ss".to_owned()))));
        assert_eq!(masked("redis://:secret@h:1/2"), "redis://:***@h:1/2");
        assert_eq!(masked("redis://h:1/2"), "redis://h:1/2");
        assert_eq!(masked("mqtt//user:secret@h:1"), "***@h:1");
        assert!(redis("redis://:top@h:x").expect_err("refused").contains("port"));
        assert!(!redis("redis://:top@h:x").expect_err("refused").contains("top"));
        assert!(!redis("redis://app:top").expect_err("refused").contains("top"));
        for bad in ["http://x", "redis://h/x", "redis://h/-1", "redis://:%zz@h"] {
            assert!(redis(bad).is_err(), "{bad}");
        }
    }
}
