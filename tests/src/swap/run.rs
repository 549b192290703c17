//! Before, during and after the swaps, and the table of it.

use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;

use super::builds::{self, Broken};
use super::drain::{Eye, Seen, Stretch, drain};
use super::load::Machines;
use crate::eventually::within;
use crate::{Broker, Gateway, RedisServer};

/// One in so many builds is broken.
const BROKEN: u32 = 4;
/// Before the swaps, and after them.
const CALM: Duration = Duration::from_secs(15);
/// After which a swap counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);
const JOBS: &str = "mqtt_incoming_jobs";

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    swaps: Vec<Swap>,
    refused: usize,
    published: u64,
    seen: Seen,
    /// Calls of the plugin beyond two for each message: attempts that were made again.
    again: i64,
    dead: u64,
    before: Stretch,
    during: Stretch,
    after: Stretch,
}

/// One swap that went live.
#[derive(Debug)]
struct Swap {
    /// From the rename until the gateway says that it is live.
    live: Duration,
    /// From the rename to the first job by it on the list.
    arrived: Duration,
    /// The gateway's resident memory then, in bytes.
    memory: u64,
}

/// Swaps so often under full load, with `pace` from one to the next at the least. Where it `rehearses`, each build is tried on the last real messages before.
///
/// # Panics
/// Where broker, Redis or gateway fail, or a build does not do what it must.
pub async fn run(swaps: u32, pace: Duration, rehearses: bool) -> Outcome {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    redis.command("CONFIG SET appendonly no").await;
    let rehearse = if rehearses { "" } else { "rehearse = { messages = 0 }\n" };
    let settings = format!(
        "[plugins.guest]\npath = \"plugins/guest.wasm\"\n{rehearse}[[routes]]\nname = \"do\"\n\
         topic = \"machine/{{serial_no}}/do\"\nhandlers = [\"guest\", \"guest\"]\n"
    );
    let mut gateway = Gateway::with(&Gateway::settings(broker.port, redis.port, &settings));
    gateway.install("guest", &builds::build(0));
    gateway.run().await;

    let (machines, eye) = (Machines::start(broker.port).await, Eye::default());
    let mut draining = JoinSet::new();
    let (connection, looks, way) = (redis.connect().await, eye.clone(), machines.way().clone());
    draining.spawn(async move { drain(connection, JOBS, looks, way).await });

    // What is slow at the beginning is nobody's matter.
    tokio::time::sleep(CALM / 3).await;
    drop(eye.stretch());
    tokio::time::sleep(CALM).await;
    let before = eye.stretch();
    let (mut done, mut refused) = (Vec::new(), 0);
    for number in 1..=swaps {
        let began = Instant::now();
        if number % BROKEN == 0 {
            let how = Broken::ALL[(number / BROKEN) as usize % Broken::ALL.len()];
            let digest = gateway.last_refused("guest").await;
            gateway.install("guest", &builds::broken(number, how));
            within(PATIENCE, &format!("build {number} ({how:?}) is refused"), async || {
                (gateway.last_refused("guest").await != digest).then_some(())
            })
            .await;
            refused += 1;
        } else {
            let component = builds::build(number);
            let (renamed, at) = (Instant::now(), now());
            gateway.install("guest", &component);
            let first = within(PATIENCE, &format!("build {number} is live"), async || eye.first(number)).await;
            let live = gateway.live_since("guest").await.duration_since(at).unwrap_or_default();
            done.push(Swap { live, arrived: first - renamed, memory: gateway.memory("VmRSS:") });
        }
        tokio::time::sleep(pace.saturating_sub(began.elapsed())).await;
    }
    let during = eye.stretch();
    tokio::time::sleep(CALM).await;
    let after = eye.stretch();
    let published = machines.stop().await;
    within(PATIENCE, "all that was published has arrived", async || (eye.seen().jobs >= published).then_some(())).await;
    let plugin = gateway.plugin("guest").await.expect("its status");
    let messages = gateway.messages().await.expect("its counts");
    Outcome {
        swaps: done,
        refused,
        published,
        seen: eye.seen(),
        again: plugin["usage"]["calls"].as_i64().expect("a number") - 2 * published as i64,
        dead: messages["dead"].as_u64().expect("a number"),
        before,
        during,
        after,
    }
}

#[expect(clippy::disallowed_methods, reason = "compared with what the gateway's clock says")]
fn now() -> SystemTime {
    SystemTime::now()
}

impl Outcome {
    /// Whether nothing was lost, doubled, reordered, or handled by two builds.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wrong().iter().all(|(_, count)| *count == 0)
    }

    fn wrong(&self) -> [(&'static str, u64); 6] {
        let unique = self.seen.jobs - self.seen.doubled - self.seen.strange;
        [
            ("lost", self.published.saturating_sub(unique)),
            ("doubled", self.seen.doubled + self.seen.strange),
            ("out of order", self.seen.out_of_order),
            ("handled by two generations", self.seen.two_builds),
            ("by an older build after a newer one", self.seen.went_back),
            ("dead letters", self.dead),
        ]
    }

    /// As a table for people.
    ///
    /// # Panics
    /// Where nothing was swapped.
    #[must_use]
    pub fn table(&self) -> String {
        let share = |of: fn(&Swap) -> Duration, share: f64| {
            let mut times: Vec<Duration> = self.swaps.iter().map(of).collect();
            times.sort_unstable();
            times[((times.len() as f64 * share) as usize).min(times.len() - 1)]
        };
        let times = |of| format!("{} / {} ms", share(of, 0.5).as_millis(), share(of, 0.99).as_millis());
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let memory: Vec<f64> = self.swaps.iter().map(|swap| mebibytes(swap.memory)).collect();
        let tenth = (memory.len() / 10).max(1);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&memory[..tenth]), mean(&memory[memory.len() - tenth..]));
        let tenths: Vec<_> =
            memory.chunks(memory.len().div_ceil(10)).map(|part| format!("{:.1}", mean(part))).collect();
        let calm = f64::midpoint(self.before.rate(), self.after.rate());
        let rows = [
            ("swaps that went live".to_owned(), self.swaps.len().to_string()),
            ("broken builds refused".to_owned(), self.refused.to_string()),
            ("messages".to_owned(), self.published.to_string()),
        ];
        let wrong = self.wrong().map(|(what, count)| (what.to_owned(), count.to_string()));
        let stretch = |name: &str, stretch: &Stretch| {
            let (rate, length) = (stretch.rate(), stretch.length().as_secs());
            let latency = |of| stretch.latency(of).as_secs_f64() * 1e3;
            let text = format!("{rate:.0}/s, p50 {:.1} ms, p99 {:.1} ms, over {length} s", latency(0.5), latency(0.99));
            (format!("{name} the swaps"), text)
        };
        let rest = [
            ("calls beyond one for each message and handler".to_owned(), self.again.to_string()),
            ("rename to live, median / p99".to_owned(), times(|swap| swap.live)),
            ("rename to its first job, median / p99".to_owned(), times(|swap| swap.arrived)),
            stretch("before", &self.before),
            stretch("during", &self.during),
            stretch("after", &self.after),
            ("throughput during / calm".to_owned(), format!("{:.3}", self.during.rate() / calm)),
            ("memory, first tenth / last tenth of the swaps".to_owned(), format!("{first:.1} / {last:.1} MiB")),
            ("memory, each tenth of the swaps".to_owned(), format!("{} MiB", tenths.join(" "))),
        ];
        // Of this machine as much as of the gateway: said, and no failure.
        let aims = [
            ("rename to live, median, under 250 ms", share(|swap| swap.live, 0.5) < Duration::from_millis(250)),
            ("throughput during / calm of 0.95", self.during.rate() / calm >= 0.95),
            ("no more memory at the end, 5 % aside", last <= first * 1.05),
        ];
        let aims = aims.map(|(aim, met)| (format!("aim: {aim}"), if met { "met" } else { "missed" }.to_owned()));
        let rows = rows.into_iter().chain(wrong).chain(rest).chain(aims);
        rows.map(|(what, value)| format!("{what:<46} {value}\n")).collect()
    }
}
