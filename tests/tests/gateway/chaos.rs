//! The short scenarios of `cargo xtask chaos`, each with a seed that is always the same and one that nobody chose.

use sluicegate_tests::chaos::stage::Trial;
use sluicegate_tests::chaos::{run, scenarios, seed};

/// Plays a scenario with both seeds at once.
fn check(name: &str) {
    let all = scenarios::all();
    let scenario = all.iter().find(|scenario| scenario.name == name).expect("a scenario of this name");
    let seeds = [1, seed::fresh()];
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let playing = seeds.map(|seed| {
            let trial = Trial { seed, quick: true, keep: None };
            (seed, scope.spawn(move || run::play(scenario, trial).wrong))
        });
        let ended = playing.into_iter().map(|(seed, played)| (seed, played.join().expect("its end")));
        ended.flat_map(|(seed, wrong)| wrong.into_iter().map(move |wrong| format!("seed {seed}: {wrong}"))).collect()
    });
    assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
}

macro_rules! quick {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            check($name);
        })*

        #[test]
        fn every_quick_scenario_is_a_test() {
            let quick: Vec<&str> =
                scenarios::all().iter().filter(|scenario| scenario.quick).map(|scenario| scenario.name).collect();
            assert_eq!(quick, [$($name),*]);
        }
    };
}

quick! {
    gateway_kill_9: "gateway-kill-9",
    gateway_sigterm: "gateway-sigterm",
    gateway_two_with_one_client_id: "gateway-two-with-one-client-id",
    redis_kill_9: "redis-kill-9",
    redis_loses_its_data: "redis-loses-its-data",
    redis_refuses: "redis-refuses",
    broker_kill_9: "broker-kill-9",
    broker_loses_its_sessions: "broker-loses-its-sessions",
    spool_torn_write: "spool-torn-write",
    spool_flipped_bits: "spool-flipped-bits",
    spool_unreadable: "spool-unreadable",
    system_clock_jumps: "system-clock-jumps",
    system_out_of_files: "system-out-of-files",
    commands_broker_away: "commands-broker-away",
}
