//! What happens to the spool's disk, files and folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Scenario, scenario};
use crate::chaos::load::Load;
use crate::chaos::outcome::{Outcome, Promise};
use crate::chaos::spooled;
use crate::chaos::stage::{Setup, Stage, Trial};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("spool-disk-full", disk_full),
        scenario!("spool-torn-write", torn_write, quick),
        scenario!("spool-flipped-bits", flipped_bits, quick),
        scenario!("spool-truncated", truncated),
        scenario!("spool-unreadable", unreadable, quick),
    ]
}

/// The disk is full while Redis is away: acknowledging stops, the broker keeps what comes.
async fn disk_full(trial: Trial) -> Outcome {
    let setup = Setup {
        // The broker has no more under way than there is room for twice: what it sends in vain takes its time.
        mqtt: "in_flight_bytes = \"2MiB\"\nreceive_maximum = 100",
        // Room for one file.
        disk: Some("9m"),
        load: Load { every: 10..60, padding: 15_000..40_000, ..Load::default() },
        ..Setup::default()
    };
    let mut stage = Stage::set_up(trial, setup).await;
    stage.redis.kill();
    stage.gateway.says("no room on the disk").await;
    stage.balances().await;
    stage.chance.pause(0..1_500).await;
    stage.fleet.pause();
    stage.redis.restart().await;
    stage.balances().await;
    stage.settle(&Promise::ALWAYS).await
}

/// With a spool that holds messages, and a gateway that is gone.
async fn with_a_spool(trial: Trial) -> Stage {
    let mut stage = Stage::set(trial).await;
    stage.redis.kill();
    stage.fleet.more(150).await;
    stage.fleet.pause();
    stage.at_rest().await;
    // The file stays as long as a crash leaves it.
    stage.gateway.kill();
    stage
}

/// Starts the gateway again, with more to do, and Redis behind it.
async fn go_on(stage: &mut Stage) {
    stage.gateway.spawn().await;
    stage.fleet.resume();
    stage.redis.restart().await;
    stage.balances().await;
    stage.fleet.more(50).await;
}

/// The machine stopped in the midst of a write that was not synced: nobody was told of it, and nothing is lost.
async fn torn_write(trial: Trial) -> Outcome {
    let mut stage = with_a_spool(trial).await;
    let files = spooled::read(&stage.gateway.path("spool"));
    let last = files.last().expect("a file");
    let mut bytes = last.bytes.clone();
    let record = &last.records[last.records.len() - 1];
    let whole = last.bytes[record.at..last.end].to_vec();
    let written = usize::try_from(stage.chance.number(1..whole.len() as u64 - 4)).expect("a small number");
    if stage.chance.number(0..2) == 0 {
        // The file ends there.
        bytes.truncate(last.end);
        bytes.extend(&whole[..written]);
    } else {
        // The file has its size, and zeros behind.
        bytes[last.end..last.end + written].copy_from_slice(&whole[..written]);
    }
    fs::write(&last.path, bytes).expect("written");
    go_on(&mut stage).await;
    let mut outcome = stage.settle(&Promise::ALWAYS).await;
    if !stage.gateway.log().contains("a write that never ended") {
        outcome.wrong.push("the log does not tell of the write that never ended".to_owned());
    }
    outcome
}

/// The disk gives back other bits than were written: what is whole arrives, the damage is told, the file is kept.
async fn flipped_bits(trial: Trial) -> Outcome {
    let mut stage = with_a_spool(trial).await;
    for file in spooled::read(&stage.gateway.path("spool")) {
        let mut bytes = file.bytes.clone();
        for _ in 0..5 {
            // Not the last one: behind that there is nothing that shows that it was ever whole.
            let place = usize::try_from(stage.chance.number(0..file.records.len() as u64 - 1)).expect("a small number");
            let record = &file.records[place];
            let byte = stage.chance.number(record.at as u64 + 1..record.body.end as u64);
            bytes[usize::try_from(byte).expect("a small number")] ^= 1 << stage.chance.number(0..8);
            stage.fleet.ledger().forgive(&record.key);
        }
        fs::write(&file.path, bytes).expect("written");
    }
    go_on(&mut stage).await;
    let mut outcome = stage.settle(&Promise::ALWAYS).await;
    if !stage.gateway.log().contains("a part of the spool is damaged") {
        outcome.wrong.push("the log does not tell of the damage".to_owned());
    }
    if !keeps_a_damaged_file(&stage.gateway.path("spool")) {
        outcome.wrong.push("the damaged file is not kept".to_owned());
    }
    outcome
}

fn keeps_a_damaged_file(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).expect("the spool's folder");
    entries.any(|entry| entry.is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "damaged")))
}

/// A file lost its end, although it was synced: what stands before it arrives.
async fn truncated(trial: Trial) -> Outcome {
    let mut stage = with_a_spool(trial).await;
    let files = spooled::read(&stage.gateway.path("spool"));
    let last = files.last().expect("a file");
    let first = usize::try_from(stage.chance.number(0..last.records.len() as u64)).expect("a small number");
    let cut = stage.chance.number(last.records[first].at as u64..last.records[first].body.end as u64);
    for record in &last.records[first..] {
        stage.fleet.ledger().forgive(&record.key);
    }
    fs::write(&last.path, &last.bytes[..usize::try_from(cut).expect("a small number")]).expect("written");
    go_on(&mut stage).await;
    stage.settle(&Promise::ALWAYS).await
}

/// The spool's folder cannot be read: the gateway says so, ends, and acknowledges nothing meanwhile.
async fn unreadable(trial: Trial) -> Outcome {
    let mut stage = with_a_spool(trial).await;
    let folder = stage.gateway.path("spool");
    let allow = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("its own folder");
    allow(0);
    stage.fleet.resume();
    stage.fleet.more(30).await;
    stage.gateway.without_override(true);
    stage.gateway.launch();
    let status = stage.gateway.ended().await;
    let log = stage.gateway.log();
    allow(0o700);
    stage.gateway.without_override(false);
    go_on(&mut stage).await;
    let mut outcome = stage.settle(&Promise::ALWAYS).await;
    if status.success() || !log.contains("the spool's folder") {
        outcome.wrong.push(format!("no refusal that names the spool's folder ({status}): {log}"));
    }
    outcome
}
