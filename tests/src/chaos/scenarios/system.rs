//! What happens to the machine that the gateway runs on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{Scenario, scenario};
use crate::chaos::outcome::{Outcome, Promise};
use crate::chaos::stage::{JOBS, Setup, Stage, Trial};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("system-clock-jumps", clock_jumps, quick),
        scenario!("system-out-of-files", out_of_files, quick),
        scenario!("storm", storm),
    ]
}

/// The clock on the wall jumps back and forth, by up to ten days. Only what people read may notice.
async fn clock_jumps(trial: Trial) -> Outcome {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("time");
    set_clock(&file, 0);
    let environment = vec![
        ("LD_PRELOAD", faketime().to_string_lossy().into_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_string_lossy().into_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // Those that never jump do not.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let mut stage = Stage::set_up(trial, Setup { environment, ..Setup::default() }).await;
    for jump in 0..stage.trial.times(4, 20) {
        // Forth and back, each time to another day.
        let days = i64::try_from(jump % 5).expect("few") * 2 + if jump % 2 == 0 { 1 } else { -10 };
        let seconds = i64::try_from(stage.chance.number(0..86_400)).expect("a day");
        set_clock(&file, days * 86_400 + seconds);
        stage.chance.pause(50..500).await;
        stage.fleet.more(20).await;
        stage.balances().await;
        if stage.chance.number(0..4) == 0 {
            stage.to_redis.cut();
        }
    }
    let mut outcome = stage.settle(&Promise::ALWAYS).await;
    let days: BTreeSet<String> = stage.redis.list(JOBS).await.iter().filter_map(|job| day(job)).collect();
    if days.len() < 3 {
        outcome.wrong.push(format!("the clock did not jump: all was received on {days:?}"));
    }
    outcome
}

/// The day on which it was received.
fn day(job: &str) -> Option<String> {
    let job: serde_json::Value = serde_json::from_str(job).ok()?;
    Some(job["received_at"].as_str()?.split('T').next()?.to_owned())
}

fn set_clock(file: &Path, offset: i64) {
    let new = file.with_extension("new");
    fs::write(&new, format!("{offset:+}\n")).expect("written");
    fs::rename(new, file).expect("renamed");
}

/// The library that shows a process another time.
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a folder").filter_map(Result::ok);
    let found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.is_file());
    found.expect("libfaketime; install the package libfaketime")
}

/// No more files, sockets and connections for a while; with Redis away, so that the spool needs some, and with connections cut.
async fn out_of_files(trial: Trial) -> Outcome {
    // It says at this level alone why a later try failed, too.
    let environment = vec![("RUST_LOG", "info,sluicegate=debug".to_owned())];
    let mut stage = Stage::set_up(trial, Setup { environment, ..Setup::default() }).await;
    for _ in 0..stage.trial.times(1, 4) {
        let process = stage.gateway.process();
        // What is open stays so; what is opened anew has to get a low number.
        limit_files(process, stage.chance.number(4..9));
        stage.to_broker.cut();
        if stage.chance.number(0..2) == 0 {
            stage.to_redis.cut();
        } else {
            stage.redis.kill();
        }
        stage.chance.pause(300..2_500).await;
        limit_files(process, 1_024);
        stage.redis.kill();
        stage.redis.restart().await;
        stage.balances().await;
        stage.fleet.more(50).await;
    }
    stage.ready().await;
    let mut outcome = stage.settle(&Promise::ALWAYS).await;
    // EMFILE
    if !stage.gateway.log().contains("os error 24") {
        outcome.wrong.push("it never ran out of files: the scenario shows nothing".to_owned());
    }
    outcome
}

fn limit_files(process: u32, files: u64) {
    let arguments = [format!("--pid={process}"), format!("--nofile={files}:")];
    let status = Command::new("prlimit").args(arguments).status().expect("prlimit; install the package util-linux");
    assert!(status.success(), "prlimit failed");
}

/// Anything at any time: faults meet faults.
async fn storm(trial: Trial) -> Outcome {
    let mut stage = Stage::set(trial).await;
    for _ in 0..stage.trial.times(6, 25) {
        match stage.chance.number(0..9) {
            0 => stage.gateway.kill(),
            1 => stage.gateway.signal("STOP"),
            2 => stage.redis.kill(),
            3 => stage.redis.freeze(),
            4 => stage.to_broker.cut(),
            5 => stage.to_redis.cut(),
            6 => stage.to_redis.hold(),
            7 => stage.to_broker.hold(),
            _ => stage.to_redis.delay(stage.chance.clone().millis(1..100)),
        }
        stage.chance.pause(0..700).await;
        // Some of it ends before the next begins, the rest stands until something else ends it.
        if stage.chance.number(0..3) > 0 {
            calm(&mut stage).await;
        }
        if !stage.redis.runs() {
            stage.redis.restart().await;
        }
        if !stage.gateway.runs() {
            stage.gateway.spawn().await;
        }
    }
    calm(&mut stage).await;
    stage.to_redis.delay(std::time::Duration::ZERO);
    stage.ready().await;
    stage.settle(&Promise::ALWAYS).await
}

async fn calm(stage: &mut Stage) {
    stage.to_redis.release();
    stage.to_broker.release();
    if stage.redis.runs() {
        stage.redis.thaw();
    }
    if stage.gateway.runs() {
        stage.gateway.signal("CONT");
        stage.balances().await;
    }
}
