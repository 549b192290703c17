//! Topic → route, machine → lane. It never waits for an outcome.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use sluicegate_core::message::{Field, SerialNo};
use sluicegate_core::route::SERIAL_NO;
use sluicegate_core::ticket::Outcome;
use tokio::sync::{Semaphore, mpsc};

use super::ack::{Acks, Open};
use super::lane::{Refused, What, Work};
use super::room::{Fits, Room};
use crate::live::Current;
use crate::mqtt::consume::{self, Incoming, Taken};
use crate::telemetry::{clock, metrics};

/// Messages of QoS 0 in memory at once: the broker may send them without bound, and they may be dropped.
const QOS_0: usize = 1_024;

/// Routes publishes to lanes.
pub struct Intake {
    current: Current,
    lanes: Lanes,
    acks: Acks,
    room: Arc<Room>,
    qos_0: Arc<Semaphore>,
}

/// Where a machine's messages go.
#[derive(Clone)]
pub struct Lanes(pub Vec<mpsc::Sender<Work>>);

impl Lanes {
    /// The place of a machine's lane: always the same.
    #[must_use]
    pub fn place(count: usize, serial_no: &str) -> usize {
        let mut hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().build_hasher();
        hasher.write(serial_no.as_bytes());
        usize::try_from(hasher.finish() % count.max(1) as u64).unwrap_or(0)
    }
}

impl Intake {
    /// Nothing was taken yet.
    #[must_use]
    pub fn new(current: Current, lanes: Lanes, acks: Acks, room: Arc<Room>) -> Self {
        Self { current, lanes, acks, room, qos_0: Arc::new(Semaphore::new(QOS_0)) }
    }
}

impl consume::Intake for Intake {
    async fn take(&mut self, incoming: Incoming) -> Taken {
        let live = self.current.load_full();
        let found = live.routes.find(&incoming.topic);
        let place = self.acks.tally.place(found.as_ref().map(|(route, _)| live.routes.get(*route).route.name.as_str()));
        let open =
            Open::publish(incoming.ticket, place, self.acks.tally.clone(), self.room.share(incoming.payload.len()));
        let permit = if open.is_fleeting() {
            match self.qos_0.clone().try_acquire_owned() {
                Ok(permit) if self.room.fits() == Fits::Memory => Some(permit),
                _ => {
                    self.acks.settle([(open, Outcome::Dropped)]).await;
                    return Taken::Yes;
                }
            }
        } else {
            None
        };
        let fits = self.room.fits();
        if fits == Fits::Nowhere {
            open.give_back();
            return Taken::NoRoom;
        }
        let (what, lane) = what(found, &incoming.topic, self.lanes.0.len());
        let work = Work {
            number: 0,
            open,
            live,
            what,
            topic: incoming.topic,
            payload: incoming.payload,
            properties: incoming.properties.into_iter().map(|(name, value)| Field { name, value }).collect(),
            received_at: clock::now(),
            no_room: fits == Fits::Disk,
            place: permit,
        };
        // A lane takes from its channel at once; where it is gone, the gateway is on its way out and says why.
        let _ = self.lanes.0[lane].send(work).await;
        Taken::Yes
    }

    async fn room(&self) {
        self.room.half_free().await;
    }
}

/// What is to be done with a message of this topic, and in which lane: what was found is the route and the topic's named levels.
pub fn what(found: Option<(usize, Vec<Field>)>, topic: &str, lanes: usize) -> (What, usize) {
    let Some((route, captures)) = found else {
        metrics::unrouted();
        let refused = Refused { reason: "no route takes this topic".to_owned(), route: None, serial_no: None };
        return (What::Refuse(refused), Lanes::place(lanes, topic));
    };
    let named = captures.iter().find(|field| field.name == SERIAL_NO).map_or("", |field| field.value.as_str());
    let lane = Lanes::place(lanes, named);
    match SerialNo::new(named) {
        Ok(serial_no) => (What::Handle { route, serial_no, captures }, lane),
        Err(error) => {
            let reason = error.to_string();
            (What::Refuse(Refused { reason, route: Some(route), serial_no: Some(named.to_owned()) }), lane)
        }
    }
}
