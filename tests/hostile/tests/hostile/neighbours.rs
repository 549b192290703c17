//! Traffic that behaves, beside what does not: machines that publish, and what reaches the back end of it.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate_tests::{Broker, Machine, RedisServer, eventually};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How many machines there are, and how often each publishes.
const MACHINES: usize = 4;
const EVERY: Duration = Duration::from_millis(40);

/// One message at the back end.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    machine: usize,
    number: u64,
    sent: Duration,
    took: Duration,
}

/// The machines, at work.
pub(crate) struct Neighbours {
    began: Instant,
    stop: watch::Sender<bool>,
    publishing: JoinSet<u64>,
    collecting: JoinSet<()>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

/// All that reached the back end.
pub(crate) struct Traffic(Vec<Arrived>);

/// What it saw of one stretch of time.
pub(crate) struct Latency {
    pub(crate) messages: usize,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    pub(crate) longest: Duration,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, median, p99, longest } = self;
        write!(f, "{messages} messages, median {median:.1?}, p99 {p99:.1?}, longest {longest:.1?}")
    }
}

impl Neighbours {
    pub(crate) async fn begin(broker: &Broker, redis: &RedisServer) -> Self {
        let began = Instant::now();
        let (stop, stopped) = watch::channel(false);
        let arrived = Arc::<Mutex<Vec<Arrived>>>::default();
        let mut publishing = JoinSet::new();
        for machine in 0..MACHINES {
            let connected = Machine::connect(broker.port, &format!("G-{machine}"), None).await;
            publishing.spawn(publish(connected, machine, began, stopped.clone()));
        }
        let mut collecting = JoinSet::new();
        collecting.spawn(collect(redis.connect().await, began, arrived.clone()));
        Self { began, stop, publishing, collecting, arrived }
    }

    /// A moment, to tell what was sent before it from what was sent after.
    pub(crate) fn now(&self) -> Duration {
        self.at(Instant::now())
    }

    /// The same of any moment since they began.
    pub(crate) fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.began)
    }

    /// How many reached the back end so far.
    pub(crate) fn count(&self) -> usize {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends it, sees that each machine's messages arrived once and in order, and gives it back.
    pub(crate) async fn end(mut self) -> Traffic {
        self.stop.send_replace(true);
        let mut sent = 0;
        while let Some(published) = self.publishing.join_next().await {
            sent += published.expect("a machine that publishes to its end");
        }
        eventually("every message of the neighbours is at the back end", async || {
            (self.count() as u64 >= sent).then_some(())
        })
        .await;
        self.collecting.shutdown().await;
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(arrived.len() as u64, sent, "nothing is lost and nothing doubled");
        for machine in 0..MACHINES {
            let numbers: Vec<u64> = arrived.iter().filter(|one| one.machine == machine).map(|one| one.number).collect();
            assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "machine {machine}");
        }
        Traffic(arrived)
    }
}

impl Traffic {
    /// What was sent in these stretches of time.
    pub(crate) fn sent_in(&self, times: &[Range<Duration>]) -> Latency {
        let within = |one: &&Arrived| times.iter().any(|time| time.contains(&one.sent));
        let mut all: Vec<Duration> = self.0.iter().filter(within).map(|one| one.took).collect();
        all.sort_unstable();
        let at = |share: usize| all.get(all.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
        Latency { messages: all.len(), median: at(50), p99: at(99), longest: at(100) }
    }
}

async fn publish(machine: Machine, index: usize, began: Instant, stopped: watch::Receiver<bool>) -> u64 {
    let mut ticks = tokio::time::interval(EVERY);
    let mut number = 0;
    while !*stopped.borrow() {
        ticks.tick().await;
        let at = began.elapsed().as_micros();
        let payload = format!(r#"{{"machine":{index},"number":{number},"at":{at}}}"#);
        machine.publish(&format!("machine/G-{index}/heartbeat"), payload).await;
        number += 1;
    }
    number
}

async fn collect(mut connection: redis::aio::MultiplexedConnection, began: Instant, arrived: Arc<Mutex<Vec<Arrived>>>) {
    loop {
        // Nothing for a second is no failure of it; a list that is lost shows at the end.
        let popped: Option<(String, String)> =
            redis::cmd("BLPOP").arg("mqtt_incoming_jobs").arg(1).query_async(&mut connection).await.expect("a list");
        let Some((_, job)) = popped else { continue };
        let job: Value = serde_json::from_str(&job).expect("an envelope");
        let number = |name: &str| job["payload"][name].as_u64().unwrap_or_else(|| panic!("{name} in {job}"));
        let sent = Duration::from_micros(number("at"));
        arrived.lock().unwrap_or_else(PoisonError::into_inner).push(Arrived {
            machine: usize::try_from(number("machine")).expect("small"),
            number: number("number"),
            sent,
            took: began.elapsed().saturating_sub(sent),
        });
    }
}
