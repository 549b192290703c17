//! What was acknowledged to machines, against what the database has. The arithmetic has no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::load::{CODE, Said};
use super::rows::Rows;

/// What each machine's slot holds before the load.
pub(super) const STOCK: i64 = 1_000_000;
/// The most names in a line.
const NAMED: usize = 5;

/// What the database has, by serial number.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The newest heartbeat's number.
    pages: BTreeMap<String, u64>,
    stocks: BTreeMap<String, i64>,
    /// How often each stands there.
    transactions: BTreeMap<(String, String), u64>,
    errors: BTreeMap<(String, String), u64>,
}

/// What is wrong, each with the machine and the name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) lost: Vec<String>,
    pub(super) doubled: Vec<String>,
    /// Slots that hold more or less than the transactions left.
    pub(super) stock: Vec<String>,
}

impl Found {
    pub(super) async fn read(rows: &Rows) -> Result<Self, String> {
        let mut found = Self::default();
        let machines = "SELECT serial_no, CAST(current_page AS CHAR) FROM machines";
        for row in rows.texts(machines).await? {
            if let [serial_no, page] = &row[..]
                && let Ok(page) = page.parse()
            {
                found.pages.insert(serial_no.clone(), page);
            }
        }
        let slots =
            "SELECT m.serial_no, CAST(s.stock AS CHAR) FROM machine_slots s JOIN machines m ON m.id = s.machine_id";
        for row in rows.texts(slots).await? {
            if let [serial_no, stock] = &row[..]
                && let Ok(stock) = stock.parse()
            {
                found.stocks.insert(serial_no.clone(), stock);
            }
        }
        let sold = "SELECT m.serial_no, t.transaction_id FROM transactions t JOIN machines m ON m.id = t.machine_id";
        let errors = format!(
            "SELECT m.serial_no, l.message FROM machine_logs l JOIN machines m ON m.id = l.machine_id WHERE l.code = '{CODE}'"
        );
        for (sql, names) in [(sold, &mut found.transactions), (&errors, &mut found.errors)] {
            for row in rows.texts(sql).await? {
                if let [serial_no, name] = &row[..] {
                    *names.entry((serial_no.clone(), name.clone())).or_default() += 1;
                }
            }
        }
        Ok(found)
    }

    /// What is wrong with it.
    pub(super) fn compare(&self, said: &[Said]) -> Wrong {
        let mut wrong = Wrong::default();
        for machine in said {
            let serial_no = &machine.serial_no;
            let (acknowledged, sent) = machine.heartbeat;
            let page = self.pages.get(serial_no).copied().unwrap_or(0);
            // A newer one that was sent and not acknowledged may be there.
            if !(acknowledged..=sent).contains(&page) {
                wrong.lost.push(format!("{serial_no} heartbeat {acknowledged} (its row has {page})"));
            }
            let missing = |names: &BTreeSet<String>, found: &BTreeMap<(String, String), u64>| -> Vec<String> {
                let is_missing = |name: &&String| !found.contains_key(&(serial_no.clone(), (*name).clone()));
                names.iter().filter(is_missing).map(|name| format!("{serial_no} {name}")).collect()
            };
            wrong.lost.extend(missing(&machine.transactions, &self.transactions));
            wrong.lost.extend(missing(&machine.errors, &self.errors));
            let rows = self.transactions.iter().filter(|((serial, _), _)| serial == serial_no);
            let sold = i64::try_from(rows.map(|(_, times)| times).sum::<u64>()).unwrap_or(i64::MAX);
            let stock = self.stocks.get(serial_no).copied().unwrap_or(STOCK);
            if stock != STOCK - sold {
                wrong.stock.push(format!("{serial_no} holds {stock}, {sold} were sold of {STOCK}"));
            }
        }
        for ((serial_no, name), times) in self.transactions.iter().chain(&self.errors) {
            if *times > 1 {
                wrong.doubled.push(format!("{serial_no} {name} ({times} rows)"));
            }
        }
        wrong
    }
}

/// A number, and the first few names.
pub(super) fn named(all: &[String]) -> String {
    let more = if all.len() > NAMED { ", …" } else { "" };
    let first = all[..all.len().min(NAMED)].join(", ");
    if all.is_empty() { "0".to_owned() } else { format!("{}: {first}{more}", all.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Said {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Said {
            serial_no: "A".to_owned(),
            heartbeat: (6, 7),
            transactions: names(&["T-1", "T-6"]),
            errors: names(&["E-1"]),
            ..Said::default()
        }
    }

    fn found() -> Found {
        let key = |name: &str| ("A".to_owned(), name.to_owned());
        Found {
            pages: BTreeMap::from([("A".to_owned(), 6)]),
            stocks: BTreeMap::from([("A".to_owned(), STOCK - 2)]),
            transactions: BTreeMap::from([(key("T-1"), 1), (key("T-6"), 1)]),
            errors: BTreeMap::from([(key("E-1"), 1)]),
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Found), lost: &[&str], doubled: &[&str], stock: &[&str]) {
        let mut there = found();
        change(&mut there);
        let wrong = there.compare(&[said()]);
        assert_eq!((wrong.lost, wrong.doubled, wrong.stock), {
            let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
            (owned(lost), owned(doubled), owned(stock))
        });
    }

    #[test]
    fn what_is_missing_or_twice_there_is_named() {
        let key = |name: &str| ("A".to_owned(), name.to_owned());
        check(|_| {}, &[], &[], &[]);
        // One that was sent and not acknowledged may be there.
        check(|found| _ = found.pages.insert("A".to_owned(), 7), &[], &[], &[]);
        check(|found| _ = found.pages.insert("A".to_owned(), 5), &["A heartbeat 6 (its row has 5)"], &[], &[]);
        check(|found| found.pages.clear(), &["A heartbeat 6 (its row has 0)"], &[], &[]);
        check(|found| _ = found.errors.remove(&key("E-1")), &["A E-1"], &[], &[]);
        check(|found| _ = found.errors.insert(key("E-1"), 2), &[], &["A E-1 (2 rows)"], &[]);
        let short = "A holds 999998, 1 were sold of 1000000";
        check(|found| _ = found.transactions.remove(&key("T-6")), &["A T-6"], &[], &[short]);
        let long = "A holds 999997, 2 were sold of 1000000";
        check(|found| _ = found.stocks.insert("A".to_owned(), STOCK - 3), &[], &[], &[long]);
    }

    #[test]
    fn a_line_names_a_few() {
        assert_eq!(named(&[]), "0");
        let all: Vec<String> = (1..=7).map(|number| number.to_string()).collect();
        assert_eq!(named(&all), "7: 1, 2, 3, 4, 5, …");
    }
}
