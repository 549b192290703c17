//! Machines under load: each publishes numbered heartbeats and transactions, remembers what was acknowledged to it, and
//! publishes again only what was not.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ledger::{Key, Ledger};
use super::seed::Chance;
use crate::eventually;
use crate::wire::{Packet, Wire};

/// How long a machine waits before it connects again.
const AGAIN: Duration = Duration::from_millis(30);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How much is published.
#[derive(Debug, Clone)]
pub struct Load {
    /// How many machines.
    pub machines: u64,
    /// How long each waits between two publishes, in milliseconds.
    pub every: Range<u64>,
    /// How many publishes each may have under way.
    pub window: usize,
    /// The bytes that a heartbeat carries beside its number.
    pub padding: Range<u64>,
}

impl Default for Load {
    fn default() -> Self {
        Self { machines: 6, every: 10..90, window: 16, padding: 0..200 }
    }
}

/// What machines are told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orders {
    Publish,
    Pause,
    Stop,
}

/// Machines that publish until they are stopped.
pub struct Fleet {
    ledger: Ledger,
    orders: watch::Sender<Orders>,
    machines: JoinSet<()>,
}

impl Fleet {
    /// Connects them to this port, and lets them publish.
    #[must_use]
    pub fn start(port: u16, load: &Load, chance: &mut Chance) -> Self {
        let (ledger, orders, mut machines) = (Ledger::default(), watch::Sender::new(Orders::Publish), JoinSet::new());
        for number in 1..=load.machines {
            let machine = Machine {
                name: format!("M-{number}"),
                port,
                load: load.clone(),
                ledger: ledger.clone(),
                chance: chance.branch(),
                orders: orders.subscribe(),
                made: [0; 2],
                identifier: 0,
                under_way: VecDeque::new(),
            };
            machines.spawn(machine.run());
        }
        Self { ledger, orders, machines }
    }

    /// What they remember.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Waits until so many publishes more are acknowledged.
    pub async fn more(&self, count: usize) {
        let least = self.ledger.count() + count;
        eventually(&format!("{count} publishes more are acknowledged"), async || {
            (self.ledger.count() >= least).then_some(())
        })
        .await;
    }

    /// Lets them publish nothing new for a while.
    pub fn pause(&self) {
        self.orders.send_replace(Orders::Pause);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.orders.send_replace(Orders::Publish);
    }

    /// Lets them publish nothing new, and waits until all that they have published is acknowledged.
    ///
    /// # Panics
    /// Where the broker does not acknowledge it.
    pub async fn stop(&mut self) {
        self.orders.send_replace(Orders::Stop);
        let ended = async {
            while let Some(ended) = self.machines.join_next().await {
                ended.expect("a machine ends well");
            }
        };
        timeout(Duration::from_secs(30), ended).await.expect("the broker acknowledges all within 30 seconds");
    }
}

const ROUTES: [&str; 2] = ["heartbeat", "transaction"];

/// A publish that is not acknowledged.
struct UnderWay {
    identifier: u16,
    key: Key,
    topic: String,
    payload: Vec<u8>,
}

struct Machine {
    name: String,
    port: u16,
    load: Load,
    ledger: Ledger,
    chance: Chance,
    orders: watch::Receiver<Orders>,
    /// How many there are of each route.
    made: [u64; 2],
    identifier: u16,
    under_way: VecDeque<UnderWay>,
}

impl Machine {
    async fn run(mut self) {
        loop {
            if let Ok(Ok(mut wire)) = timeout(CONNECT, Wire::connect(self.port, &self.name)).await
                && self.talk(&mut wire).await.is_ok()
            {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// Publishes until it is stopped and everything is acknowledged.
    async fn talk(&mut self, wire: &mut Wire) -> io::Result<()> {
        for publish in &self.under_way {
            self.ledger.sent(&publish.key);
            wire.publish(publish.identifier, &publish.topic, &publish.payload, true).await?;
        }
        let mut due = Instant::now();
        loop {
            let orders = *self.orders.borrow_and_update();
            if orders == Orders::Stop && self.under_way.is_empty() {
                return Ok(());
            }
            let publishes = orders == Orders::Publish && self.under_way.len() < self.load.window;
            tokio::select! {
                packet = wire.next() => {
                    if let Packet::Acknowledged(identifier) = packet? {
                        self.acknowledged(identifier);
                    }
                }
                () = sleep_until(due), if publishes => {
                    let publish = self.make();
                    self.ledger.sent(&publish.key);
                    self.under_way.push_back(publish);
                    let publish = &self.under_way[self.under_way.len() - 1];
                    wire.publish(publish.identifier, &publish.topic, &publish.payload, false).await?;
                    due = Instant::now() + self.chance.millis(self.load.every.clone());
                }
                _ = self.orders.changed() => {}
            }
        }
    }

    fn acknowledged(&mut self, identifier: u16) {
        if let Some(place) = self.under_way.iter().position(|publish| publish.identifier == identifier)
            && let Some(publish) = self.under_way.remove(place)
        {
            self.ledger.acknowledged(&publish.key);
        }
    }

    fn make(&mut self) -> UnderWay {
        let place = usize::from(self.chance.number(0..3) == 0);
        let (route, seq) = (ROUTES[place], self.made[place]);
        self.made[place] += 1;
        // 0 is no packet identifier [MQTT-2.3.1-1], and the window is far smaller than what is left.
        self.identifier = self.identifier % 60_000 + 1;
        let payload = if place == 0 {
            let padding = "x".repeat(usize::try_from(self.chance.number(self.load.padding.clone())).unwrap_or(0));
            format!(r#"{{"seq":{seq},"padding":"{padding}"}}"#)
        } else {
            format!(r#"{{"transaction_id":"T-{seq}","slot_no":1,"amount":"2.50","seq":{seq}}}"#)
        };
        UnderWay {
            identifier: self.identifier,
            key: Key { machine: self.name.clone(), route: route.to_owned(), seq },
            topic: format!("machine/{}/{route}", self.name),
            payload: payload.into_bytes(),
        }
    }
}
