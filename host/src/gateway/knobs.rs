//! What of the running parts changes with the settings, beside the snapshot that messages are handled with.

use std::collections::HashMap;
use std::sync::Arc;

use sluicegate_core::settings::{Mqtt, Settings};
use tokio::sync::watch;

use crate::live::Live;
use crate::mqtt::subscribe::{Confirmed, Subscription, Wanted};
use crate::redis::cap::Most;
use crate::redis::claim::Remembered;
use crate::spool::Spool;
use crate::uplink::room::Room;
use crate::uplink::sink::Limits;

/// They.
pub(super) struct Knobs {
    /// What is wanted of the broker.
    pub wanted: watch::Sender<Wanted>,
    /// What it has answered to.
    pub confirmed: watch::Sender<Confirmed>,
    /// The lists whose length is bounded.
    pub limits: watch::Sender<Limits>,
    /// `queues.dead_letters_max`
    pub letters: Most,
    /// `commands.dedupe`
    pub remembered: Remembered,
    /// `mqtt.in_flight_bytes`
    pub room: Arc<Room>,
    /// `spool.max_size`
    pub spool: Spool,
}

impl Knobs {
    pub(super) fn new(live: &Live, spool: Spool) -> Self {
        let settings = &live.settings;
        let first = Wanted {
            number: 1,
            mqtt: Arc::new(settings.mqtt.clone()),
            subscriptions: settings.routes.iter().map(Subscription::of).collect(),
        };
        Self {
            wanted: watch::channel(first).0,
            confirmed: watch::channel(Confirmed::default()).0,
            limits: watch::channel(limits(live)).0,
            letters: Most::new(settings.queues.dead_letters_max),
            remembered: Remembered::new(settings.commands.dedupe),
            room: Room::new(in_flight_bytes(settings)),
            spool,
        }
    }

    /// As these settings say, from now on. Gives the number of what is then wanted of the broker, where that is something else.
    pub(super) fn turn(&self, live: &Live) -> Option<u64> {
        let settings = &live.settings;
        self.limits.send_replace(limits(live));
        self.letters.set(settings.queues.dead_letters_max);
        self.remembered.set(settings.commands.dedupe);
        self.room.set(in_flight_bytes(settings));
        self.spool.bound(settings.spool.max_size);
        let subscriptions: Arc<[Subscription]> = settings.routes.iter().map(Subscription::of).collect();
        let same = |mqtt: &Mqtt| *mqtt == Mqtt { in_flight_bytes: mqtt.in_flight_bytes, ..settings.mqtt.clone() };
        let mut number = None;
        self.wanted.send_if_modified(|wanted| {
            let (mqtt_stays, subscriptions_stay) = (same(&wanted.mqtt), wanted.subscriptions == subscriptions);
            if mqtt_stays && subscriptions_stay {
                return false;
            }
            wanted.number += 1;
            wanted.subscriptions = subscriptions.clone();
            if !mqtt_stays {
                wanted.mqtt = Arc::new(settings.mqtt.clone());
            }
            number = Some(wanted.number);
            true
        });
        number
    }
}

fn in_flight_bytes(settings: &Settings) -> usize {
    usize::try_from(settings.mqtt.in_flight_bytes.0).unwrap_or(usize::MAX)
}

/// Those of routes that leave, too: what is left of them goes there.
fn limits(live: &Live) -> Limits {
    let Some(most) = live.settings.queues.incoming_max else { return HashMap::new() };
    (0..live.chains.len()).map(|route| (live.queue(route), most)).collect()
}
