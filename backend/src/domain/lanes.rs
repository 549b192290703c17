//! Which jobs go together, and which of them the database has already.
//!
//! A batch is the beginning of the processing list. Each of its jobs goes to the lane that its machine hashes to; a lane commits a part of
//! its jobs, from the front, in one transaction that also notes how far it came. The batch leaves the list once every lane is through, and
//! Redis notes its number in the same step. So of a batch that was under way when a process died it can be said, job for job, whether the
//! database has it: by the number in Redis, the notes in the database and the places in the list.

/// How far a lane came, as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Which lane.
    pub lane: u32,
    /// The last batch that it committed a part of.
    pub batch: u64,
    /// How many jobs that batch had, over all lanes.
    pub size: u32,
    /// How many lanes it was divided among.
    pub lanes: u32,
    /// How many of this lane's jobs are committed, or are dead letters.
    pub done: u32,
}

/// The lane of a machine: the same in every process and version (FNV-1a, mixed, since names that differ in their last digit alone would all
/// have the same upper half).
#[must_use]
pub fn of(serial_no: &str, lanes: u32) -> u32 {
    let hash = serial_no
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    u32::try_from((mixed >> 33) % u64::from(lanes.max(1))).unwrap_or_default()
}

/// The number that the next batch follows, and which places of the list's beginning are done.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    /// The last batch that is settled, once `done` is off the list.
    pub settled: u64,
    /// Places in the list, from 0, whose jobs the database has.
    pub done: Vec<usize>,
}

/// What a list says together with the database's notes. `settled` is Redis's number; none: it has none (yet, or any more). `machines` are
/// those of the list's jobs, in order.
#[must_use]
pub fn standing<'m>(settled: Option<u64>, notes: &[Progress], machines: impl IntoIterator<Item = &'m str>) -> Standing {
    let newest = notes.iter().map(|note| note.batch).max().unwrap_or_default();
    let base = settled.unwrap_or_default().max(newest);
    let mut done = Vec::new();
    // Any other number says that one of the two was set back: what the list has is taken as new then, and the unique keys must tell.
    let under_way = settled.and_then(|settled| settled.checked_add(1)).filter(|batch| *batch == newest);
    let parts: Vec<&Progress> = notes.iter().filter(|note| Some(note.batch) == under_way).collect();
    if let Some(first) = parts.first() {
        let mut left: Vec<(u32, u32)> = parts.iter().map(|note| (note.lane, note.done)).collect();
        for (place, machine) in machines.into_iter().enumerate().take(first.size as usize) {
            let lane = of(machine, first.lanes);
            if let Some((_, left)) = left.iter_mut().find(|(of, left)| *of == lane && *left > 0) {
                *left -= 1;
                done.push(place);
            }
        }
    }
    Standing { settled: base, done }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_machine_has_one_lane() {
        assert_eq!(of("M-001", 4), of("M-001", 4));
        assert_eq!(of("M-001", 1), 0);
        assert_eq!(of("M-001", 0), 0);
        let mut counts = [0_u32; 4];
        for machine in 0..1_000 {
            counts[of(&format!("M-{machine:04}"), 4) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?}");
    }

    #[test]
    fn one_of_the_two_was_set_back() {
        let note = Progress { lane: 0, batch: 9, size: 2, lanes: 1, done: 2 };
        let machines = || ["a", "b"].into_iter();
        assert_eq!(standing(Some(8), &[note], machines()), Standing { settled: 9, done: vec![0, 1] });
        assert_eq!(standing(Some(9), &[note], machines()), Standing { settled: 9, done: vec![] });
        assert_eq!(standing(Some(3), &[note], machines()), Standing { settled: 9, done: vec![] });
        assert_eq!(standing(Some(20), &[note], machines()), Standing { settled: 20, done: vec![] });
        assert_eq!(standing(None, &[note], machines()), Standing { settled: 9, done: vec![] });
        assert_eq!(standing(None, &[], machines()), Standing { settled: 0, done: vec![] });
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Push(u8),
        /// A lane commits so many more of its jobs.
        Commit(u32, u32),
        /// The batch leaves the list, where every lane is through.
        Settle,
        /// The process dies, and another reads what stands there, with so many lanes.
        Die(u32),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => (0..12_u8).prop_map(Event::Push),
            4 => (0..4_u32, 1..4_u32).prop_map(|(lane, jobs)| Event::Commit(lane, jobs)),
            2 => Just(Event::Settle),
            1 => (1..5_u32).prop_map(Event::Die),
        ];
        prop::collection::vec(event, 0..150)
    }

    /// One run of a process over the model's list.
    struct Run {
        lanes: u32,
        batch: u64,
        /// Jobs of the batch under way, by lane, and how many of each lane are committed.
        parts: BTreeMap<u32, (Vec<(usize, String)>, u32)>,
        size: u32,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// Whenever the process dies and however many lanes the next one has: every job is committed once, and a machine's in order.
        #[test]
        fn every_job_is_committed_once(events in events()) {
            let (mut list, mut notes, mut settled) = (Vec::<(usize, String)>::new(), BTreeMap::<u32, Progress>::new(), 0_u64);
            let mut committed: Vec<(usize, String)> = Vec::new();
            let mut run = Run { lanes: 3, batch: 0, parts: BTreeMap::new(), size: 0 };
            let mut pushed = 0;
            for event in events.into_iter().chain([Event::Die(2), Event::Settle]) {
                match event {
                    Event::Push(machine) => {
                        list.push((pushed, format!("M-{machine}")));
                        pushed += 1;
                    }
                    Event::Commit(lane, jobs) => {
                        if run.parts.is_empty() && !list.is_empty() {
                            run.batch = settled + 1;
                            run.size = u32::try_from(list.len().min(7)).expect("few");
                            for job in list.iter().take(7) {
                                run.parts.entry(of(&job.1, run.lanes)).or_default().0.push(job.clone());
                            }
                        }
                        if let Some((jobs_of_lane, done)) = run.parts.get_mut(&lane) {
                            for job in jobs_of_lane.iter().skip(*done as usize).take(jobs as usize) {
                                committed.push(job.clone());
                                *done += 1;
                            }
                            let note = Progress { lane, batch: run.batch, size: run.size, lanes: run.lanes, done: *done };
                            notes.insert(lane, note);
                        }
                    }
                    Event::Settle => {
                        let through = run.parts.values().all(|(jobs, done)| jobs.len() == *done as usize);
                        if through && !run.parts.is_empty() {
                            list.drain(..run.size as usize);
                            settled = run.batch;
                            run.parts.clear();
                        }
                    }
                    Event::Die(lanes) => {
                        let notes: Vec<Progress> = notes.values().copied().collect();
                        let machines: Vec<String> = list.iter().map(|(_, machine)| machine.clone()).collect();
                        let found = standing(Some(settled), &notes, machines.iter().map(String::as_str));
                        for place in found.done.iter().rev() {
                            list.remove(*place);
                        }
                        settled = found.settled;
                        run = Run { lanes, batch: 0, parts: BTreeMap::new(), size: 0 };
                    }
                }
            }
            committed.extend(list);
            let mut numbers: Vec<usize> = committed.iter().map(|(number, _)| *number).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..pushed).collect::<Vec<_>>());
            for machine in 0..12 {
                let name = format!("M-{machine}");
                let own: Vec<usize> = committed.iter().filter(|job| job.1 == name).map(|job| job.0).collect();
                prop_assert!(own.is_sorted(), "{own:?}");
            }
        }
    }
}
