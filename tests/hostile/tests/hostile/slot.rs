//! A plugin's place in a running gateway: what is put into it, and what the gateway says of it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate::sandbox::Step;
use sluicegate_guests::{Guest, custom};
use sluicegate_hostile::alone::{self, TRIES, machine, payload};
use sluicegate_hostile::case::{Case, End, Kept, Must};
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

const DEAD: &str = "mqtt_dead_letters";
/// How often what stays in its place is called.
const EVERY: Duration = Duration::from_millis(50);
/// How often the gateway is asked what became of a case while it says nothing.
const ASK: Duration = Duration::from_millis(200);
/// Where files wait for their turn, beside the plugins' folder.
const STAGED: &str = "staged";

/// The place of a plugin that means harm. Plugin, route and queue have one name.
pub(crate) struct Slot<'a> {
    name: &'a str,
    gateway: &'a Gateway,
    machine: Machine,
    redis: redis::aio::MultiplexedConnection,
    builds: u32,
    /// How long a case is in its place at least, called all the time.
    stay: Duration,
    /// When the last one was loaded and judged.
    judged: Instant,
}

/// A plugin that does nothing wrong; each number is another build of it.
pub(crate) fn good(build: u32) -> Vec<u8> {
    let mut bytes = Guest::echo().handler();
    custom(&mut bytes, "build", &build.to_le_bytes());
    bytes
}

impl<'a> Slot<'a> {
    pub(crate) async fn new(
        name: &'a str,
        gateway: &'a Gateway,
        broker: &Broker,
        redis: &RedisServer,
        stay: Duration,
    ) -> Self {
        let machine = Machine::connect(broker.port, name, None).await;
        Self { name, gateway, machine, redis: redis.connect().await, builds: 0, stay, judged: Instant::now() }
    }

    /// Makes the files of cases beforehand, so that nobody waits for a processor that makes them. What is no file, or changes all the time, is made
    /// in its turn: links lead elsewhere from here.
    pub(crate) fn stage(&self, cases: &[Case]) {
        fs::create_dir(self.gateway.path(STAGED)).expect("a folder");
        for case in cases {
            let path = self.staged(case);
            let changes = case.make(&path).is_some();
            let kind = path.symlink_metadata().expect("it was made").file_type();
            if kind.is_dir() {
                fs::remove_dir(&path).expect("removed");
            } else if changes || !kind.is_file() {
                fs::remove_file(&path).expect("removed");
            }
        }
    }

    fn staged(&self, case: &Case) -> PathBuf {
        self.gateway.path(STAGED).join(&case.name)
    }

    fn path(&self) -> PathBuf {
        self.gateway.path("plugins").join(format!("{}.wasm", self.name))
    }

    /// What the status says of it: the number of the live build, and the last refusal.
    async fn status(&self) -> Option<(u64, Value)> {
        let plugin = self.gateway.plugin(self.name).await?;
        Some((plugin["live"]["generation"].as_u64()?, plugin["last_refusal"].clone()))
    }

    /// Puts a case into the place and waits until the gateway has said what it thinks of it.
    async fn put(&mut self, case: &Case, make: impl FnOnce(&std::path::Path) -> Kept) -> Result<(), (String, String)> {
        let (generation, refusal) = eventually("a status", async || self.status().await).await;
        let (mut logged, mut asked) = (self.gateway.log_length(), Instant::now());
        let (beside, path) = (self.gateway.path("plugins").join(format!(".{}.new", self.name)), self.path());
        let kept = make(&beside);
        // A folder is not renamed over a file, nor a file over a folder.
        if beside.symlink_metadata().is_ok_and(|new| new.is_dir()) {
            fs::remove_file(&path).expect("removed");
        } else if path.symlink_metadata().is_ok_and(|old| old.is_dir()) {
            fs::remove_dir(&path).expect("removed");
        }
        fs::rename(&beside, &path).expect("renamed");
        if kept.is_some() {
            // It changes all the time: the gateway is to wait. What it says is said once it stays as it is.
            assert_eq!(self.call(case, 0).await, End::AsItCame, "{}: the build before goes on", case.name);
        }
        drop(kept);
        eventually(&format!("{} is live or refused", case.name), async || {
            // Whoever asks a hundred times a second is a load of its own for neighbours that are measured.
            if self.gateway.log_length() == logged && asked.elapsed() < ASK {
                return None;
            }
            (logged, asked) = (self.gateway.log_length(), Instant::now());
            let (now, reason) = self.status().await?;
            if now > generation {
                return Some(Ok(()));
            }
            let word = |name: &str| reason[name].as_str().unwrap_or_default().to_owned();
            (reason != refusal).then(|| Err((word("step"), word("reason"))))
        })
        .await
    }

    /// When the last case was loaded and judged; what comes after it is its stay.
    pub(crate) fn judged(&self) -> Instant {
        self.judged
    }

    /// What became of a case.
    pub(crate) async fn outcome(&mut self, case: &Case, must: &Must) -> Must {
        let mut tries = 1;
        loop {
            let is = self.outcome_once(case, must, tries > 1).await;
            if tries == TRIES || alone::is_so(must, &is) || !alone::is_late(&is) {
                return is;
            }
            tries += 1;
        }
    }

    async fn outcome_once(&mut self, case: &Case, must: &Must, again: bool) -> Must {
        if again || matches!(must, Must::Refused(Step::Found, _)) {
            // What is wrong with a path is said once until there is a file again; what is live already is not loaded again.
            self.builds += 1;
            let good = good(self.builds);
            let put = self.put(case, |path| {
                fs::write(path, good).expect("written");
                None
            });
            put.await.expect("a good build goes live");
        }
        let (staged, began) = (self.staged(case), Instant::now());
        // It is gone where this is another try.
        let put = self.put(case, |path| match fs::rename(staged, path) {
            Ok(()) => None,
            Err(_) => case.make(path),
        });
        let put = put.await;
        let mut ends = Vec::new();
        for call in 0..must.calls() {
            ends.push(self.call(case, call).await);
        }
        self.judged = Instant::now();
        let mut calls = tokio::time::interval(EVERY);
        while began.elapsed() < self.stay {
            calls.tick().await;
            ends.push(self.call(case, ends.len()).await);
        }
        match put {
            Ok(()) => Must::Live(ends),
            // Another try tells whether the machine was busy.
            Err(_) if alone::is_late(&Must::Live(ends.clone())) => Must::Live(ends),
            Err((step, reason)) => {
                assert!(
                    ends.iter().all(|end| *end == End::AsItCame),
                    "{}: the build before goes on: {ends:?}",
                    case.name
                );
                Must::Refused(step_of(&step), reason)
            }
        }
    }

    async fn call(&mut self, case: &Case, call: usize) -> End {
        let (serial_no, sent) = (machine(&case.name), payload(&case.name, call));
        self.machine.publish(&format!("{}/{serial_no}", self.name), sent.clone()).await;
        let mut pop = redis::cmd("BLPOP");
        // Shorter than the client's own limit.
        pop.arg(self.name).arg(DEAD).arg(8);
        let popped: Option<(String, String)> = pop.query_async(&mut self.redis).await.expect("a list");
        let (list, entry) = popped.unwrap_or_else(|| panic!("nothing comes of call {call} of {}", case.name));
        if list == DEAD {
            let letter: Value = serde_json::from_str(&entry).expect("a dead letter");
            assert_eq!(
                (&letter["serial_no"], &letter["payload"]),
                (&serial_no.into(), &sent.into()),
                "it keeps what came"
            );
            return End::Dead(letter["reason"].as_str().unwrap_or_default().to_owned());
        }
        // Byte for byte: reading it would mend it.
        let head = format!(r#"{{"type":"{}","serial_no":"{serial_no}","payload":"#, self.name);
        let rest = entry.strip_prefix(&head).unwrap_or_else(|| panic!("another envelope: {entry}"));
        let (made, _) = rest.rsplit_once(r#","received_at":""#).unwrap_or_else(|| panic!("another envelope: {entry}"));
        if made == sent { End::AsItCame } else { End::Makes(made.to_owned()) }
    }
}

fn step_of(word: &str) -> Step {
    let steps = [Step::Found, Step::Verified, Step::Compiled, Step::Checked, Step::Rehearsed];
    steps.into_iter().find(|step| step.to_string() == word).unwrap_or_else(|| panic!("no step is called `{word}`"))
}
