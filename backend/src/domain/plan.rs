//! What a batch of jobs comes to: which rows are written, in as few statements as there are tables.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::alert::{Alert, Key, Kind};
use super::command::{Step, furthest};
use super::job::{Job, Sale, Work};
use super::stock::{Discrepancy, Slot, Taken, Wanted};

/// How far a gateway's clock may be ahead of this one's.
const AHEAD: SignedDuration = SignedDuration::from_mins(1);
/// The levels of errors, as the contract has them.
pub const LEVELS: [&str; 4] = ["info", "warning", "error", "critical"];

/// What becomes of a `type` that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownType {
    /// A row in the machine's log.
    Create,
    /// A dead letter.
    DeadLetter,
}

/// What becomes of a job of a machine that is not in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownMachine {
    /// The machine gets a row.
    Create,
    /// A dead letter.
    DeadLetter,
}

/// How jobs are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Types that nobody knows.
    pub unknown_types: UnknownType,
    /// Machines that nobody knows.
    pub unknown_machines: UnknownMachine,
    /// Levels of errors that people are told of.
    pub alert_levels: BTreeSet<String>,
    /// What a machine says of a sale that took nothing out of its slot.
    pub keeps_stock: BTreeSet<String>,
}

impl Rules {
    /// Whether people are told of an error of this level. A word that is none of the contract's counts as `error`: it may be worse.
    fn tells(&self, level: &str) -> bool {
        let known = LEVELS.contains(&level) || self.alert_levels.contains(level);
        self.alert_levels.contains(if known { level } else { "error" })
    }
}

/// The newest of a machine's heartbeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// When it was received.
    pub at: Timestamp,
    /// The last temperature that was told.
    pub temperature: Option<String>,
    /// The last page that was told.
    pub current_page: Option<i64>,
}

/// A row of a machine's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Whose.
    pub serial_no: String,
    /// How bad.
    pub level: String,
    /// The machine's code, or this program's.
    pub code: String,
    /// For people.
    pub message: String,
    /// Where in the machine.
    pub slot_no: Option<i64>,
    /// What came, as JSON.
    pub payload: String,
    /// When it was received.
    pub at: Timestamp,
}

/// A sale, once however often it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sold {
    /// Whose.
    pub serial_no: String,
    /// What the machine said.
    pub sale: Sale,
    /// When it was received.
    pub at: Timestamp,
    /// Whether its slot has less now.
    pub takes_stock: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Plan {
    /// The machines that must have a row, in order.
    pub machines: BTreeSet<String>,
    /// By machine.
    pub beats: BTreeMap<String, Beat>,
    /// In the order of arrival.
    pub logs: Vec<Log>,
    /// In the order of arrival, of each machine and id the first.
    pub sales: Vec<Sold>,
    /// By command.
    pub commands: Vec<Step>,
    /// What people are told of.
    pub alerts: Vec<Alert>,
    /// Places of jobs that are dead letters, with the reason.
    pub dead: Vec<(usize, String)>,
}

/// What the jobs come to, but those of the machines that are `strangers`: none has a row, and none is to get one. `amount` says how many
/// digits of an amount the database holds, all and behind the point.
#[must_use]
pub fn plan(
    jobs: &[Job],
    rules: &Rules,
    amount: Option<(usize, usize)>,
    strangers: &BTreeSet<String>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let (mut steps, mut seen) = (Vec::new(), HashSet::new());
    for (place, job) in jobs.iter().enumerate() {
        let about_a_machine = !matches!(job.work, Work::Command(_) | Work::Nothing);
        if about_a_machine && strangers.contains(&job.serial_no) {
            plan.dead.push((place, format!("no machine has the serial number `{}`", job.serial_no)));
            continue;
        }
        match &job.work {
            Work::Heartbeat(heartbeat) => {
                let told = Beat {
                    at: heard_at(job.received_at, now),
                    temperature: heartbeat.temperature.as_ref().map(ToString::to_string),
                    current_page: heartbeat.current_page,
                };
                match plan.beats.get_mut(&job.serial_no) {
                    Some(newest) => merge(newest, told),
                    None => {
                        plan.beats.insert(job.serial_no.clone(), told);
                    }
                }
            }
            Work::Error(error) => {
                if rules.tells(&error.level) {
                    plan.alerts.push(Alert {
                        key: key(&job.serial_no, Kind::Error, &error.code),
                        level: error.level.clone(),
                        message: error.message.clone(),
                        details: error.payload.clone(),
                    });
                }
                plan.logs.push(Log {
                    serial_no: job.serial_no.clone(),
                    level: error.level.clone(),
                    code: error.code.clone(),
                    message: error.message.clone(),
                    slot_no: error.slot_no,
                    payload: error.payload.clone(),
                    at: job.received_at,
                });
            }
            Work::Sale(sale) => {
                if let Some((precision, scale)) =
                    amount.filter(|(precision, scale)| !sale.amount.fits(*precision, *scale))
                {
                    let reason =
                        format!("`amount` is {}; the database holds decimal({precision},{scale})", sale.amount);
                    plan.dead.push((place, reason));
                    continue;
                }
                let keeps = sale.status.as_ref().is_some_and(|status| rules.keeps_stock.contains(status));
                if seen.insert((job.serial_no.as_str(), sale.transaction_id.as_str())) {
                    plan.sales.push(Sold {
                        serial_no: job.serial_no.clone(),
                        sale: sale.clone(),
                        at: job.received_at,
                        takes_stock: !keeps,
                    });
                }
            }
            Work::Command(step) => steps.push(step.clone()),
            Work::Nothing => {}
            Work::Unknown { kind, payload } => match rules.unknown_types {
                UnknownType::DeadLetter => {
                    plan.dead.push((place, format!("the type `{kind}` is none that this back end knows")));
                    continue;
                }
                UnknownType::Create => plan.logs.push(Log {
                    serial_no: job.serial_no.clone(),
                    level: "info".to_owned(),
                    code: kind.chars().take(64).collect(),
                    message: String::new(),
                    slot_no: None,
                    payload: payload.clone(),
                    at: job.received_at,
                }),
            },
        }
        if about_a_machine {
            plan.machines.insert(job.serial_no.clone());
        }
    }
    plan.commands = furthest(steps);
    plan
}

/// When a machine was heard. A time from a clock that is wrong would hold off every heartbeat until it is over: it counts as now.
fn heard_at(received_at: Timestamp, now: Timestamp) -> Timestamp {
    if received_at.duration_since(now) > AHEAD { now } else { received_at }
}

/// A later heartbeat, by its time, or by its place where both are of one second. What it does not say stays.
fn merge(newest: &mut Beat, told: Beat) {
    if told.at >= newest.at {
        let before = std::mem::replace(newest, told);
        newest.temperature = newest.temperature.take().or(before.temperature);
        newest.current_page = newest.current_page.or(before.current_page);
    } else {
        newest.temperature = newest.temperature.take().or(told.temperature);
        newest.current_page = newest.current_page.or(told.current_page);
    }
}

fn key(serial_no: &str, kind: Kind, code: &str) -> Key {
    Key { serial_no: serial_no.to_owned(), kind: kind.word(), code: code.to_owned() }
}

/// What is to be taken from which slots, for sales that are new.
#[must_use]
pub fn wanted(sales: &[Sold], machines: &HashMap<String, i64>) -> Vec<(usize, Wanted)> {
    let new = sales.iter().enumerate().filter(|(_, sold)| sold.takes_stock && sold.sale.quantity > 0);
    new.filter_map(|(place, sold)| {
        let slot: Slot = (*machines.get(&sold.serial_no)?, sold.sale.slot_no);
        Some((place, Wanted { slot, quantity: sold.sale.quantity }))
    })
    .collect()
}

/// Rows of the log and alerts for what does not add up. `places` are those of the wanted among the sales.
#[must_use]
pub fn discrepancies(taken: &Taken, places: &[usize], sales: &[Sold]) -> (Vec<Log>, Vec<Alert>) {
    let found = taken.discrepancies.iter().filter_map(|(place, what)| {
        let Sold { serial_no, sale, at, .. } = sales.get(*places.get(*place)?)?;
        let (code, message, stock) = match what {
            Discrepancy::NoSlot => {
                ("slot-unknown", format!("sold from slot {}, which the machine does not have", sale.slot_no), None)
            }
            Discrepancy::Short { stock } => (
                "stock-short",
                format!("sold {} from slot {}, which held {stock}", sale.quantity, sale.slot_no),
                Some(*stock),
            ),
        };
        let details = json!({
            "transaction_id": sale.transaction_id, "slot_no": sale.slot_no, "quantity": sale.quantity, "stock": stock,
        })
        .to_string();
        let log = Log {
            serial_no: serial_no.clone(),
            level: "warning".to_owned(),
            code: code.to_owned(),
            message: message.clone(),
            slot_no: Some(sale.slot_no),
            payload: details.clone(),
            at: *at,
        };
        // A slot is a matter of its own: each is told of.
        let alert = Alert {
            key: key(serial_no, Kind::Stock, &format!("{code}:{}", sale.slot_no)),
            level: "warning".to_owned(),
            message,
            details,
        };
        Some((log, alert))
    });
    found.unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decimal::Decimal;
    use crate::domain::job::{Heartbeat, Source, Types};

    fn rules() -> Rules {
        Rules {
            unknown_types: UnknownType::DeadLetter,
            unknown_machines: UnknownMachine::Create,
            alert_levels: ["error".to_owned()].into(),
            keeps_stock: ["failed".to_owned()].into(),
        }
    }

    fn plan_of(jobs: &[Job], rules: &Rules, amount: Option<(usize, usize)>) -> Plan {
        plan(jobs, rules, amount, &BTreeSet::new(), at("2026-04-14T09:01:00Z"))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn job(kind: &str, serial: &str, second: u8, payload: &str) -> Job {
        let raw = format!(
            r#"{{"type":"{kind}","serial_no":"{serial}","payload":{payload},"received_at":"2026-04-14T09:00:{second:02}Z"}}"#
        );
        Source::Jobs(Types::default()).read(raw.as_bytes()).expect("a job")
    }

    #[test]
    fn many_heartbeats_are_one_and_an_older_one_overwrites_nothing() {
        let jobs = [
            job("heartbeat", "A", 5, r#"{"temperature":5.0,"current_page":1}"#),
            job("heartbeat", "A", 9, r#"{"temperature":9.0}"#),
            job("heartbeat", "A", 7, r#"{"temperature":7.0,"current_page":7}"#),
            job("heartbeat", "B", 1, "{}"),
            job("heartbeat", "A", 9, r#"{"temperature":9.5}"#),
        ];
        let plan = plan_of(&jobs, &rules(), None);
        assert_eq!(plan.beats.len(), 2);
        let beat = &plan.beats["A"];
        assert_eq!(beat.at, jobs[1].received_at);
        assert_eq!((beat.temperature.as_deref(), beat.current_page), (Some("9.5"), Some(1)));
        assert_eq!(jobs[3].work, Work::Heartbeat(Heartbeat::default()));
    }

    /// Else the machine would be heard no more until the year is over.
    #[test]
    fn a_heartbeat_from_a_clock_that_is_wrong_is_of_now() {
        let beat = |received_at: &str| {
            let job = Job { received_at: at(received_at), ..job("heartbeat", "A", 1, "{}") };
            plan_of(&[job], &rules(), None).beats["A"].at
        };
        assert_eq!(beat("2027-04-14T09:00:00Z"), at("2026-04-14T09:01:00Z"));
        assert_eq!(beat("2026-04-14T09:02:00Z"), at("2026-04-14T09:02:00Z"));
        assert_eq!(beat("2026-04-13T09:00:00Z"), at("2026-04-13T09:00:00Z"));
    }

    #[test]
    fn a_sale_that_comes_twice_is_one() {
        let sale = |id: &str, amount: &str| format!(r#"{{"transaction_id":"{id}","slot_no":1,"amount":{amount}}}"#);
        let jobs = [
            job("transaction", "A", 1, &sale("T1", "1.10")),
            job("transaction", "A", 2, &sale("T1", "2.20")),
            job("transaction", "B", 2, &sale("T1", "3.30")),
        ];
        let plan = plan_of(&jobs, &rules(), None);
        assert_eq!(plan.sales.len(), 2);
        assert_eq!(Some(&plan.sales[0].sale.amount), Decimal::parse("1.10").as_ref());
    }

    #[test]
    fn an_amount_is_never_rounded() {
        let sale = |id: &str, amount: &str| {
            job("transaction", "A", 1, &format!(r#"{{"transaction_id":"{id}","slot_no":1,"amount":{amount}}}"#))
        };
        let jobs = [sale("T1", "1.10"), sale("T2", "1.105"), sale("T3", "123456789.00")];
        let plan = plan_of(&jobs, &rules(), Some((10, 2)));
        assert_eq!(plan.sales.len(), 1);
        assert_eq!(plan.dead[0], (1, "`amount` is 1.105; the database holds decimal(10,2)".to_owned()));
        assert_eq!(plan.dead[1].0, 2);
    }

    #[test]
    fn what_did_not_leave_its_slot_takes_no_stock() {
        let sale = r#"{"transaction_id":"T1","slot_no":1,"amount":1,"status":"failed"}"#;
        let plan = plan_of(&[job("transaction", "A", 1, sale)], &rules(), None);
        let sales = plan.sales;
        assert!(wanted(&sales, &HashMap::from([("A".to_owned(), 1)])).is_empty());
    }

    #[test]
    fn levels_say_whom_to_wake() {
        let jobs = [
            job("error", "A", 1, r#"{"error_code":"E1"}"#),
            job("error", "A", 1, r#"{"error_code":"E2","level":"info"}"#),
            job("error", "A", 1, r#"{"error_code":"E3","level":"fatal"}"#),
        ];
        let plan = plan_of(&jobs, &rules(), None);
        assert_eq!(plan.logs.len(), 3);
        assert_eq!(plan.alerts.iter().map(|alert| alert.key.code.as_str()).collect::<Vec<_>>(), ["E1", "E3"]);
        let of_its_own = Rules { alert_levels: ["fatal".to_owned()].into(), ..rules() };
        assert_eq!(plan_of(&jobs, &of_its_own, None).alerts[0].key.code, "E3");
    }

    #[test]
    fn what_nobody_knows_is_a_dead_letter_or_a_row() {
        let jobs = [
            job("door", "A", 1, "{}"),
            job("heartbeat", "S", 1, "{}"),
            job("command_ack", "S", 1, r#"{"message_id":"X"}"#),
        ];
        let strangers = BTreeSet::from(["S".to_owned()]);
        let now = at("2026-04-14T09:01:00Z");
        let planned = |unknown_types| plan(&jobs, &Rules { unknown_types, ..rules() }, None, &strangers, now);
        let dead = planned(UnknownType::DeadLetter);
        assert_eq!(dead.dead.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 1]);
        assert!(dead.machines.is_empty() && dead.commands.len() == 1);
        let kept = planned(UnknownType::Create);
        assert_eq!((kept.dead.len(), kept.logs[0].code.as_str()), (1, "door"));
    }

    #[test]
    fn what_does_not_add_up_is_logged_and_told() {
        let sale =
            |id: &str, slot: u8| format!(r#"{{"transaction_id":"{id}","slot_no":{slot},"amount":1,"quantity":2}}"#);
        let jobs = [job("transaction", "A", 1, &sale("T1", 1)), job("transaction", "A", 2, &sale("T2", 9))];
        let plan = plan_of(&jobs, &rules(), None);
        let sales = plan.sales;
        let wanted = wanted(&sales, &HashMap::from([("A".to_owned(), 7)]));
        let (places, wanted): (Vec<usize>, Vec<Wanted>) = wanted.into_iter().unzip();
        let taken = super::super::stock::take(&wanted, &BTreeMap::from([((7, 1), 1)]));
        let (logs, alerts) = discrepancies(&taken, &places, &sales);
        assert_eq!(logs.iter().map(|log| log.code.as_str()).collect::<Vec<_>>(), ["stock-short", "slot-unknown"]);
        assert_eq!(alerts[0].key.code, "stock-short:1");
        assert!(logs[0].message.contains("sold 2 from slot 1, which held 1"));
    }
}
