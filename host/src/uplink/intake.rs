//! Topic → route, machine → lane. What no lane could handle becomes a dead letter here.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use sluicegate_core::message::{Field, SerialNo};
use sluicegate_core::route::SERIAL_NO;
use sluicegate_core::ticket::Outcome;
use tokio::sync::mpsc;

use super::ack::{Acks, Open};
use super::lane::Work;
use super::letter::Letter;
use super::sink::Item;
use crate::live::Current;
use crate::mqtt::consume::{self, Incoming};
use crate::telemetry::clock;
use crate::telemetry::metrics;

/// Routes publishes to lanes.
pub struct Intake {
    current: Current,
    lanes: Vec<mpsc::Sender<Work>>,
    sink: mpsc::Sender<Item>,
    acks: Acks,
    dead_letters: Arc<str>,
    hasher: std::hash::BuildHasherDefault<std::hash::DefaultHasher>,
    /// Room that is kept for messages that must not be dropped.
    reserve: usize,
    count: u64,
}

impl Intake {
    /// `reserve`: how many messages of QoS 1 and 2 can be under way at once.
    #[must_use]
    pub fn new(
        current: Current,
        lanes: Vec<mpsc::Sender<Work>>,
        sink: mpsc::Sender<Item>,
        acks: Acks,
        dead_letters: Arc<str>,
        reserve: usize,
    ) -> Self {
        Self { current, lanes, sink, acks, dead_letters, hasher: Default::default(), reserve, count: 0 }
    }

    fn lane(&self, serial_no: &str) -> &mpsc::Sender<Work> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(serial_no.as_bytes());
        let count = self.lanes.len() as u64;
        &self.lanes[usize::try_from(hasher.finish() % count).unwrap_or(0)]
    }

    async fn refuse(&self, incoming: Incoming, route: Option<&str>, serial_no: Option<&str>, reason: String) {
        let letter = Letter {
            reason: &reason,
            route,
            topic: &incoming.topic,
            serial_no,
            failed: None,
            received_at: &clock::rfc3339(clock::now(), self.current.load().settings.gateway.time_zone),
            payload: &incoming.payload,
        };
        tracing::debug!(topic = ?incoming.topic, %reason, "a message goes to the dead letters");
        let item = Item {
            open: Open::new(incoming.ticket),
            pushes: vec![letter.push(&self.dead_letters)],
            outcome: Outcome::Dead,
            metrics: None,
        };
        // The sink ends after everyone who sends to it; a failed send is a delivery without a verdict, and says so itself.
        let _ = self.sink.send(item).await;
    }
}

impl consume::Intake for Intake {
    async fn take(&mut self, incoming: Incoming) {
        self.count += 1;
        let live = self.current.load_full();
        let Some((route, captures)) = live.routes.find(&incoming.topic) else {
            metrics::unrouted();
            return self.refuse(incoming, None, None, "no route takes this topic".to_owned()).await;
        };
        live.metrics[route].received();
        let named = captures.iter().find(|field| field.name == SERIAL_NO).map_or("", |field| field.value.as_str());
        let serial_no = match SerialNo::new(named) {
            Ok(serial_no) => serial_no,
            Err(error) => {
                let (route, named) = (live.routes.get(route).route.name.clone(), named.to_owned());
                return self.refuse(incoming, Some(&route), Some(&named), error.to_string()).await;
            }
        };
        let lane = self.lane(serial_no.as_str());
        if incoming.qos == 0 && lane.capacity() < self.reserve {
            // QoS 0 is delivered at most once: it never takes the room of what must not be lost.
            self.acks.settle(Open::new(incoming.ticket).settle(Outcome::Dropped, Some(&live.metrics[route])));
            return;
        }
        let work = Work {
            id: self.count,
            epoch: incoming.ticket.epoch,
            open: Open::new(incoming.ticket),
            live,
            route,
            serial_no,
            captures,
            topic: incoming.topic,
            payload: incoming.payload,
            properties: incoming.properties.into_iter().map(|(name, value)| Field { name, value }).collect(),
            received_at: clock::now(),
        };
        let _ = lane.send(work).await;
    }
}
