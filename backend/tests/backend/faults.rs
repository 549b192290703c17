//! Processes and servers die, hang and come back: every job is in the database once.

use std::time::{Duration, Instant};

use sluicegate_tests::eventually;

use crate::on_both;
use crate::stage::{Backend, JOBS, Stage, job, sale};

on_both!(
    killed_at_random_moments_under_load_loses_and_doubles_nothing,
    of_two_with_one_name_under_load_nothing_is_lost_or_doubled,
    what_a_dead_instance_left_is_taken_over_once,
    one_that_was_paused_past_its_lease_commits_nothing_that_was_taken_over,
    an_orderly_end_leaves_what_is_not_begun_to_others,
    redis_restarts_under_load_and_nothing_is_lost_or_doubled,
    while_the_database_is_away_jobs_stay_in_redis,
);

const MACHINES: usize = 12;
const STOCK: u32 = 1_000;

/// Sales and errors of a few machines: of each job it can be said whether it is a row, and how often.
fn load(from: usize, count: usize) -> Vec<String> {
    (from..from + count)
        .map(|number| {
            let machine = format!("M-{:02}", number % MACHINES);
            match number % 3 {
                0 => job("error", &machine, 0, &format!(r#"{{"error_code":"{number:05}"}}"#)),
                _ => sale(&machine, &format!("T{number:05}"), 1 + u32::try_from(number % 2).expect("small"), "1.25"),
            }
        })
        .collect()
}

async fn ready(stage: &mut Stage) {
    for machine in 0..MACHINES {
        stage.machine(&format!("M-{machine:02}"), 2, STOCK).await;
    }
}

/// Every job is a row, once, and the stock is what is left.
async fn exact(stage: &mut Stage, jobs: usize) {
    stage.all_taken().await;
    let errors: Vec<String> = (0..jobs).filter(|number| number % 3 == 0).map(|number| format!("{number:05}")).collect();
    let sales: Vec<String> = (0..jobs).filter(|number| number % 3 != 0).map(|number| format!("T{number:05}")).collect();
    assert_eq!(stage.rows("SELECT code FROM machine_logs ORDER BY code").await, errors);
    assert_eq!(stage.rows("SELECT transaction_id FROM transactions ORDER BY transaction_id").await, sales);
    let left = MACHINES * 2 * STOCK as usize - sales.len();
    assert_eq!(stage.rows("SELECT CAST(SUM(stock) AS CHAR) FROM machine_slots").await, [left.to_string()]);
    assert_eq!(stage.count("machine_logs WHERE code LIKE 'stock%'").await, 0);
}

/// A number that differs from run to run, and is told where the test fails.
fn chance(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

async fn killed_at_random_moments_under_load_loses_and_doubles_nothing(stage: Stage) {
    let mut stage = stage.with("[listener]\nbatch = 40\nalert_levels = []");
    ready(&mut stage).await;
    let mut seed = u64::from(std::process::id()) * 2 + 1;
    println!("seed {seed}");
    let (mut pushed, mut kills) = (0, 0);
    let began = Instant::now();
    while pushed < 3_000 {
        let mut backend = stage.start("b1");
        // Some die before they took anything, some in the middle of a batch.
        let until = stage.count("transactions").await + chance(&mut seed) % 200;
        stage.push(&load(pushed, 300)).await;
        pushed += 300;
        let enough = async { while stage.count("transactions").await < until {} };
        let _ = tokio::time::timeout(Duration::from_secs(10), enough).await;
        backend.kill();
        kills += 1;
    }
    println!("{kills} kills in {:?}", began.elapsed());
    let _last = stage.start("b1");
    exact(&mut stage, pushed).await;
}

/// Two hosts with the default name, or a restart that overlaps: the older goes on until its lease's next renewal says that a newer has it.
async fn of_two_with_one_name_under_load_nothing_is_lost_or_doubled(stage: Stage) {
    let mut stage = stage.with("[listener]\nbatch = 20\nalert_levels = []");
    ready(&mut stage).await;
    let mut backends = vec![stage.start_named("first", "b1")];
    let mut pushed = 0;
    for file in ["second", "third", "fourth"] {
        let before = stage.count("transactions").await;
        stage.push(&load(pushed, 500)).await;
        pushed += 500;
        let some = format!("CAST(COUNT(*) > {before} AS CHAR) FROM transactions");
        stage.has(&format!("SELECT {some}"), &["1"]).await;
        let newer = stage.start_named(file, "b1");
        newer.logged("the listener takes jobs").await;
        backends.push(newer);
    }
    exact(&mut stage, pushed).await;
    let said = "a newer process has this instance's name";
    let superseded =
        async || (backends.iter().filter(|backend| backend.log().contains(said)).count() == 3).then_some(());
    eventually("all but one know that they are not the newest", superseded).await;
}

/// Waits until an instance is in the middle of something; one that was faster than the look is through with it.
async fn in_the_middle(stage: &Stage, instance: &str) {
    eventually("jobs stand in its processing list", async || {
        let key = format!("LLEN {{mqtt_incoming_jobs}}:processing:{instance}");
        let processing = stage.redis.ask::<u64>(&key).await.ok()?;
        let waiting = stage.redis.ask::<u64>(&format!("LLEN {JOBS}")).await.ok()?;
        (processing > 0 || waiting == 0).then_some(())
    })
    .await;
}

/// A back end that has its lease and its connections: one job went all the way.
async fn begun(stage: &mut Stage) -> Backend {
    let backend = stage.start("b1");
    stage.push(&[job("heartbeat", "M-00", 0, "{}")]).await;
    stage.has("SELECT CAST(COUNT(last_heard_at) AS CHAR) FROM machines", &["1"]).await;
    stage.all_taken().await;
    backend
}

/// Two back ends; the first is in the middle of a batch, which the database holds up.
async fn one_holds(stage: &mut Stage, jobs: usize) -> (Backend, Held) {
    let backend = begun(stage).await;
    let held = Held::all(stage).await;
    stage.push(&load(0, jobs)).await;
    in_the_middle(stage, "b1").await;
    (backend, held)
}

/// Nobody else writes while this lives.
struct Held(Option<sluicegate_backend::database::session::Session>);

impl Held {
    async fn all(stage: &mut Stage) -> Self {
        let database = stage.database().await;
        let mut session = database.begin().await.expect("a transaction");
        let sql = "UPDATE listener_progress SET size = size".to_owned();
        let statement = sluicegate_backend::database::session::Statement { sql, values: Vec::new() };
        session.execute(&statement).await.expect("its rows are held");
        Self(Some(session))
    }

    fn let_go(&mut self) {
        self.0.take();
    }
}

async fn what_a_dead_instance_left_is_taken_over_once(stage: Stage) {
    let mut stage = stage.with("[listener]\nbatch = 40\nalert_levels = []");
    ready(&mut stage).await;
    let (mut first, mut held) = one_holds(&mut stage, 600).await;
    first.kill();
    held.let_go();
    let second = stage.start("b2");
    second.logged("took over the jobs of an instance whose lease ran out").await;
    exact(&mut stage, 600).await;
}

async fn one_that_was_paused_past_its_lease_commits_nothing_that_was_taken_over(stage: Stage) {
    let mut stage = stage.with("[listener]\nbatch = 40\nalert_levels = []");
    ready(&mut stage).await;
    let (first, mut held) = one_holds(&mut stage, 600).await;
    first.freeze().await;
    held.let_go();
    let second = stage.start("b2");
    second.logged("took over the jobs of an instance whose lease ran out").await;
    first.thaw();
    stage.push(&load(600, 300)).await;
    exact(&mut stage, 900).await;
    first.logged("the lease of this instance had run out").await;
}

async fn an_orderly_end_leaves_what_is_not_begun_to_others(stage: Stage) {
    let mut stage = stage.with("[listener]\nbatch = 40\nalert_levels = []");
    ready(&mut stage).await;
    let mut first = begun(&mut stage).await;
    stage.push(&load(0, 1_500)).await;
    in_the_middle(&stage, "b1").await;
    assert!(first.stop().await.success(), "{}", first.log());
    let standing: u64 = stage.redis.ask("LLEN {mqtt_incoming_jobs}:processing:b1").await.expect("a length");
    assert_eq!(standing, 0, "nothing stays in the list of one that is gone");
    let _second = stage.start("b2");
    exact(&mut stage, 1_500).await;
}

async fn redis_restarts_under_load_and_nothing_is_lost_or_doubled(stage: Stage) {
    let mut stage = stage.with("[listener]\nbatch = 40\nalert_levels = []");
    ready(&mut stage).await;
    let _backend = begun(&mut stage).await;
    for round in 0..4 {
        stage.push(&load(round * 300, 300)).await;
        in_the_middle(&stage, "b1").await;
        stage.redis.kill();
        stage.redis.restart().await;
    }
    exact(&mut stage, 1_200).await;
}

async fn while_the_database_is_away_jobs_stay_in_redis(stage: Stage) {
    let mut stage = stage.with("[listener]\nbatch = 40\nalert_levels = []\n[database]\ntimeout = \"2s\"");
    ready(&mut stage).await;
    let backend = begun(&mut stage).await;
    stage.push(&load(0, 300)).await;
    if stage.is_mariadb() {
        // Once it dies, once it hangs.
        in_the_middle(&stage, "b1").await;
        stage.mariadb.as_mut().expect("it").kill();
        stage.push(&load(300, 300)).await;
        backend.logged("writing jobs to the database").await;
        stage.mariadb.as_mut().expect("it").restart().await;
        stage.all_taken().await;
        stage.mariadb.as_ref().expect("it").freeze();
        stage.push(&load(600, 300)).await;
        backend.logged("no answer within 2s").await;
        stage.mariadb.as_ref().expect("it").thaw();
    } else {
        // Another program writes for a long time.
        let mut held = Held::all(&mut stage).await;
        stage.push(&load(300, 600)).await;
        backend.logged("writing jobs to the database").await;
        held.let_go();
    }
    exact(&mut stage, 900).await;
    assert!(stage.redis.list(crate::stage::LETTERS).await.is_empty(), "no job is to blame");
}

/// MySQL and MariaDB commit each statement that makes a table: what a kill leaves is half of them.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_half_made_are_made_to_the_end() {
    let mut stage = Stage::mariadb().await;
    let database = stage.database().await;
    stage.execute("DROP TABLE machine_alerts").await;
    stage.execute("UPDATE sluicegate_backend_migrations SET success = FALSE").await;
    let mut backend = stage.start("b1");
    backend.logged("the listener takes jobs").await;
    assert_eq!(stage.count("machine_alerts").await, 0);
    assert_eq!(stage.count("sluicegate_backend_migrations WHERE success = TRUE").await, 1);
    backend.kill();
    // Made with other names: nobody can mend that but people, who are told how.
    stage.execute("UPDATE sluicegate_backend_migrations SET checksum = 'another'").await;
    let why = database.migrate().await.expect_err("they are others").to_string();
    assert!(why.contains("set database.migrate = false") && why.contains("sluicegate_backend_migrations"), "{why}");
}
