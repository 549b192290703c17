//! Warm instances: who gets which, and when one is thrown away.

use std::sync::Mutex;
use std::time::Instant;

use futures_util::future::join_all;
use sluicegate_core::message::{Failure, GuestCommand, Output};

use super::*;
use crate::sandbox::Pool;
use sluicegate_guests::{Guest, ONE_JOB};

/// Answers with one byte: how many calls this instance had. A payload of `!` traps, one of `.` spins, one of `~` takes some ticks.
fn counting() -> Guest {
    Guest::doing(&format!(
        "(if (i32.eq (i32.load8_u (local.get 4)) (i32.const 33)) (then unreachable))
         (if (i32.eq (i32.load8_u (local.get 4)) (i32.const 46)) (then (loop $again (br $again))))
         (if (i32.eq (i32.load8_u (local.get 4)) (i32.const 126)) (then
           (local.set $at (i32.const 30000000))
           (loop $more (local.set $at (i32.sub (local.get $at) (i32.const 1))) (br_if $more (local.get $at)))))
         (global.set $count (i32.add (global.get $count) (i32.const 1)))
         (i32.store8 (i32.const 16) (i32.add (global.get $count) (i32.const 48)))
         (local.set $at (i32.const 16)) (local.set $len (i32.const 1)) {ONE_JOB}"
    ))
}

fn text(outputs: Vec<Output>) -> String {
    match outputs.as_slice() {
        [Output::Job(job)] => String::from_utf8_lossy(&job.payload).into_owned(),
        other => panic!("one job, not {other:?}"),
    }
}

async fn call(pool: &Pool, generation: &Arc<Generation>, payload: &str) -> Result<String, String> {
    match pool.handle(generation, &message(payload)).await {
        Ok(answer) => Ok(text(answer.expect("outputs"))),
        Err(fault) => Err(fault.kind().to_owned()),
    }
}

#[test]
fn an_instance_serves_many_calls_and_none_after_a_fault() {
    let generation = build(&counting().handler(), Limits { call_timeout: Duration::from_millis(50), ..limits() });
    run(async {
        let pool = Pool::new();
        assert_eq!(call(&pool, &generation, "a").await, Ok("1".to_owned()));
        assert_eq!(call(&pool, &generation, "b").await, Ok("2".to_owned()));
        assert_eq!(call(&pool, &generation, "!").await, Err("trap".to_owned()));
        assert_eq!(call(&pool, &generation, "c").await, Ok("1".to_owned()));
        assert_eq!(call(&pool, &generation, ".").await, Err("timeout".to_owned()));
        assert_eq!(call(&pool, &generation, "d").await, Ok("1".to_owned()));
        pool.retain(|_| false);
        assert_eq!(call(&pool, &generation, "e").await, Ok("1".to_owned()));
    });
}

#[test]
fn a_build_that_is_gone_leaves_nothing_warm() {
    let component = counting().handler();
    let numbered = |number| {
        let compiled = sandbox().compile(&component, IndexMap::new(), limits(), &Grants::default(), "guest", number);
        Arc::new(compiled.expect("it compiles"))
    };
    let (old, new) = (numbered(1), numbered(2));
    run(async {
        let pool = Pool::new();
        assert_eq!(call(&pool, &old, "a").await, Ok("1".to_owned()));
        old.retire();
        pool.retain(|generation| generation.number() == 2);
        assert_eq!(pool.builds(), Vec::<u64>::new());
        // Of a message that began on the old one.
        assert_eq!(call(&pool, &old, "b").await, Ok("1".to_owned()));
        assert_eq!(pool.builds(), Vec::<u64>::new());
        assert_eq!(call(&pool, &new, "c").await, Ok("1".to_owned()));
        assert_eq!(call(&pool, &new, "d").await, Ok("2".to_owned()));
        assert_eq!(pool.builds(), [2]);
    });
    assert_eq!(Arc::strong_count(&old), 1);
}

#[test]
fn a_dropped_call_takes_its_instance_with_it() {
    let generation = build(&counting().handler(), Limits { call_timeout: Duration::from_secs(60), ..limits() });
    run(async {
        let pool = Pool::new();
        assert_eq!(call(&pool, &generation, "a").await, Ok("1".to_owned()));
        for _ in 0..20 {
            let spinning = call(&pool, &generation, ".");
            assert!(tokio::time::timeout(Duration::from_millis(10), spinning).await.is_err());
        }
        assert_eq!(call(&pool, &generation, "b").await, Ok("1".to_owned()));
    });
}

#[test]
fn a_spinning_guest_does_not_hold_the_lane() {
    let spinning = build(&counting().handler(), Limits { call_timeout: Duration::from_secs(1), ..limits() });
    let echo = build(&Guest::echo().handler(), limits());
    run(async {
        let pool = Pool::new();
        let began = Instant::now();
        let quick = async {
            tokio::task::yield_now().await;
            for _ in 0..5 {
                assert_eq!(call(&pool, &echo, "{}").await, Ok("{}".to_owned()));
            }
            began.elapsed()
        };
        let (spun, took) = tokio::join!(call(&pool, &spinning, "."), quick);
        assert_eq!(spun, Err("timeout".to_owned()));
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
}

#[test]
fn whoever_finds_no_free_instance_waits() {
    let generation = build(&counting().handler(), Limits { call_timeout: Duration::from_millis(100), ..limits() });
    run(async {
        let pool = Pool::new();
        let spinning = join_all((0..40).map(|_| call(&pool, &generation, ".")));
        let (spun, other) = tokio::join!(spinning, call(&pool, &generation, "a"));
        assert!(spun.iter().all(|answer| *answer == Err("timeout".to_owned())), "{spun:?}");
        assert_eq!(other, Ok("1".to_owned()));
    });
}

#[test]
fn those_that_wait_have_the_instances_of_their_lane_one_after_another() {
    let generation = build(&counting().handler(), Limits { instances: 1, ..limits() });
    run(async {
        let pool = Pool::new();
        let slow = call(&pool, &generation, "~");
        let waiting = join_all((0..8).map(|_| call(&pool, &generation, "a")));
        let (slow, answers) = tokio::join!(slow, waiting);
        assert_eq!(slow, Ok("1".to_owned()));
        let answers: Vec<String> = answers.into_iter().map(|answer| answer.expect("an answer")).collect();
        assert_eq!(answers, ["2", "3", "4", "5", "6", "7", "8", "9"]);
        // Who does not wait any more is passed over.
        let slow = call(&pool, &generation, "~");
        let gone = tokio::time::timeout(Duration::from_millis(1), call(&pool, &generation, "a"));
        let (slow, gone, last) = tokio::join!(slow, gone, call(&pool, &generation, "a"));
        assert_eq!((slow.is_ok(), last.is_ok()), (true, true), "{gone:?}");
    });
}

#[test]
fn a_lane_that_hands_on_lets_those_go_first_in_time_that_waited_longest() {
    let generation = build(&counting().handler(), Limits { instances: 1, ..limits() });
    run(async {
        let (busy, other) = (Pool::new(), Pool::new());
        let ended = Mutex::new(Vec::new());
        let slow = call(&busy, &generation, "~");
        let waiting = join_all((0..200).map(async |_| {
            call(&busy, &generation, "a").await.expect("an answer");
            ended.lock().expect("a lock").push("busy");
        }));
        let late = async {
            call(&other, &generation, "a").await.expect("an answer");
            ended.lock().expect("a lock").push("other");
        };
        let _ = tokio::join!(slow, late, waiting);
        let ended = ended.into_inner().expect("a lock");
        let place = ended.iter().position(|lane| *lane == "other").expect("it had its turn");
        assert!((50..150).contains(&place), "it had the {place}th turn of {}", ended.len());
    });
}

#[test]
fn a_fresh_instance_knows_nothing_of_the_call_before() {
    let generation = build(&counting().handler(), Limits { calls: 1, ..limits() });
    run(async {
        let pool = Pool::new();
        for payload in ["a", "b", "c"] {
            assert_eq!(call(&pool, &generation, payload).await, Ok("1".to_owned()));
        }
    });
    let generation = build(&counting().handler(), Limits { calls: 2, ..limits() });
    run(async {
        let pool = Pool::new();
        for answer in ["1", "2", "1", "2"] {
            assert_eq!(call(&pool, &generation, "a").await, Ok(answer.to_owned()));
        }
    });
}

#[test]
fn no_more_instances_than_the_limit_are_there_at_once() {
    let spinning = Limits { call_timeout: Duration::from_millis(100), instances: 3, ..limits() };
    let generation = build_as("spinning", &counting().handler(), spinning);
    run(async {
        let pool = Pool::new();
        let all = join_all((0..7).map(|_| call(&pool, &generation, ".")));
        let most = async {
            let mut most = 0;
            for _ in 0..40 {
                most = most.max(generation.usage().now().instances);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            most
        };
        let (_, most) = tokio::join!(all, most);
        assert!((1..=3).contains(&most), "{most}");
    });
}

#[test]
fn what_a_plugin_uses_is_counted() {
    let limits = Limits { call_timeout: Duration::from_millis(50), ..limits() };
    let component = counting().handler();
    let of = |number| {
        Arc::new(
            sandbox()
                .compile(&component, IndexMap::new(), limits, &Grants::default(), "counted", number)
                .expect("it compiles"),
        )
    };
    let (one, other) = (of(1), of(2));
    run(async {
        let pool = Pool::new();
        assert_eq!(call(&pool, &one, "a").await, Ok("1".to_owned()));
        assert_eq!(call(&pool, &other, "!").await, Err("trap".to_owned()));
        assert_eq!(call(&pool, &other, ".").await, Err("timeout".to_owned()));
        let used = one.usage().now();
        assert_eq!((used.calls, used.faults, used.instances, used.memory_peak_bytes), (3, 2, 1, 128 << 10), "{used:?}");
        // It spun for as long as a call may take.
        assert!((1..5_000).contains(&used.busy_ms), "{used:?}");
        assert_eq!(other.usage().now(), used, "the plugin's, not the build's");
    });
    assert_eq!(one.usage().now().instances, 0);
}

#[test]
fn in_shadow_nothing_counts_and_nobodys_place_is_taken() {
    let share = Limits { time_per_second: Some(Duration::from_millis(1)), instances: 1, ..limits() };
    let shadowed = build_as("shadowed", &counting().handler(), share);
    run(async {
        let live = Pool::new();
        // The one place that there is.
        let mut taken = Box::pin(shadowed.place(false));
        assert!(futures_util::poll!(&mut taken).is_ready());
        let shadow = Pool::uncounted();
        for _ in 0..20 {
            assert!(shadow.handle(&shadowed, &message("{}")).await.is_ok());
        }
        let used = shadowed.usage().now();
        assert_eq!((used.calls, used.busy_ms, used.memory_peak_bytes, used.instances), (0, 0, 0, 0), "{used:?}");
        drop(taken);
        // What they took is no debt.
        let began = std::time::Instant::now();
        assert!(live.handle(&shadowed, &message("{}")).await.is_ok());
        assert_eq!(shadowed.usage().now().calls, 1, "{:?}", began.elapsed());
    });
}

#[test]
fn a_plugin_over_its_share_waits_and_its_neighbours_do_not() {
    let limits = Limits { call_timeout: Duration::from_millis(50), ..limits() };
    let share = Limits { time_per_second: Some(Duration::from_millis(1)), ..limits };
    let greedy = build_as("greedy", &counting().handler(), share);
    let other = build(&counting().handler(), limits);
    run(async {
        let pool = Pool::new();
        // Fifty seconds' share.
        assert_eq!(call(&pool, &greedy, ".").await, Err("timeout".to_owned()));
        let waiting = tokio::time::timeout(Duration::from_millis(200), call(&pool, &greedy, "a"));
        let beside = async {
            for answer in 1..=5 {
                assert_eq!(call(&pool, &other, "a").await, Ok(answer.to_string()));
            }
        };
        let (waited, ()) = tokio::join!(waiting, beside);
        assert!(waited.is_err(), "{waited:?}");
        assert_eq!(greedy.usage().now().instances, 0, "who waits holds no place");
    });
}

#[test]
fn a_validator_answers() {
    let generation = build(&Guest::echo_validator(), limits());
    let command = GuestCommand {
        target: "M-001".to_owned(),
        name: "reboot".to_owned(),
        payload: "[]".into(),
        message_id: "MSG_1".to_owned(),
    };
    let answer = run(async { Pool::new().validate(&generation, &command).await });
    assert_eq!(answer, Ok(Ok("[]".into())));
    let fault = run(async { Pool::new().handle(&generation, &message("{}")).await });
    assert!(fault.is_err(), "a validator handles no messages");
}

#[test]
fn a_reason_is_cut_at_a_characters_end() {
    // 4,096 bytes from address 2048, each pair of them `é`.
    let guest = Guest::doing(
        "(local.set $at (i32.const 2048))
         (loop $again
           (i32.store16 (local.get $at) (i32.const 0xa9c3))
           (local.set $at (i32.add (local.get $at) (i32.const 2)))
           (br_if $again (i32.lt_u (local.get $at) (i32.const 6144))))
         (i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 1))
         (i32.store (i32.const 1032) (i32.const 2048)) (i32.store (i32.const 1036) (i32.const 4096)) (i32.const 1024)",
    );
    let generation = build(&guest.handler(), limits());
    let answer = run(async { Pool::new().handle(&generation, &message("{}")).await }).expect("an answer");
    assert_eq!(answer, Err(Failure::Retry("é".repeat(512))));
}

#[test]
fn a_setting_is_the_operators() {
    // The answer of `setting("colour")` is an option at 512: its text is the job's payload.
    let guest = Guest {
        imports: "(import \"sluicegate:plugin/host@0.1.0\" \"setting\" (func $setting (param i32 i32 i32)))".to_owned(),
        extra: "(data (i32.const 64) \"colour\")".to_owned(),
        ..Guest::doing(&format!(
            "(call $setting (i32.const 64) (i32.const 6) (i32.const 512))
             (if (i32.eqz (i32.load8_u (i32.const 512))) (then unreachable))
             (local.set $at (i32.load (i32.const 516))) (local.set $len (i32.load (i32.const 520))) {ONE_JOB}"
        ))
    };
    let generation = build(&guest.handler(), limits());
    assert_eq!(run(async { call(&Pool::new(), &generation, "x").await }), Ok("green".to_owned()));
}

/// What is logged while `test` runs.
pub(super) fn logged(test: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, test);
    let bytes = lines.0.lock().expect("no panic").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_guests_log_lines_are_escaped_cut_and_few() {
    // Says so `times`, with a message of `bytes` bytes that begins with a forged line.
    let saying = |times: u32, bytes: u32| Guest {
        imports: "(import \"sluicegate:plugin/host@0.1.0\" \"log\" (func $log (param i32 i32 i32)))".to_owned(),
        extra: "(data (i32.const 64) \"a\\0a\\1b[31mFORGED\")".to_owned(),
        ..Guest::doing(&format!(
            "(local.set $len (i32.const {times}))
             (loop $again
               (call $log (i32.const 2) (i32.const 64) (i32.const {bytes}))
               (local.set $len (i32.sub (local.get $len) (i32.const 1)))
               (br_if $again (local.get $len)))
             (local.set $at (local.get 4)) (local.set $len (local.get 5)) {ONE_JOB}"
        ))
    };
    let calls = |guest: &Guest, calls: u32| {
        let generation = build(&guest.handler(), limits());
        logged(|| {
            run(async {
                let pool = Pool::new();
                for _ in 0..calls {
                    assert_eq!(call(&pool, &generation, "x").await, Ok("x".to_owned()));
                }
            });
        })
    };
    let lines = calls(&saying(1, 13), 1);
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains(r"WARN sluicegate::plugin: a\n\u{1b}[31mFORGED plugin="), "{lines}");
    assert_eq!(calls(&saying(100, 13), 2).lines().count(), 128, "64 of each call");
    let cut = calls(&saying(1, 5_000), 1);
    assert!(cut.len() < 1_024 * "\\0".len() + 200, "{}", cut.len());
}
