//! Each case by itself: exactly what must become of it.

use std::path::Path;
use std::time::Instant;

use sluicegate_hostile::alone;
use sluicegate_hostile::case::Case;
use sluicegate_hostile::corpus;
use sluicegate_hostile::table::{self, Row};

#[test]
fn each_case_ends_as_it_must() {
    let _alone = crate::alone();
    let only = std::env::var("HOSTILE").unwrap_or_default();
    let cases: Vec<_> = corpus::all().into_iter().filter(|case| case.name.contains(&only)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let rows: Vec<Row<'_>> = cases.iter().map(|case| row(case, folder.path())).collect();
    println!("{}", table::show(&rows));
    let wrong: Vec<&str> = rows.iter().filter(|row| !row.good).map(|row| row.case.name.as_str()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn row<'a>(case: &'a Case, folder: &Path) -> Row<'a> {
    eprintln!("{}", case.name);
    let began = Instant::now();
    let (must, is) = (&case.must, alone::outcome(case, folder));
    Row { case, must, good: alone::is_so(must, &is), is, note: format!("{:.0?}", began.elapsed()) }
}
