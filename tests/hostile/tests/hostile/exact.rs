//! Each case by itself: exactly what must become of it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use sluicegate_hostile::alone;
use sluicegate_hostile::case::{Case, Must};
use sluicegate_hostile::corpus;
use sluicegate_hostile::laws;
use sluicegate_hostile::table::{self, Row};

/// Most of them wait for a deadline, or for another attempt.
const AT_ONCE: usize = 4;

#[test]
fn each_case_ends_as_it_must() {
    let _alone = crate::alone();
    let only = std::env::var("HOSTILE").unwrap_or_default();
    let cases: Vec<Case> =
        corpus::all().into_iter().filter(|case| case.name.contains(&only) && !case.only_in_gateway).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let next = AtomicUsize::new(0);
    let work = || {
        let mut rows = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            rows.push(row(case, folder.path()));
        }
        rows
    };
    let rows: Vec<Row<'_>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("its rows")).collect()
    });
    println!("{}", table::show(&rows));
    for row in &rows {
        if let Must::Refused(_, reason) = &row.is {
            assert!(laws::is_readable(reason), "{}: {} bytes: {reason:.400?}", row.case.name, reason.len());
        }
    }
    let wrong: Vec<&str> = rows.iter().filter(|row| !row.good).map(|row| row.case.name.as_str()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let mut names: Vec<String> = corpus::all().into_iter().map(|case| case.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count >= 60, "{count}");
}

fn row<'a>(case: &'a Case, folder: &Path) -> Row<'a> {
    let began = Instant::now();
    let (must, is) = (&case.must, alone::outcome(case, folder));
    Row { case, must, good: alone::is_so(must, &is), is, note: format!("{:.0?}", began.elapsed()) }
}
