//! Who receives commands, over every fault of the broker: it connects again with its session.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::ledger::{Comparison, Key};
use crate::eventually::within;
use crate::wire::{Packet, Wire};

/// How long it waits before it connects again.
const AGAIN: Duration = Duration::from_millis(20);
/// How long commands may take once the fault is over.
const ARRIVAL: Duration = Duration::from_secs(90);

/// A command that the back end pushed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pushed {
    /// Its machine.
    pub target: String,
    /// Its `message_id`.
    pub id: String,
    /// Of one machine and phase, commands are sent in their order.
    pub phase: u64,
}

/// All machines' ears in one.
pub struct Listener {
    heard: Arc<Mutex<Heard>>,
    /// Ends when this is dropped.
    _listening: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The `message_id` of each command that came.
    ids: Vec<String>,
    last: Option<Instant>,
    stall: Duration,
}

impl Listener {
    /// Connects to this port and subscribes to every command.
    ///
    /// # Panics
    /// Where the broker does not take it.
    pub async fn start(port: u16) -> Self {
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let (subscribed, mut is_subscribed) = watch::channel(false);
        let (hears, mut listening) = (heard.clone(), JoinSet::new());
        listening.spawn(async move {
            loop {
                if let Ok(mut wire) = Wire::connect(port, "listener").await {
                    drop(listen(&mut wire, &hears, &subscribed).await);
                }
                sleep(AGAIN).await;
            }
        });
        is_subscribed.wait_for(|subscribed| *subscribed).await.expect("it listens as long as it is kept");
        Self { heard, _listening: listening }
    }

    /// The ids of what came so far.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).ids.clone()
    }

    /// The longest time between two commands.
    #[must_use]
    pub fn stall(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).stall
    }

    /// Waits until so many different commands came.
    pub async fn hears(&self, count: usize) {
        within(ARRIVAL, &format!("{count} different commands came"), async || {
            (self.heard().into_iter().collect::<BTreeSet<_>>().len() >= count).then_some(())
        })
        .await;
    }

    /// Compares with what was pushed.
    #[must_use]
    pub fn compare(&self, pushed: &[Pushed]) -> Comparison {
        let places: HashMap<&str, usize> = pushed.iter().map(|command| command.id.as_str()).zip(0..).collect();
        let key = |place: usize| Key {
            machine: pushed[place].target.clone(),
            route: "command".to_owned(),
            seq: place as u64,
        };
        let mut seen = BTreeSet::new();
        let mut newest: HashMap<(&str, u64), usize> = HashMap::new();
        let mut comparison = Comparison { acknowledged: pushed.len(), ..Comparison::default() };
        for id in self.heard() {
            let Some(&place) = places.get(id.as_str()) else {
                comparison.strange.push(id);
                continue;
            };
            if !seen.insert(place) {
                comparison.again.push(key(place));
                continue;
            }
            let newest = newest.entry((&pushed[place].target, pushed[place].phase)).or_default();
            if place < *newest {
                comparison.out_of_order.push(key(place));
            }
            *newest = place.max(*newest);
        }
        comparison.arrived = seen.len();
        comparison.missing = (0..pushed.len()).filter(|place| !seen.contains(place)).map(key).collect();
        comparison
    }
}

async fn listen(wire: &mut Wire, heard: &Mutex<Heard>, subscribed: &watch::Sender<bool>) -> std::io::Result<()> {
    wire.subscribe("machine/+/command").await?;
    loop {
        match wire.next().await? {
            Packet::Publish(identifier, payload) => {
                let command: Value = serde_json::from_slice(&payload).unwrap_or_default();
                {
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.ids.push(command["message_id"].as_str().unwrap_or_default().to_owned());
                    let gap = heard.last.replace(Instant::now()).map_or(Duration::ZERO, |last| last.elapsed());
                    heard.stall = heard.stall.max(gap);
                }
                if let Some(identifier) = identifier {
                    wire.acknowledge(identifier).await?;
                }
            }
            Packet::Subscribed => {
                subscribed.send_replace(true);
            }
            _ => {}
        }
    }
}
