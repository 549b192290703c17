//! The back end's part: takes jobs off the list and looks at each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use serde::Deserialize;

use super::load::{MACHINES, Way, serial_no};

/// Jobs that are taken at once.
const AT_ONCE: usize = 1_000;

#[derive(Deserialize)]
struct Job<'a> {
    serial_no: &'a str,
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    /// The builds that it was handled by.
    first: &'a str,
    second: &'a str,
    seq: u64,
    sent_us: u64,
}

/// What arrived, and what is wrong with it.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Jobs, all of them.
    pub jobs: u64,
    /// Which came a second time.
    pub doubled: u64,
    /// Whose machine had a later one before.
    pub out_of_order: u64,
    /// Handled by two builds.
    pub two_builds: u64,
    /// By an older build than the machine's message before it.
    pub went_back: u64,
    /// That are none of ours.
    pub strange: u64,
    /// When the first job of each build was seen.
    pub first: BTreeMap<u32, Instant>,
}

/// A stretch of time: what arrived in it.
#[derive(Debug, Clone)]
pub struct Stretch {
    began: Instant,
    ended: Instant,
    jobs: u64,
    /// From publish to here, in microseconds, in order.
    latencies: Vec<u32>,
}

impl Stretch {
    /// Jobs a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.jobs as f64 / (self.ended - self.began).as_secs_f64()
    }

    /// How long it was.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.ended - self.began
    }

    /// Of all messages' ways, the share `of` was not longer.
    #[must_use]
    pub fn latency(&self, of: f64) -> Duration {
        let place = (self.latencies.len() as f64 * of) as usize;
        Duration::from_micros(u64::from(self.latencies.get(place.saturating_sub(1)).copied().unwrap_or_default()))
    }
}

#[derive(Debug)]
struct State {
    seen: Seen,
    /// Of each machine the next number, and the build of its last one.
    machines: Vec<(u64, u32)>,
    latencies: Vec<u32>,
    stretch: (Instant, u64),
}

/// The look of the back end at what arrives, shared with [`drain`].
#[derive(Debug, Clone)]
pub struct Eye(Arc<Mutex<State>>);

impl Default for Eye {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            seen: Seen::default(),
            machines: vec![(0, 0); MACHINES],
            latencies: Vec::new(),
            stretch: (Instant::now(), 0),
        })))
    }
}

impl Eye {
    /// What it saw until now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.with(|state| state.seen.clone())
    }

    /// When the first job of a build was seen, if it was.
    #[must_use]
    pub fn first(&self, build: u32) -> Option<Instant> {
        self.with(|state| state.seen.first.get(&build).copied())
    }

    /// What arrived since the last call; the next stretch begins.
    #[must_use]
    pub fn stretch(&self) -> Stretch {
        let now = Instant::now();
        let mut stretch = self.with(|state| {
            let (began, before) = std::mem::replace(&mut state.stretch, (now, state.seen.jobs));
            let latencies = std::mem::take(&mut state.latencies);
            Stretch { began, ended: now, jobs: state.seen.jobs - before, latencies }
        });
        stretch.latencies.sort_unstable();
        stretch
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn note(&mut self, job: &[u8], now: Instant, way: &Way) {
        self.seen.jobs += 1;
        let parsed = serde_json::from_slice::<Job<'_>>(job).ok().and_then(|job| {
            let machine = job.serial_no.strip_prefix("M-")?.parse().ok().filter(|&machine| machine < MACHINES)?;
            (serial_no(machine) == job.serial_no).then_some((machine, job.payload.first.parse().ok()?, job.payload))
        });
        let Some((machine, build, payload)) = parsed else {
            self.seen.strange += 1;
            return;
        };
        let (next, last) = &mut self.machines[machine];
        match payload.seq.cmp(next) {
            std::cmp::Ordering::Less => self.seen.doubled += 1,
            std::cmp::Ordering::Equal => *next += 1,
            // What it lacks is lost, or comes out of order.
            std::cmp::Ordering::Greater => {
                self.seen.out_of_order += 1;
                *next = payload.seq + 1;
            }
        }
        self.seen.two_builds += u64::from(payload.first != payload.second);
        self.seen.went_back += u64::from(build < *last);
        *last = build;
        self.seen.first.entry(build).or_insert(now);
        let sent = way.began + Duration::from_micros(payload.sent_us);
        self.latencies.push(u32::try_from((now - sent).as_micros()).unwrap_or(u32::MAX));
    }
}

/// Takes jobs off a list until it is dropped.
///
/// # Panics
/// Where Redis does not answer.
pub async fn drain(mut redis: MultiplexedConnection, list: &str, eye: Eye, way: Arc<Way>) {
    loop {
        let jobs: Option<Vec<Vec<u8>>> =
            redis::cmd("LPOP").arg(list).arg(AT_ONCE).query_async(&mut redis).await.expect("Redis answers");
        let Some(jobs) = jobs else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let now = Instant::now();
        eye.with(|state| jobs.iter().for_each(|job| state.note(job, now, &way)));
        way.places.add_permits(jobs.len());
    }
}
