//! `[mqtt]` and `[redis]`: where the servers are, and how they are spoken to.

use super::Resolver;
use crate::settings::resolved::{Mqtt, MqttUrl, Redis, RedisUrl, Secret, Tls};
use crate::settings::table::Type;
use crate::settings::urls;
use crate::settings::written::Section;

impl Resolver<'_> {
    pub(super) fn mqtt(&mut self, entries: &Section) -> Option<Mqtt> {
        let url = self.find(entries, "mqtt", "url", "mqtt");
        let url = url.and_then(|found| match urls::mqtt(found.texts.first()?) {
            Ok(url) => Some(url),
            Err(reason) => {
                self.misread(&found, reason);
                None
            }
        });
        // The downlink's adds nine characters; brokers may refuse more than 65,535 bytes [MQTT-3.1.3-5], and people more
        // than they can read.
        let client_id = self.word(entries, "mqtt", "client_id", "mqtt", 128);
        let name = self.word(entries, "mqtt", "name", "mqtt", 64);
        let username = self.text(entries, "mqtt", "username", "mqtt");
        let password = self.text(entries, "mqtt", "password", "mqtt");
        if password.is_some() && username.is_none() {
            self.wrong(None, "mqtt.password", "needs `mqtt.username` beside it");
        }
        let encrypted = url.as_ref().is_none_or(|url| matches!(url, MqttUrl::At { tls: true, .. }));
        let tls = self.tls(entries, "mqtt", encrypted, "mqtts");
        let session_expiry = self.duration(entries, "mqtt", "session_expiry", "mqtt");
        let receive_maximum = self.integer(entries, "mqtt", "receive_maximum", "mqtt");
        let max_packet_size = self.size(entries, "mqtt", "max_packet_size", "mqtt");
        let in_flight_bytes = self.size(entries, "mqtt", "in_flight_bytes", "mqtt");
        Some(Mqtt {
            url: url?,
            client_id: client_id?,
            name: name?,
            username,
            password: password.map(Secret),
            tls,
            session_expiry: session_expiry?,
            receive_maximum: u16::try_from(receive_maximum?).ok()?,
            max_packet_size: max_packet_size?,
            in_flight_bytes: in_flight_bytes?,
        })
    }

    pub(super) fn redis(&mut self, entries: &Section) -> Option<Redis> {
        let url = self.find(entries, "redis", "url", "redis");
        let url = url.and_then(|found| match urls::redis(found.texts.first()?) {
            Ok(url) => Some(url),
            Err(reason) => {
                self.misread(&found, reason);
                None
            }
        });
        let encrypted = url.as_ref().is_none_or(|url| matches!(url, RedisUrl::At { tls: true, .. }));
        let tls = self.tls(entries, "redis", encrypted, "rediss");
        let cluster = self.find(entries, "redis", "cluster", "redis");
        let cluster = cluster.and_then(|found| self.read(&found, Type::Bool, |text| text.parse().ok()));
        if cluster == Some(true) {
            let problem = match &url {
                Some(RedisUrl::Embedded) => {
                    "`embedded` is no cluster; name a node of one in redis.url, or take this out"
                }
                Some(RedisUrl::At { db, .. }) if *db != 0 => {
                    "a cluster has database 0 alone; take the number off redis.url"
                }
                _ => "",
            };
            if !problem.is_empty() {
                self.wrong(None, "redis.cluster", problem);
            }
        }
        let mut cluster_nodes = Vec::new();
        if let Some(found) = self.find(entries, "redis", "cluster_nodes", "redis") {
            if cluster == Some(false) && !found.texts.is_empty() {
                self.wrong(None, "redis.cluster_nodes", "needs `redis.cluster = true` beside it");
            }
            for node in &found.texts {
                match urls::address(node, urls::REDIS) {
                    Ok(address) => cluster_nodes.push(address),
                    Err(reason) => self.misread(&found, format!("`{node}`: {reason}")),
                }
            }
        }
        let key_prefix = self.text(entries, "redis", "key_prefix", "redis");
        if let Some(prefix) = &key_prefix
            && prefix.contains(['{', '}'])
        {
            self.wrong(None, "redis.key_prefix", "must hold no braces: they are what a Redis cluster places keys by");
        }
        let wait_replicas = self.integer(entries, "redis", "wait_replicas", "redis");
        Some(Redis {
            url: url?,
            tls,
            cluster: cluster?,
            cluster_nodes,
            key_prefix: key_prefix?,
            wait_replicas: u32::try_from(wait_replicas?).ok()?,
        })
    }
    /// The files that TLS needs, of either server.
    fn tls(&mut self, entries: &Section, section: &'static str, encrypted: bool, scheme: &str) -> Tls {
        let mut file = |name| self.text(entries, section, name, section).map(|path| self.outside.base.join(path));
        let tls = Tls {
            ca_file: file("ca_file"),
            client_cert_file: file("client_cert_file"),
            client_key_file: file("client_key_file"),
        };
        for (key, file, other, beside) in [
            ("client_cert_file", &tls.client_cert_file, "client_key_file", &tls.client_key_file),
            ("client_key_file", &tls.client_key_file, "client_cert_file", &tls.client_cert_file),
        ] {
            if file.is_some() && beside.is_none() {
                self.wrong(None, &format!("{section}.{key}"), format!("needs `{section}.{other}` beside it"));
            }
        }
        // The MQTT library's own limit.
        if section == "mqtt" && tls.client_cert_file.is_some() && tls.ca_file.is_none() {
            self.wrong(None, "mqtt.client_cert_file", "needs `mqtt.ca_file` beside it");
        }
        let keys = [
            ("ca_file", &tls.ca_file),
            ("client_cert_file", &tls.client_cert_file),
            ("client_key_file", &tls.client_key_file),
        ];
        let unused = keys.into_iter().find(|(_, file)| file.is_some());
        if let Some((key, _)) = unused.filter(|_| !encrypted) {
            self.warnings.push(format!(
                "{section}.{key}: has no effect: {section}.url is not `{scheme}://…`, so everything goes unencrypted, a password too"
            ));
        }
        tls
    }
}
