//! The broker's own count of what it dropped, where it shows one: a queue that overflows loses what the machine was told is safe.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{RetainForwardRule, SubscribeFilter, SubscribeReasonCode};
use sluicegate_core::access::DROP_COUNTERS;

use crate::telemetry::board::Board;

/// The alarm.
const DROPS: &str = "the broker drops messages";

/// What the counters said first, and last; one for each node.
pub(super) struct Drops {
    counts: HashMap<Bytes, (u64, u64)>,
    board: Arc<Board>,
}

impl Drops {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { counts: HashMap::new(), board }
    }

    /// What is to be subscribed to. At QoS 0, so that it is never to be acknowledged.
    pub(super) fn filters() -> [SubscribeFilter; 2] {
        DROP_COUNTERS.map(|path| SubscribeFilter {
            path: path.to_owned(),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            // The count so far is retained.
            retain_forward_rule: RetainForwardRule::OnEverySubscribe,
        })
    }

    /// Whether a publish is a count, and no machine's message.
    pub(super) fn is_count(topic: &[u8]) -> bool {
        let [mosquitto, emqx] = DROP_COUNTERS;
        let (before, after) = emqx.split_once('+').unwrap_or((emqx, ""));
        topic == mosquitto.as_bytes() || (topic.starts_with(before.as_bytes()) && topic.ends_with(after.as_bytes()))
    }

    /// A count came, of what was dropped of all the broker's clients.
    pub(super) fn on_count(&mut self, name: &str, counter: Bytes, payload: &[u8]) {
        let Some(count) = std::str::from_utf8(payload).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
            return;
        };
        let (first, last) = self.counts.entry(counter).or_insert((count, count));
        // A broker that was restarted counts anew.
        *first = (*first).min(count);
        *last = count;
        crate::telemetry::metrics::broker_dropped(self.counts.values().map(|(_, last)| last).sum());
        let dropped: u64 = self.counts.values().map(|(first, last)| last - first).sum();
        if dropped == 0 {
            return;
        }
        let text = format!(
            "{name} dropped {dropped} messages since this gateway looked first, of all its clients: raise its queue's bound"
        );
        if self.board.notice(DROPS, Some(&text)) {
            tracing::error!(dropped, "{name} drops messages: raise its queue's bound");
        }
    }

    pub(super) fn on_granted(name: &str, codes: &[SubscribeReasonCode]) {
        if !codes.iter().any(|code| matches!(code, SubscribeReasonCode::Success(_))) {
            tracing::debug!("{name} does not show its drop counter to this client");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_counter_is_told_from_what_a_route_may_take() {
        assert!(Drops::is_count(b"$SYS/broker/publish/messages/dropped"));
        assert!(Drops::is_count(b"$SYS/brokers/emqx@emqx.local/metrics/delivery/dropped/queue_full"));
        assert!(!Drops::is_count(b"$SYS/broker/uptime") && !Drops::is_count(b"machine/M-1/heartbeat"));
    }
}
