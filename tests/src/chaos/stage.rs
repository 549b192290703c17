//! What most scenarios stand on: a broker, a Redis, proxies before both, a gateway between them, machines under load.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::ledger::Comparison;
use super::load::{Fleet, Load};
use super::outcome::{Outcome, Promise};
use super::seed::Chance;
use crate::{Broker, Gateway, Proxy, RedisServer, eventually};

/// The back end's list.
pub const JOBS: &str = "mqtt_incoming_jobs";
/// What no attempt could process.
const DEAD: &str = "mqtt_dead_letters";
/// What no fault makes true.
const NEVER: [&str; 3] = ["cannot subscribe", "without a verdict", "panicked"];
/// How long what was acknowledged may take to arrive once the fault is over.
const ARRIVAL: Duration = Duration::from_secs(90);

/// One run of a scenario.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What its choices come from.
    pub seed: u64,
    /// Shorter, as one of the ordinary tests.
    pub quick: bool,
    /// Where logs are kept.
    pub keep: Option<PathBuf>,
}

impl Trial {
    /// How often something is done: in a short run, in a long one.
    #[must_use]
    pub fn times(&self, quick: u64, long: u64) -> u64 {
        if self.quick { quick } else { long }
    }

    /// Its choices.
    #[must_use]
    pub fn chance(&self) -> Chance {
        Chance::of(self.seed)
    }

    /// A gateway whose logs are kept, under this name.
    #[must_use]
    pub fn gateway(&self, settings: &str, name: &str) -> Gateway {
        let gateway = Gateway::with(settings);
        match &self.keep {
            Some(folder) => gateway.keeping_logs(folder.clone(), name),
            None => gateway,
        }
    }
}

/// What differs from the built-in settings.
#[derive(Debug, Default)]
pub struct Setup {
    /// Lines of `[mqtt]`.
    pub mqtt: &'static str,
    /// Lines of `[redis]`.
    pub redis: &'static str,
    /// What goes behind everything else.
    pub more: &'static str,
    /// Whether the broker has its sessions again after a restart.
    pub lasting: bool,
    /// The size of a disk of its own for the spool.
    pub disk: Option<&'static str>,
    /// Variables of its environment.
    pub environment: Vec<(&'static str, String)>,
    /// What the machines do.
    pub load: Load,
}

/// All of it, running.
pub struct Stage {
    /// This run.
    pub trial: Trial,
    /// Its choices.
    pub chance: Chance,
    /// The broker; machines speak to it directly.
    pub broker: Broker,
    /// The Redis.
    pub redis: RedisServer,
    /// Between gateway and broker.
    pub to_broker: Proxy,
    /// Between gateway and Redis.
    pub to_redis: Proxy,
    /// The gateway.
    pub gateway: Gateway,
    /// The machines.
    pub fleet: Fleet,
    /// Jobs that arrived in lists that are gone.
    pub before: Vec<String>,
    watcher: Watcher,
}

impl Stage {
    /// With the built-in settings.
    pub async fn set(trial: Trial) -> Self {
        Self::set_up(trial, Setup::default()).await
    }

    /// Starts all of it.
    pub async fn set_up(trial: Trial, setup: Setup) -> Self {
        let mut chance = trial.chance();
        let broker = if setup.lasting { Broker::lasting().await } else { Broker::start().await };
        let redis = RedisServer::start().await;
        let (to_broker, to_redis) = (Proxy::to(broker.port).await, Proxy::to(redis.port).await);
        let settings = Gateway::settings(to_broker.port, to_redis.port, setup.more)
            .replace("[redis]", &format!("{}\n[redis]", setup.mqtt))
            .replace("[admin]", &format!("{}\n[admin]", setup.redis));
        let mut gateway = trial.gateway(&settings, "gateway");
        if let Some(size) = setup.disk {
            gateway = gateway.on_a_small_disk("spool", size);
        }
        for (name, value) in setup.environment {
            gateway = gateway.env(name, &value);
        }
        gateway.run().await;
        let fleet = Fleet::start(broker.port, &setup.load, &mut chance);
        let watcher = Watcher::start(redis.port);
        // Every fault meets traffic.
        fleet.more(20).await;
        Self { trial, chance, broker, redis, to_broker, to_redis, gateway, fleet, before: Vec::new(), watcher }
    }

    /// The settings of another gateway on the same servers, with a client id and an instance name of its own.
    #[must_use]
    pub fn settings_of(&self, client: &str, instance: &str) -> String {
        let more = format!("[gateway]\ninstance = \"{instance}\"\n");
        Gateway::settings(self.to_broker.port, self.to_redis.port, &more)
            .replace("[redis]", &format!("client_id = \"{client}\"\n[redis]"))
    }

    /// Waits until the gateway answers, and checks that each of its messages is in exactly one place.
    ///
    /// # Panics
    /// Where the count does not balance.
    pub async fn balances(&self) {
        eventually("the gateway says where its messages are", async || self.gateway.messages().await).await;
    }

    /// Waits until the gateway is ready.
    pub async fn ready(&self) {
        self.gateway.ready().await;
    }

    /// Waits until what piled up in the broker has arrived.
    pub async fn keeps_up(&self) {
        eventually("the gateway keeps up", async || (self.compare().await.missing.len() < 50).then_some(())).await;
    }

    /// Waits until the gateway has all that the machines published, and none of it in memory only. Holds only where nothing was repeated.
    pub async fn at_rest(&self) {
        eventually("the gateway has all in Redis or in the spool", async || {
            let messages = self.gateway.messages().await?;
            let all = messages["received"].as_u64()? >= self.fleet.ledger().sends();
            (all && messages["in_flight"].as_u64() == Some(0)).then_some(())
        })
        .await;
    }

    /// Stops the machines, waits until what was acknowledged has arrived and the gateway has nothing left, and judges.
    ///
    /// # Panics
    /// Where the broker does not acknowledge, or the count does not balance.
    pub async fn settle(&mut self, promise: &Promise) -> Outcome {
        self.fleet.stop().await;
        let began = Instant::now();
        let mut comparison = self.compare().await;
        while began.elapsed() < ARRIVAL && !(comparison.missing.is_empty() && self.is_idle().await) {
            sleep(Duration::from_millis(50)).await;
            comparison = self.compare().await;
        }
        // What comes late comes now, if it comes.
        let comparison = self.compare().await;
        let mut outcome = Outcome::judge(&comparison, promise, self.watcher.stop().await);
        if !self.is_idle().await {
            let messages = self.gateway.messages().await;
            outcome.wrong.push(format!("long after it the gateway is not at rest: {messages:?}"));
        }
        let log = self.gateway.log();
        if let Some(line) = log.lines().find(|line| NEVER.iter().any(|never| line.contains(never))) {
            outcome.wrong.push(format!("the log says: {line}"));
        }
        let dead = self.redis.list(DEAD).await;
        if let Some(letter) = dead.first() {
            outcome.wrong.push(format!("{} dead letters, the first: {letter}", dead.len()));
        }
        outcome
    }

    /// What was acknowledged beside what arrived so far.
    pub async fn compare(&self) -> Comparison {
        let mut jobs = self.before.clone();
        jobs.extend(self.redis.list(JOBS).await);
        self.fleet.ledger().compare(&jobs)
    }

    async fn is_idle(&self) -> bool {
        self.gateway.messages().await.is_some_and(|messages| {
            messages["in_flight"].as_u64() == Some(0) && messages["spooled"].as_u64() == Some(0)
        })
    }
}

/// Looks at the list's length, for the longest time in which it did not change.
struct Watcher {
    stop: watch::Sender<bool>,
    task: JoinSet<Duration>,
}

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long a look may take.
const PATIENCE: Duration = Duration::from_millis(500);

impl Watcher {
    fn start(redis: u16) -> Self {
        let (stop, mut task) = (watch::Sender::new(false), JoinSet::new());
        let stopped = stop.subscribe();
        task.spawn(async move {
            let client = redis::Client::open(format!("redis://127.0.0.1:{redis}")).expect("a client");
            let (mut connection, mut length, mut longest, mut changed) = (None, 0_u64, Duration::ZERO, Instant::now());
            while !*stopped.borrow() {
                sleep(LOOK).await;
                if connection.is_none() {
                    let connecting = timeout(PATIENCE, client.get_multiplexed_async_connection()).await;
                    connection = connecting.ok().and_then(Result::ok);
                }
                let Some(open) = &mut connection else { continue };
                let mut ask = redis::cmd("LLEN");
                match timeout(PATIENCE, ask.arg(JOBS).query_async::<u64>(open)).await {
                    Ok(Ok(now)) if now != length => {
                        longest = longest.max(changed.elapsed());
                        (length, changed) = (now, Instant::now());
                    }
                    Ok(Ok(_)) => {}
                    _ => connection = None,
                }
            }
            longest
        });
        Self { stop, task }
    }

    async fn stop(&mut self) -> Duration {
        self.stop.send_replace(true);
        match self.task.join_next().await {
            Some(longest) => longest.expect("the watcher ends well"),
            None => Duration::ZERO,
        }
    }
}
