//! Each case by itself: exactly what must become of it.

use std::time::Instant;

use sluicegate_hostile::alone;
use sluicegate_hostile::corpus;
use sluicegate_hostile::table::{self, Row};

#[test]
fn each_case_ends_as_it_must() {
    let _alone = crate::alone();
    let cases = corpus::all();
    let folder = tempfile::tempdir().expect("a folder");
    let row = |case| {
        let began = Instant::now();
        let is = alone::outcome(case, folder.path());
        let must = &case.must;
        let good = alone::is_so(must, &is);
        Row { case, must, is, good, note: format!("{:.0?}", began.elapsed()) }
    };
    let rows: Vec<Row<'_>> = cases.iter().map(row).collect();
    println!("{}", table::show(&rows));
    let wrong: Vec<&str> = rows.iter().filter(|row| !row.good).map(|row| row.case.name.as_str()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
