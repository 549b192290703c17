//! Cases in one gateway (all of them with `cargo xtask hostile`, else every third), one after another in one plugin's place, beside traffic that behaves.
//! Where their p99 is compared each is there for a second (or `HOSTILE_STAY` milliseconds), and called all the time; else only until it is judged.

use std::ops::Range;
use std::time::Duration;

use sluicegate::sandbox::Step;
use sluicegate_hostile::alone;
use sluicegate_hostile::case::{Case, Must};
use sluicegate_hostile::corpus;
use sluicegate_hostile::corpus::logs::FORGED;
use sluicegate_hostile::table::{self, Row};
use sluicegate_tests::{Broker, Gateway, RedisServer, eventually};

use crate::neighbours::Neighbours;
use crate::slot::{self, Slot};

/// How long the neighbours are measured by themselves.
const QUIET: Duration = Duration::from_secs(4);
/// The same where their p99 is compared: they send a hundred messages a second, and of 400 it is the fourth worst.
const LONG_QUIET: Duration = Duration::from_secs(20);
/// What a machine of two cores adds on which everything runs, the machines too, while one case after another is loaded.
const JITTER: Duration = Duration::from_millis(5);
/// How long each case is there where their p99 is compared.
const STAY: Duration = Duration::from_secs(1);
/// What no case may hold up a neighbour's message for.
const LONGEST: Duration = Duration::from_secs(1);
/// The plugin that means harm, its route and its queue.
const HOSTILE: &str = "hostile";
/// Which of the cases are here in an ordinary run: every third.
const SHARE: usize = 3;
/// What the instances of this run may hold together: of the hostile plugin one at work and two kept warm in each of two lanes, and
/// as many of the neighbours' handler, with its 32 MiB each.
const LIMITS: u64 = 6 * alone::MEMORY + 6 * (32 << 20);
/// What the gateway may need beside them: a file of 32 MiB, what was compiled of it, and the messages under way. The process that
/// compiles has a limit of its own.
const MARGIN: u64 = 192 << 20;

fn settings(broker: &Broker, redis: &RedisServer) -> String {
    let mut more = String::from(
        "[gateway]\ncompile_time = \"3s\"\ncompile_memory = \"256MiB\"\n\
         [plugins.heartbeat]\npath = \"plugins/heartbeat.wasm\"\n\
         [[routes]]\nname = \"heartbeat\"\ntopic = \"machine/{serial_no}/heartbeat\"\nhandlers = [\"heartbeat\"]\n",
    );
    more += &format!(
        "[plugins.{name}]\npath = \"plugins/{name}.wasm\"\n\
             rehearse = {{ messages = 0 }}\nprobation = {{ for = \"0s\" }}\n\
             grants = {{ state = true, publish = [\"{}\"] }}\n\
             [plugins.{name}.limits]\ncall_timeout = \"{}ms\"\nmemory = {}\noutput = {}\n\
             [[routes]]\nname = \"{name}\"\ntopic = \"{name}/{{serial_no}}\"\nhandlers = [\"{name}\"]\n\
             queue = \"{name}\"\nattempts = 1\n",
        alone::PUBLISH,
        alone::CALL_TIMEOUT.as_millis(),
        alone::MEMORY,
        alone::OUTPUT,
        name = HOSTILE,
    );
    Gateway::settings(broker.port, redis.port, &more)
}

fn must(case: &Case) -> &Must {
    case.in_gateway.as_ref().unwrap_or(&case.must)
}

fn stay() -> Duration {
    std::env::var("HOSTILE_STAY").map_or(STAY, |ms| Duration::from_millis(ms.parse().expect("milliseconds")))
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
    gateway.install(HOSTILE, &slot::good(0));
    gateway.run().await;
    let all = std::env::var_os("HOSTILE_ALL").is_some();
    let mut cases = corpus::all();
    if !all {
        // `exact` has each of them; an ordinary run has not the time for all of them here.
        cases = cases.into_iter().step_by(SHARE).collect();
    }
    // While a good build is live, what is refused shows that it goes on.
    cases.sort_by_key(|case| match must(case) {
        Must::Refused(Step::Found, _) => 0,
        Must::Refused(..) | Must::NotLive => 1,
        Must::Either(..) => 2,
        Must::Live(_) => 3,
    });
    let stay = if all { stay() } else { Duration::ZERO };
    let mut slot = Slot::new(HOSTILE, &gateway, &broker, &redis, stay).await;
    slot.stage(&cases);
    let neighbours = Neighbours::begin(&broker, &redis).await;
    let quiet = if all { LONG_QUIET } else { QUIET };
    eventually("the neighbours were measured by themselves", async || (neighbours.now() > quiet).then_some(())).await;

    let (mark, before) = (neighbours.now(), gateway.memory("VmRSS:"));
    let (mut ended, mut loading) = (Vec::new(), Vec::new());
    for case in &cases {
        let began = neighbours.now();
        let is = slot.outcome(case, must(case)).await;
        loading.push(began..neighbours.at(slot.judged()));
        ended.push((case, is, began..neighbours.now()));
    }
    let most = gateway.memory("VmHWM:");
    let end = neighbours.now();
    let traffic = neighbours.end().await;
    let quiet = traffic.sent_in(&[Duration::ZERO..mark]);
    if all {
        // Of so few messages the p99 is nearly the longest, and the machine alone takes some beyond twice: said, and asserted of all of them only.
        let is_above = |time: &Range<Duration>| traffic.sent_in(std::slice::from_ref(time)).p99 > quiet.p99 * 2;
        let above: Vec<_> = ended.iter().filter(|(.., time)| is_above(time)).map(|(case, ..)| &*case.name).collect();
        let second = |second| Duration::from_secs(second)..Duration::from_secs(second + 1);
        println!(
            "p99 above twice beside {} of {} cases, each by itself: {above:?}; without any in {} of {} seconds",
            above.len(),
            cases.len(),
            (0..mark.as_secs()).map(second).filter(is_above).count(),
            mark.as_secs(),
        );
    }
    let rows: Vec<Row<'_>> = ended
        .into_iter()
        .map(|(case, is, time)| {
            let must = must(case);
            let note = format!(
                "{:.0?}, of a neighbour {:.0?}",
                time.end - time.start,
                traffic.sent_in(std::slice::from_ref(&time)).longest
            );
            Row { case, must, good: alone::is_so(must, &is), is, note }
        })
        .collect();
    println!("{}", table::show(&rows));
    let beside = traffic.sent_in(&[mark..end]);
    let took = end - mark;
    let mib = |bytes: u64| bytes >> 20;
    println!("neighbours by themselves: {quiet}");
    println!("beside {} hostile cases in {took:.1?}, {stay:?} of each at least: {beside}", cases.len());
    let loading = traffic.sent_in(&loading);
    println!("of these while a case was loaded and judged: {loading}");
    println!("p99 beside / by themselves: {:.2}", beside.p99.as_secs_f64() / quiet.p99.as_secs_f64());
    println!(
        "memory: {} MiB before, {} MiB at most; allowed {} MiB more: {} of limits, {} of margin",
        mib(before),
        mib(most),
        mib(LIMITS + MARGIN),
        mib(LIMITS),
        mib(MARGIN),
    );
    let log = gateway.log();
    let forged = |line: &&str| line.starts_with(FORGED) || line.contains('\u{1b}') || line.contains('\u{202e}');
    assert_eq!(log.lines().find(forged), None, "no plugin writes a line of its own");
    let wrong: Vec<&str> = rows.iter().filter(|row| !row.good).map(|row| row.case.name.as_str()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(beside.messages >= if all { 1_000 } else { 500 }, "{beside}");
    assert!(most <= before + LIMITS + MARGIN, "{} MiB", mib(most));
    // Beside other tests it would say more of them than of the gateway.
    if all {
        assert!(beside.longest <= LONGEST, "{beside}");
        assert!(loading.p99 <= quiet.p99 * 2 + JITTER, "{loading}; by themselves {quiet}");
        // Without a stay there is nothing else.
        if !stay.is_zero() {
            assert!(beside.p99 <= quiet.p99 * 2, "{beside}; by themselves {quiet}");
        }
    }
}
