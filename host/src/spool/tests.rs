use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use sluicegate_core::settings::ByteSize;
use sluicegate_core::spooled::{Body, Entry, Job, Line, Parked, Record};

use super::store::Store;
use super::{Spool, SpoolError, Waiting, look};
use crate::telemetry::causes::with_causes;

const MIB: u64 = 1 << 20;

fn list(name: &str) -> Line {
    Line::List { key: name.into(), low: false }
}

fn machine(name: &str) -> Line {
    Line::Machine { route: "r".into(), serial_no: name.into() }
}

fn record(line: &Line, number: u64, size: usize) -> Record {
    let payload = Bytes::from(vec![u8::try_from(number % 251).unwrap_or(0); size]);
    let body = match line {
        Line::List { .. } => {
            Body::Job(Job { route: None, dead: false, entries: vec![Entry { value: payload, once: None }] })
        }
        Line::Machine { .. } => {
            Body::Parked(Parked { topic: "t".into(), payload, properties: Vec::new(), received_at: 5, attempts: 1 })
        }
    };
    Record { line: line.clone(), number, at: 1_000_000, body }
}

fn open(folder: &Path) -> Store {
    Store::open(folder, ByteSize(MIB)).expect("opened").0
}

fn numbers(store: &mut Store, line: &Line) -> Vec<u64> {
    store.read(line, None, usize::MAX, usize::MAX).expect("read").iter().map(|record| record.number).collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// To which line, its number among a few so that some come out of order, and how large.
    Append(Vec<(usize, u64, usize)>),
    /// The first so many of a line.
    Done(usize, usize),
    /// The gateway dies and starts again.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 0..300_usize, 1 => 0..90_000_usize];
    prop::collection::vec(
        prop_oneof![
            6 => prop::collection::vec((0..4_usize, 0..500_u64, size), 1..12).prop_map(Step::Append),
            4 => (0..4_usize, 1..40_usize).prop_map(|(line, count)| Step::Done(line, count)),
            1 => Just(Step::Restart),
        ],
        1..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The model: a map. What was appended and is not done is there, in order, whole, over any restart; never more than the
    /// bound is on the disk.
    #[test]
    fn keeps_what_is_not_done_in_order_over_restarts(steps in steps()) {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = [list("a"), list("b"), machine("1"), machine("2")];
        let mut store = open(folder.path());
        let mut model: [BTreeMap<u64, Record>; 4] = Default::default();
        for step in steps {
            match step {
                Step::Append(wanted) => {
                    let mut new: Vec<(usize, Record)> = Vec::new();
                    for (index, number, size) in wanted {
                        let taken = model[index].contains_key(&number)
                            || new.iter().any(|(other, record)| *other == index && record.number == number);
                        if !taken {
                            new.push((index, record(&lines[index], number, size)));
                        }
                    }
                    match store.append(&new.iter().map(|(_, record)| record).collect::<Vec<_>>()) {
                        Ok(()) => model_extend(&mut model, new),
                        Err(SpoolError::Full(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                Step::Done(index, count) => {
                    let done: Vec<u64> = model[index].keys().take(count).copied().collect();
                    store.done(&lines[index], &done);
                    done.iter().for_each(|number| drop(model[index].remove(number)));
                }
                Step::Restart => {
                    drop(store);
                    let (depth, recovered) = look(folder.path()).expect("looked");
                    prop_assert_eq!(recovered.records, model.iter().map(BTreeMap::len).sum::<usize>());
                    store = open(folder.path());
                    prop_assert_eq!((store.depth().jobs, store.depth().parked), (depth.jobs, depth.parked));
                }
            }
            prop_assert!(store.depth().bytes <= MIB + MIB / 8 + 64, "{:?}", store.depth());
            for (line, model) in lines.iter().zip(&model) {
                let found = store.read(line, None, usize::MAX, usize::MAX).expect("read");
                prop_assert!(found.iter().eq(model.values()));
            }
        }
        for (line, model) in lines.iter().zip(&model) {
            store.done(line, &model.keys().copied().collect::<Vec<_>>());
        }
        drop(store);
        prop_assert_eq!(look(folder.path()).expect("looked").1.records, 0);
    }
}

fn model_extend(model: &mut [BTreeMap<u64, Record>; 4], new: Vec<(usize, Record)>) {
    for (index, record) in new {
        model[index].insert(record.number, record);
    }
}

#[test]
fn reads_behind_a_number_and_within_bounds() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    let records: Vec<Record> = (1..=10).map(|number| record(&list("a"), number, 100)).collect();
    store.append(&records.iter().collect::<Vec<_>>()).expect("appended");
    let read = |store: &mut Store, behind, count, bytes| -> Vec<u64> {
        store.read(&list("a"), behind, count, bytes).expect("read").iter().map(|record| record.number).collect()
    };
    assert_eq!(read(&mut store, None, 3, usize::MAX), [1, 2, 3]);
    assert_eq!(read(&mut store, Some(8), 9, usize::MAX), [9, 10]);
    assert_eq!(read(&mut store, Some(3), 9, 1), [4], "one at least");
    assert_eq!(read(&mut store, Some(3), 9, 300).len(), 2);
    assert!(read(&mut store, Some(10), 9, usize::MAX).is_empty());
}

#[test]
fn full_says_so_and_takes_again_once_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    let mut number = 0;
    let refused = loop {
        number += 1;
        if let Err(error) = store.append(&[&record(&list("a"), number, 10_000)]) {
            break error;
        }
    };
    assert!(matches!(refused, SpoolError::Full(_)), "{refused}");
    assert!(number > 80, "most of the bound is used: {number}");
    assert_eq!(numbers(&mut store, &list("a")).len() as u64, number - 1);
    store.done(&list("a"), &(1..30).collect::<Vec<_>>());
    store.append(&[&record(&list("a"), number, 10_000)]).expect("room again");
    drop(store);
    assert_eq!(numbers(&mut open(folder.path()), &list("a")), (30..=number).collect::<Vec<_>>());
}

#[test]
fn a_batch_that_does_not_fit_takes_no_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    let large: Vec<Record> = (0..20).map(|number| record(&list("a"), number, 90_000)).collect();
    let small: Vec<Record> = (0..6).map(|number| record(&list("b"), number, 90_000)).collect();
    for _ in 0..20 {
        let refused = store.append(&large.iter().collect::<Vec<_>>()).expect_err("more than the bound");
        assert!(matches!(refused, SpoolError::Full(_)), "{refused}");
    }
    store.append(&small.iter().collect::<Vec<_>>()).expect("room for these");
    drop(store);
    let mut store = open(folder.path());
    assert_eq!(numbers(&mut store, &list("b")), (0..6).collect::<Vec<_>>());
    assert!(numbers(&mut store, &list("a")).is_empty());
}

#[test]
fn few_old_records_do_not_hold_the_room_of_many() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    let mut kept = Vec::new();
    // Of every file one small record stays; without copying them together the spool would be full soon.
    for number in 0..2_000_u64 {
        let line = if number % 20 == 0 { machine("blocked") } else { list("a") };
        store.append(&[&record(&line, number, 10_000)]).unwrap_or_else(|error| panic!("record {number}: {error}"));
        if number % 20 == 0 {
            if kept.len() == 10 {
                store.done(&machine("blocked"), &[kept.remove(0)]);
            }
            kept.push(number);
        } else {
            store.done(&line, &[number]);
        }
    }
    drop(store);
    assert_eq!(numbers(&mut open(folder.path()), &machine("blocked")), kept);
}

#[test]
fn a_damaged_record_costs_itself_alone_and_the_file_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    let records: Vec<Record> = (1..=3).map(|number| record(&list("a"), number, 100)).collect();
    store.append(&records.iter().collect::<Vec<_>>()).expect("appended");
    drop(store);
    let file = folder.path().join("0000000001.segment");
    let mut bytes = std::fs::read(&file).expect("read");
    bytes[32 + 150 + 40] ^= 4;
    std::fs::write(&file, bytes).expect("written");
    let (mut store, recovered) = Store::open(folder.path(), ByteSize(MIB)).expect("opened");
    assert_eq!(recovered.records, 2);
    assert!(recovered.damaged > 0);
    assert_eq!(numbers(&mut store, &list("a")), [1, 3]);
    store.done(&list("a"), &[1, 3]);
    assert!(folder.path().join("0000000001.damaged").exists());
}

#[test]
fn one_folder_has_one_gateway() {
    let folder = tempfile::tempdir().expect("a folder");
    let _store = open(folder.path());
    assert!(matches!(Store::open(folder.path(), ByteSize(MIB)), Err(SpoolError::InUse(_))));
    assert!(matches!(look(folder.path()), Err(SpoolError::InUse(_))));
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let error = Store::open(&file.join("spool"), ByteSize(MIB)).expect_err("a file is no folder");
    let text = with_causes(&error);
    assert!(text.contains("file/spool") && text.contains("spool.path"), "{text}");
    assert_eq!(text.matches("Not a directory").count(), 1, "{text}");
}

#[tokio::test]
async fn many_at_once_are_answered_after_their_sync_and_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, writer, waiting, _) = Spool::open(folder.path(), ByteSize(64 * MIB)).expect("opened");
    assert!(waiting.is_empty());
    let appends = (0..500_u64).map(|number| spool.append(vec![record(&machine("1"), number, 50)]));
    for result in futures_util::future::join_all(appends).await {
        result.expect("appended");
    }
    assert_eq!(spool.read(&machine("1"), None, 1_000, usize::MAX).await.expect("open").len(), 500);
    spool.done(machine("1"), (0..100).collect()).await;
    drop(spool);
    writer.join().await.expect("an orderly end");
    let (_spool, _writer, waiting, recovered) = Spool::open(folder.path(), ByteSize(64 * MIB)).expect("opened again");
    assert_eq!(waiting, [Waiting { line: machine("1"), highest: 499, routes: vec![(Some("r".into()), 400)] }]);
    assert_eq!(recovered.records, 400);
}

#[test]
fn a_batch_that_is_larger_than_the_whole_spool_goes_part_by_part_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    let line = machine("m");
    let records: Vec<Record> = (1..=400).map(|number| record(&line, number, 8_000)).collect();
    let mut rest: Vec<&Record> = records.iter().collect();
    assert!(matches!(store.append(&rest), Err(SpoolError::Full(_))), "all or none");
    assert!(numbers(&mut store, &line).is_empty());
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (count, reason) = store.append_first(&rest).expect("an empty spool has room for one");
        assert_eq!(reason.is_some(), count < rest.len(), "what did not fit has a reason");
        rest.drain(..count);
        let there = numbers(&mut store, &line);
        assert_eq!(there.len(), count);
        store.done(&line, &there);
        seen.extend(there);
    }
    assert_eq!(seen, (1..=400).collect::<Vec<u64>>());
}
