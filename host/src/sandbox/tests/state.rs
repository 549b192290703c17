//! A plugin's own keys: what a call sees, what is kept of it, and what becomes of it where others are faster or the store is away.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use sluicegate_core::fault::Fault;
use sluicegate_core::message::{Failure, GuestCommand, Output};
use sluicegate_core::state::{Change, Committed};
use sluicegate_guests::Guest;

use super::*;
use crate::sandbox::state::{Memory, Store};
use crate::sandbox::{Pool, rehearse};

fn granted(store: impl Store + 'static, limits: Limits, guest: &Guest) -> Arc<Generation> {
    let sandbox = sandbox().keeping_state_in(Arc::new(store));
    let grants = Grants { state: true, ..Grants::default() };
    Arc::new(sandbox.compile(&guest.handler(), IndexMap::new(), limits, &grants, "guest", 1).expect("it compiles"))
}

async fn ask(pool: &Pool, generation: &Arc<Generation>, what: char) -> Result<String, String> {
    match pool.handle(generation, &message(&format!(r#"{{"do":"{what}","key":"n"}}"#))).await {
        Ok(Ok(outputs)) => match outputs.as_slice() {
            [Output::Job(job)] => Ok(String::from_utf8_lossy(&job.payload).into_owned()),
            other => panic!("one job, not {other:?}"),
        },
        Ok(Err(Failure::Reject(reason) | Failure::Retry(reason))) => Err(reason),
        Err(fault) => Err(fault.to_string()),
    }
}

/// A store that says what a test wants.
#[derive(Default)]
struct Moody {
    memory: Memory,
    /// So many commits find that something changed.
    others: AtomicU32,
    /// Commits that came.
    commits: AtomicU32,
    /// Why nothing is to be had.
    away: Mutex<Option<&'static str>>,
    /// Reads never end.
    hangs: bool,
}

impl Moody {
    fn away(&self) -> Result<(), String> {
        self.away.lock().expect("whole").map_or(Ok(()), |reason| Err(reason.to_owned()))
    }
}

impl Store for Arc<Moody> {
    fn get<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        async move {
            self.away()?;
            if self.hangs {
                tokio::time::sleep(within).await;
                return Err("no answer".to_owned());
            }
            self.memory.get(plugin, key, within).await
        }
        .boxed()
    }

    fn commit<'a>(
        &'a self,
        plugin: &'a str,
        changes: &'a [Change],
        most: u64,
    ) -> BoxFuture<'a, Result<Committed, String>> {
        async move {
            self.commits.fetch_add(1, Ordering::Relaxed);
            self.away()?;
            let others = self.others.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if others.is_ok() {
                return Ok(Committed::Changed);
            }
            self.memory.commit(plugin, changes, most).await
        }
        .boxed()
    }
}

#[test]
fn what_a_good_call_keeps_stays_and_what_a_bad_one_does_not() {
    let generation = granted(Memory::default(), limits(), &Guest::stateful());
    run(async {
        let pool = Pool::new();
        assert_eq!(ask(&pool, &generation, 'i').await, Ok("1".to_owned()));
        for (bad, words) in [('x', "refused"), ('t', "trapped"), ('a', "not now")] {
            let reason = ask(&pool, &generation, bad).await.expect_err("it fails");
            assert!(reason.contains(words), "{reason}");
        }
        // A good answer that the caller does not take.
        let order = message(r#"{"do":"i","key":"n"}"#);
        assert!(pool.handle_if(&generation, &order, &Cell::new(false), |_| false).await.is_ok());
        // In shadow.
        assert_eq!(ask(&Pool::uncounted(), &generation, 'i').await, Ok("2".to_owned()));
        assert_eq!(ask(&pool, &generation, 'i').await, Ok("2".to_owned()));
        assert_eq!(ask(&pool, &generation, 'm').await, Ok("102".to_owned()));
    });
}

#[test]
fn a_call_is_run_again_where_others_were_faster_and_its_answer_is_true() {
    let store = Arc::new(Moody { others: AtomicU32::new(5), ..Moody::default() });
    let generation = granted(store.clone(), limits(), &Guest::stateful());
    run(async {
        let pool = Pool::new();
        assert_eq!(ask(&pool, &generation, 'i').await, Ok("1".to_owned()));
        assert_eq!(store.commits.load(Ordering::Relaxed), 6);
        // Not for ever.
        store.others.store(u32::MAX, Ordering::Relaxed);
        let fault = ask(&pool, &generation, 'i').await.expect_err("a fault");
        assert_eq!(fault, "could not have its state: others changed what it had read, 32 times");
        store.others.store(0, Ordering::Relaxed);
        // What only reads is never run again.
        assert_eq!(ask(&pool, &generation, 'g').await, Ok("1".to_owned()));
    });
}

#[test]
fn calls_at_once_are_told_sums_of_their_own() {
    let store = Arc::new(Moody::default());
    let generation = granted(store.clone(), limits(), &Guest::stateful());
    run(async {
        let (pool, other) = (Pool::new(), Pool::new());
        let calls = (0..100).map(|number| ask(if number % 2 == 0 { &pool } else { &other }, &generation, 'i'));
        let mut sums: Vec<u32> =
            join_all(calls).await.into_iter().map(|sum| sum.expect("a sum").parse().expect("a number")).collect();
        sums.sort_unstable();
        assert_eq!(sums, (1..=100).collect::<Vec<_>>());
    });
}

#[test]
fn where_the_store_is_away_it_is_nobodys_failure() {
    let store = Arc::new(Moody::default());
    let generation = granted(store.clone(), limits(), &Guest::stateful());
    run(async {
        let pool = Pool::new();
        assert_eq!(ask(&pool, &generation, 'i').await, Ok("1".to_owned()));
        *store.away.lock().expect("whole") = Some("Redis is away");
        let before = generation.sum();
        // Told so, it asks for another attempt; and where its writes fail, it knows nothing of it.
        for what in ['i', 'd'] {
            let order = message(&format!(r#"{{"do":"{what}","key":"n"}}"#));
            let answer = pool.handle(&generation, &order).await;
            assert_eq!(answer, Err(Fault::State("Redis is away".to_owned())));
        }
        let after = generation.sum();
        assert_eq!(after.failures, before.failures);
        *store.away.lock().expect("whole") = None;
        assert_eq!(ask(&pool, &generation, 'i').await, Ok("2".to_owned()));
    });
}

#[test]
fn waiting_for_it_is_the_calls_time_leaves_time_to_answer_and_holds_up_nobody() {
    let store = Arc::new(Moody { hangs: true, ..Moody::default() });
    let short = Limits { call_timeout: Duration::from_millis(400), ..limits() };
    let generation = granted(store, short, &Guest::stateful());
    let echo = build(&Guest::echo().handler(), limits());
    run(async {
        let pool = Pool::new();
        let began = Instant::now();
        let beside = async {
            tokio::task::yield_now().await;
            for _ in 0..5 {
                assert!(pool.handle(&echo, &message("{}")).await.is_ok());
            }
            began.elapsed()
        };
        let order = message(r#"{"do":"i","key":"n"}"#);
        let (answer, beside) = tokio::join!(pool.handle(&generation, &order), beside);
        assert_eq!(answer, Err(Fault::State("no answer".to_owned())));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(200) && took < Duration::from_millis(390), "{took:?}");
        assert!(beside < Duration::from_millis(200), "{beside:?}");
    });
}

#[test]
fn a_million_increments_are_refused_as_too_many_host_calls() {
    let limits = Limits { host_calls: 100_000, call_timeout: Duration::from_secs(60), ..limits() };
    let generation = granted(Memory::default(), limits, &Guest::stateful());
    run(async {
        let pool = Pool::new();
        let reason = ask(&pool, &generation, 'f').await.expect_err("a fault");
        assert!(reason.contains("more than 100000 host calls"), "{reason}");
        assert_eq!(ask(&pool, &generation, 'i').await, Ok("1".to_owned()));
    });
}

#[test]
fn its_own_limits_are_told_to_the_guest() {
    let limits = Limits { state_keys: 1, state_value: ByteSize(100), ..limits() };
    let generation = granted(Memory::default(), limits, &Guest::stateful());
    run(async {
        let pool = Pool::new();
        let reason = ask(&pool, &generation, 'v').await.expect_err("a limit");
        assert!(reason.contains("limits.state_value"), "{reason}");
        assert_eq!(ask(&pool, &generation, 'i').await, Ok("1".to_owned()));
        let other = message(r#"{"do":"i","key":"other"}"#);
        let answer = pool.handle(&generation, &other).await.expect("an answer");
        assert_eq!(
            answer,
            Err(Failure::Retry("the plugin has 1 keys, which is the most (limits.state_keys)".to_owned()))
        );
        assert_eq!(ask(&pool, &generation, 'i').await, Ok("2".to_owned()));
    });
}

#[test]
fn each_sample_begins_with_none_and_leaves_none() {
    let sample = |name: &str| {
        format!(
            r#"{{"name":"{name}","message":{{"topic":"t","payload":"{{\"do\":\"i\",\"key\":\"n\"}}"}},"expect":{{"jobs":[{{"payload":"1"}}]}}}}"#
        )
    };
    let guest = Guest { samples: Some(format!("[{},{}]", sample("one"), sample("two"))), ..Guest::stateful() };
    let generation = granted(Memory::default(), limits(), &guest);
    run(async {
        assert_eq!(rehearse(&generation).await, Ok(2));
        assert_eq!(ask(&Pool::new(), &generation, 'i').await, Ok("1".to_owned()));
    });
}

#[test]
fn a_validator_has_a_state_too() {
    let guest = Guest {
        imports:
            "(import \"sluicegate:plugin/state@0.1.0\" \"increment\" (func $increment (param i32 i32 i64 i32 i64 i32)))"
                .to_owned(),
        ..Guest::doing(
            "(call $increment (local.get 0) (local.get 1) (i64.const 1) (i32.const 0) (i64.const 0) (i32.const 2048))
             (i32.store8 (i32.const 16) (i32.add (i32.const 48) (i32.load8_u (i32.const 2056))))
             (i32.store8 (i32.const 1024) (i32.const 0))
             (i32.store (i32.const 1028) (i32.const 16)) (i32.store (i32.const 1032) (i32.const 1)) (i32.const 1024)",
        )
    };
    let sandbox = sandbox().keeping_state_in(Arc::new(Memory::default()));
    let grants = Grants { state: true, ..Grants::default() };
    let compiled = sandbox.compile(&guest.validator(), IndexMap::new(), limits(), &grants, "guest", 1);
    let generation = Arc::new(compiled.expect("it compiles"));
    let command = |target: &str| GuestCommand {
        target: target.to_owned(),
        name: "reboot".to_owned(),
        payload: Bytes::new(),
        message_id: String::new(),
    };
    run(async {
        let pool = Pool::new();
        for (target, sum) in [("M-1", "1"), ("M-1", "2"), ("M-2", "1"), ("M-1", "3")] {
            assert_eq!(pool.validate(&generation, &command(target)).await, Ok(Ok(Bytes::from(sum))));
        }
    });
}
