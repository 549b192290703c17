//! Machines under load: each has a connection of its own, sends a heartbeat a second and now and then a transaction or an error, and
//! remembers what the broker acknowledged.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::wire::{Packet, Wire};

/// From one heartbeat to the next.
const BEAT: Duration = Duration::from_secs(1);
/// With one heartbeat in so many comes a transaction, or an error.
const TRANSACTION: u64 = 5;
const ERROR: u64 = 10;
/// How long the broker may take to acknowledge, or to take a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before it connects again.
const AGAIN: Duration = Duration::from_millis(500);
/// What each error has as its code.
pub(super) const CODE: &str = "VERIFY";

/// What one machine published.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) serial_no: String,
    /// The newest heartbeat that was acknowledged, by its number, and the newest that was sent.
    pub(super) heartbeat: (u64, u64),
    /// The acknowledged ones, by their names.
    pub(super) transactions: BTreeSet<String>,
    pub(super) errors: BTreeSet<String>,
    /// Sent, and never acknowledged: they may be there or not.
    pub(super) unsure: u64,
    /// How often it lost its connection.
    pub(super) lost_connections: u64,
}

/// The machines.
pub(super) struct Load {
    machines: JoinSet<Said>,
    acknowledged: Arc<AtomicU64>,
}

pub(super) fn serial_no(machine: u32) -> String {
    format!("VERIFY-{machine:04}")
}

impl Load {
    /// Lets so many machines publish for so long.
    pub(super) fn start(port: u16, machines: u32, length: Duration) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut running = JoinSet::new();
        let began = Instant::now();
        for number in 1..=machines {
            // Not all in the same moment.
            let first = began + BEAT * number / machines;
            let machine = Machine {
                port,
                first,
                last: began + length,
                acknowledged: acknowledged.clone(),
                number: 0,
                offset: u64::from(number),
                said: Said { serial_no: serial_no(number), ..Said::default() },
            };
            running.spawn(machine.run());
        }
        Self { machines: running, acknowledged }
    }

    /// How many messages the broker has acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether no machine publishes any more.
    pub(super) fn is_over(&mut self, said: &mut Vec<Said>) -> bool {
        while let Some(ended) = self.machines.try_join_next() {
            // A machine that panicked has said nothing, and is missed in the number of machines.
            said.extend(ended.ok());
        }
        self.machines.is_empty()
    }
}

#[derive(Debug, Clone)]
enum Kind {
    Heartbeat(u64),
    Transaction(String),
    Error(String),
}

struct Machine {
    port: u16,
    first: Instant,
    last: Instant,
    acknowledged: Arc<AtomicU64>,
    /// Of the last beat.
    number: u64,
    /// Not all sell in the same second.
    offset: u64,
    said: Said,
}

impl Machine {
    async fn run(mut self) -> Said {
        let mut beats = interval_at(self.first, BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < self.last {
            let connected = timeout(PATIENCE, Wire::connect(self.port, &self.said.serial_no)).await;
            if let Ok(Ok(mut wire)) = connected {
                while Instant::now() < self.last {
                    beats.tick().await;
                    if self.beat(&mut wire).await.is_err() {
                        break;
                    }
                }
            }
            if Instant::now() < self.last {
                self.said.lost_connections += 1;
                sleep(AGAIN).await;
            }
        }
        self.said
    }

    /// What belongs to one beat, until it is acknowledged.
    async fn beat(&mut self, wire: &mut Wire) -> io::Result<()> {
        self.number += 1;
        let number = self.number;
        let mut messages = vec![Kind::Heartbeat(number)];
        if (number + self.offset).is_multiple_of(TRANSACTION) {
            messages.push(Kind::Transaction(format!("T-{number}")));
        }
        if (number + self.offset).is_multiple_of(ERROR) {
            messages.push(Kind::Error(format!("E-{number}")));
        }
        self.said.heartbeat.1 = number;
        let mut open = messages.len();
        let sent = timeout(PATIENCE, self.send(wire, &messages, &mut open)).await;
        self.said.unsure += open as u64;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn send(&mut self, wire: &mut Wire, messages: &[Kind], open: &mut usize) -> io::Result<()> {
        for (identifier, message) in (1..).zip(messages) {
            let (topic, payload) = match message {
                Kind::Heartbeat(number) => ("heartbeat", format!(r#"{{"current_page":{number},"temperature":4.5}}"#)),
                Kind::Transaction(name) => {
                    ("transaction", format!(r#"{{"transaction_id":"{name}","slot_no":1,"amount":"2.50"}}"#))
                }
                Kind::Error(name) => {
                    ("error", format!(r#"{{"error_code":"{CODE}","message":"{name}","level":"info"}}"#))
                }
            };
            let topic = format!("machine/{}/{topic}", self.said.serial_no);
            wire.queue(identifier, &topic, payload.as_bytes(), false);
        }
        wire.flush().await?;
        let mut left: Vec<Option<&Kind>> = messages.iter().map(Some).collect();
        while *open > 0 {
            let Packet::Acknowledged(identifier) = wire.next().await? else { continue };
            let place = usize::from(identifier).checked_sub(1);
            let Some(message) = place.and_then(|place| left.get_mut(place)).and_then(Option::take) else { continue };
            *open -= 1;
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            match message {
                Kind::Heartbeat(number) => self.said.heartbeat.0 = *number,
                Kind::Transaction(name) => drop(self.said.transactions.insert(name.clone())),
                Kind::Error(name) => drop(self.said.errors.insert(name.clone())),
            }
        }
        Ok(())
    }
}
