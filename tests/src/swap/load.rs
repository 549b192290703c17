//! Machines that publish as fast as what arrives lets them: of what was published, only so much may be on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::wire::{Packet, Wire};

/// How many machines publish.
pub const MACHINES: usize = 500;
/// Connections, with as many machines each.
const CONNECTIONS: usize = 20;
/// Publishes that one connection sends at once.
const BURST: usize = 32;
/// Messages that may be on their way from machine to back end.
const BACKLOG: usize = 2_000;

/// What both ends of the way know.
#[derive(Debug)]
pub struct Way {
    /// Begins with the run; `sent_us` counts from here.
    pub began: Instant,
    /// A place for each message on its way.
    pub places: Semaphore,
    /// Published so far.
    pub published: AtomicU64,
    stop: AtomicBool,
}

/// The machines, publishing.
pub struct Machines {
    way: Arc<Way>,
    publishing: JoinSet<std::io::Result<()>>,
}

impl Machines {
    /// Connects them, and lets them publish.
    ///
    /// # Panics
    /// Where the broker does not take them.
    pub async fn start(port: u16) -> Self {
        let way = Arc::new(Way {
            began: Instant::now(),
            places: Semaphore::new(BACKLOG),
            published: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut publishing = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let wire = Wire::connect(port, &format!("load-{connection}")).await.expect("the broker takes a connection");
            publishing.spawn(publish(wire, connection, way.clone()));
        }
        Self { way, publishing }
    }

    /// What both ends know.
    #[must_use]
    pub fn way(&self) -> &Arc<Way> {
        &self.way
    }

    /// Ends them; gives how many messages they published, each acknowledged.
    ///
    /// # Panics
    /// Where the broker left one of them.
    pub async fn stop(mut self) -> u64 {
        self.way.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.publishing.join_next().await {
            ended.expect("it ends well").expect("the broker stays");
        }
        self.way.published.load(Ordering::Relaxed)
    }
}

/// The topic of a machine's messages.
#[must_use]
pub fn serial_no(machine: usize) -> String {
    format!("M-{machine:03}")
}

async fn publish(mut wire: Wire, connection: usize, way: Arc<Way>) -> std::io::Result<()> {
    let machines: Vec<usize> = (connection..MACHINES).step_by(CONNECTIONS).collect();
    let mut seqs = vec![0_u64; machines.len()];
    let mut turn = 0;
    while !way.stop.load(Ordering::Relaxed) {
        // Invariant: it is never closed.
        way.places.acquire().await.map_err(std::io::Error::other)?.forget();
        let mut burst = 1;
        while burst < BURST && way.places.try_acquire().map(|place| place.forget()).is_ok() {
            burst += 1;
        }
        for identifier in 1..=burst {
            let place = turn % machines.len();
            turn += 1;
            let (seq, sent) = (seqs[place], way.began.elapsed().as_micros());
            seqs[place] += 1;
            let topic = format!("machine/{}/do", serial_no(machines[place]));
            let payload = format!(r#"{{"first":"0000","second":"0000","seq":{seq},"sent_us":{sent}}}"#);
            wire.queue(identifier as u16, &topic, payload.as_bytes(), false);
        }
        way.published.fetch_add(burst as u64, Ordering::Relaxed);
        wire.flush().await?;
        let mut acknowledged = 0;
        while acknowledged < burst {
            acknowledged += usize::from(matches!(wire.next().await?, Packet::Acknowledged(_)));
        }
    }
    Ok(())
}
