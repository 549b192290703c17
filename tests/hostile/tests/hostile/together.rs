//! All cases in one gateway, one after another in one plugin's place, beside traffic that behaves.

use std::fs;
use std::time::Duration;

use sluicegate::sandbox::Step;
use sluicegate_hostile::alone;
use sluicegate_hostile::case::{Case, Must};
use sluicegate_hostile::corpus;
use sluicegate_hostile::table::{self, Row};
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

use crate::neighbours::Neighbours;
use crate::slot::{self, Slot};

/// How long the neighbours are measured by themselves.
const QUIET: Duration = Duration::from_secs(4);
/// What the instances of this run may hold together: a hostile one at work in each lane and two kept warm, and as many of the
/// neighbours' handler, with its 32 MiB each.
const LIMITS: u64 = 6 * alone::MEMORY + 6 * (32 << 20);
/// What the gateway may need beside them: for compiling, and for the messages under way.
const MARGIN: u64 = 192 << 20;

fn settings(broker: &Broker, redis: &RedisServer) -> String {
    let more = format!(
        "[plugins.heartbeat]\npath = \"plugins/heartbeat.wasm\"\n\
         [plugins.hostile]\npath = \"plugins/hostile.wasm\"\n\
         [plugins.hostile.limits]\ncall_timeout = \"{}ms\"\nmemory = {}\noutput = {}\n\
         [[routes]]\nname = \"heartbeat\"\ntopic = \"machine/{{serial_no}}/heartbeat\"\nhandlers = [\"heartbeat\"]\n\
         [[routes]]\nname = \"hostile\"\ntopic = \"hostile/{{serial_no}}\"\nhandlers = [\"hostile\"]\n\
         queue = \"hostile_jobs\"\nattempts = 1\n",
        alone::CALL_TIMEOUT.as_millis(),
        alone::MEMORY,
        alone::OUTPUT,
    );
    Gateway::settings(broker.port, redis.port, &more)
}

/// In bytes, of `/proc/PID/status`: `VmRSS` is what it holds, `VmHWM` the most that it ever held.
fn memory(gateway: &Gateway, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.process())).expect("a process");
    let line = status.lines().find(|line| line.starts_with(what)).expect("a line");
    let number = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number");
    number << 10
}

fn must(case: &Case) -> &Must {
    case.in_gateway.as_ref().unwrap_or(&case.must)
}

#[test]
fn the_whole_corpus_harms_no_neighbour() {
    let _alone = crate::alone();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let mut gateway = Gateway::with(&settings(&broker, &redis));
    // Else a file that nobody may read would be read, where root runs the tests.
    gateway.without_override(true);
    gateway.install("hostile", &slot::good(0));
    gateway.run().await;
    let machine = Machine::connect(broker.port, "H", None).await;
    let neighbours = Neighbours::begin(&broker, &redis).await;
    eventually("the neighbours were measured by themselves", async || (neighbours.now() > QUIET).then_some(())).await;

    let (mark, before) = (neighbours.now(), memory(&gateway, "VmRSS:"));
    let mut cases = corpus::all();
    // While a good build is live, what is refused shows that it goes on.
    cases.sort_by_key(|case| match must(case) {
        Must::Refused(Step::Found, _) => 0,
        Must::Refused(..) | Must::NotLive => 1,
        Must::Either(..) => 2,
        Must::Live(_) => 3,
    });
    let mut slot = Slot::new(&gateway, &machine, &redis).await;
    let (mut all, mut times) = (Vec::new(), Vec::new());
    for case in &cases {
        let began = neighbours.now();
        all.push(slot.outcome(case, must(case)).await);
        times.push(began..neighbours.now());
    }
    let most = memory(&gateway, "VmHWM:");
    let end = neighbours.now();
    let traffic = neighbours.end().await;
    let rows: Vec<Row<'_>> = cases
        .iter()
        .zip(all)
        .zip(times)
        .map(|((case, is), time)| {
            let must = must(case);
            let note = format!("{:.0?}, of a neighbour {:.0?}", time.end - time.start, traffic.sent_in(time).longest);
            Row { case, must, good: alone::is_so(must, &is), is, note }
        })
        .collect();
    println!("{}", table::show(&rows));
    let (quiet, beside) = (traffic.sent_in(Duration::ZERO..mark), traffic.sent_in(mark..end));
    let took = end - mark;
    let mib = |bytes: u64| bytes >> 20;
    println!("neighbours by themselves: {quiet}");
    println!("beside {} hostile cases in {took:.1?}: {beside}", cases.len());
    println!("p99 beside / by themselves: {:.2}", beside.p99.as_secs_f64() / quiet.p99.as_secs_f64());
    println!(
        "memory: {} MiB before, {} MiB at most; allowed {} MiB more: {} of limits, {} of margin",
        mib(before),
        mib(most),
        mib(LIMITS + MARGIN),
        mib(LIMITS),
        mib(MARGIN),
    );
    let wrong: Vec<&str> = rows.iter().filter(|row| !row.good).map(|row| row.case.name.as_str()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(beside.messages >= 1_000, "{beside}");
    assert!(most <= before + LIMITS + MARGIN, "{} MiB", mib(most));
}
