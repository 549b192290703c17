//! A batch of jobs, in one transaction: rows, stock, alerts, and how far the lane came. All of it or nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::Database;
use super::fault::Fault;
use super::session::{Session, Statement};
use super::statements::{MOST, Tongue, alerts, commands, machines, parts, progress, sales};
use crate::domain::alert::{self, Alert, Decision, Key, Known};
use crate::domain::job::Job;
use crate::domain::lanes::Progress;
use crate::domain::plan::{self, Plan, Rules, Sold, UnknownMachine};
use crate::domain::stock::{self, Slot, Wanted};

/// Which listener commits, and how far it came with this.
#[derive(Debug, Clone)]
pub struct Mark {
    /// The listener's name.
    pub listener: String,
    /// The epoch that it began under.
    pub epoch: i64,
    /// How far its lane is, once this is committed.
    pub progress: Progress,
}

/// A transaction that is ready: committed, all of it is so.
pub struct Ready {
    session: Session,
    /// Places of jobs that are dead letters, with the reason. They must be written down before the commit.
    pub dead: Vec<(usize, String)>,
}

impl Ready {
    /// Makes it so.
    ///
    /// # Errors
    /// [`Fault`]: whether it is so is unknown.
    pub async fn commit(self) -> Result<(), Fault> {
        self.session.commit().await
    }
}

/// What applying needs beside the jobs.
pub struct Applying<'a> {
    /// How jobs are taken.
    pub rules: &'a Rules,
    /// Of one machine, kind and code one alert is told in this time.
    pub window: Duration,
    /// Now.
    pub now: Timestamp,
}

/// Does all that jobs ask for, up to the commit. None: it was committed before, by an attempt whose answer did not come.
///
/// # Errors
/// [`Fault`]: nothing is done.
pub async fn apply(
    database: &Database,
    jobs: &[Job],
    mark: &Mark,
    with: &Applying<'_>,
) -> Result<Option<Ready>, Fault> {
    let mut session = database.begin().await?;
    let now = database.zone().write(with.now);
    let mut work = Work { database, session: &mut session, now: &now };
    if !work.note(mark).await? {
        return Ok(None);
    }
    let wanted: BTreeSet<&str> = jobs.iter().map(|job| job.serial_no.as_str()).collect();
    let mut known = work.find(&wanted).await?;
    let strangers: BTreeSet<String> = match with.rules.unknown_machines {
        UnknownMachine::Create => BTreeSet::new(),
        UnknownMachine::DeadLetter => {
            wanted.iter().filter(|wanted| !known.contains_key(**wanted)).map(ToString::to_string).collect()
        }
    };
    let mut plan = plan::plan(jobs, with.rules, database.amount(), &strangers, with.now);
    work.create(&plan, &mut known).await?;
    let (logs, found) = work.sell(&plan.sales, &known).await?;
    plan.logs.extend(logs);
    plan.alerts.extend(found);
    work.rows(&plan, &known).await?;
    work.alert(plan.alerts, with.window, with.now, Untold::Counts).await?;
    Ok(Some(Ready { session, dead: plan.dead }))
}

/// Notes alerts that no job brought, in their own transaction: those that may be told by now, which are given back. What waits for its window is not
/// counted either: whoever looks finds it again.
///
/// # Errors
/// [`Fault`]: nothing is done.
pub async fn note_alerts(
    database: &Database,
    session: &mut Session,
    alerts: Vec<Alert>,
    window: Duration,
    now: Timestamp,
) -> Result<HashSet<Key>, Fault> {
    let text = database.zone().write(now);
    Work { database, session, now: &text }.alert(alerts, window, now, Untold::Waits).await
}

/// What becomes of an alert whose window is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Untold {
    /// It is counted on the row.
    Counts,
    /// Nothing: it is found again.
    Waits,
}

/// The steps of one transaction.
struct Work<'a> {
    database: &'a Database,
    session: &'a mut Session,
    now: &'a str,
}

impl Database {
    /// From now on what a listener began is not committed any more. Gives the epoch that is in force now, and how far its lanes came. It
    /// gets rows for so many lanes, where it has none.
    ///
    /// # Errors
    /// [`Fault`]: it may be done.
    pub async fn fence(&self, listener: &str, lanes: u32, now: Timestamp) -> Result<(i64, Vec<Progress>), Fault> {
        let (tongue, now) = (self.tongue(), self.zone().write(now));
        let mut session = self.begin().await?;
        if lanes > 0 {
            session.execute(&progress::create(tongue, listener, lanes, &now)).await?;
        }
        session.execute(&progress::fence(tongue, listener)).await?;
        let (mut epoch, mut notes) = (0, Vec::new());
        for row in session.rows(&progress::read(tongue, listener)).await? {
            let small = |column| Ok::<_, Fault>(u32::try_from(row.must_int(column)?).unwrap_or_default());
            epoch = epoch.max(row.must_int(1)?);
            notes.push(Progress {
                lane: small(0)?,
                batch: u64::try_from(row.must_int(2)?).unwrap_or_default(),
                size: small(3)?,
                lanes: small(4)?,
                done: small(5)?,
            });
        }
        session.execute(&progress::level(tongue, listener, epoch)).await?;
        session.commit().await?;
        Ok((epoch, notes))
    }

    /// Its names and how it is spoken to.
    #[must_use]
    pub fn tongue(&self) -> Tongue<'_> {
        Tongue { names: self.names(), dialect: self.dialect() }
    }
}

impl Work<'_> {
    async fn execute(&mut self, statements: Vec<Statement>) -> Result<(), Fault> {
        for statement in statements {
            self.session.execute(&statement).await?;
        }
        Ok(())
    }

    /// First of all: where another has taken over, nothing else is tried. False: the lane is as far already.
    async fn note(&mut self, mark: &Mark) -> Result<bool, Fault> {
        let (tongue, Mark { listener, epoch, progress }) = (self.database.tongue(), mark);
        let note = progress::note(tongue, listener, *epoch, progress, self.now);
        if self.session.execute(&note).await? == 1 {
            return Ok(true);
        }
        for row in self.session.rows(&progress::read(tongue, listener)).await? {
            if row.must_int(0)? == i64::from(progress.lane) && row.must_int(1)? == *epoch {
                return Ok(false);
            }
        }
        Err(Fault::Fenced)
    }

    async fn find(&mut self, serial_nos: &BTreeSet<&str>) -> Result<HashMap<String, i64>, Fault> {
        let mut found = HashMap::with_capacity(serial_nos.len());
        let all: Vec<&str> = serial_nos.iter().copied().filter(|serial_no| !serial_no.is_empty()).collect();
        for part in all.chunks(MOST) {
            let statement = machines::find(self.database.tongue(), part.iter().copied());
            for row in self.session.rows(&statement).await? {
                found.insert(row.must_text(1)?, row.must_int(0)?);
            }
        }
        Ok(found)
    }

    async fn create(&mut self, plan: &Plan, known: &mut HashMap<String, i64>) -> Result<(), Fault> {
        let new: BTreeSet<&str> =
            plan.machines.iter().map(String::as_str).filter(|serial_no| !known.contains_key(*serial_no)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let all: Vec<&str> = new.iter().copied().collect();
        for part in parts(&all) {
            self.session.execute(&machines::create(self.database.tongue(), part.iter().copied(), self.now)).await?;
        }
        known.extend(self.find(&new).await?);
        // A collation may take two serial numbers for one.
        match new.iter().find(|serial_no| !known.contains_key(**serial_no)) {
            Some(lost) => Err(Fault::Refused(format!(
                "the machine `{lost}` gets no row: another has a name that the database takes for the same; a binary collation that heeds blanks at the \
                 end (utf8mb4_nopad_bin on MariaDB, utf8mb4_0900_bin on MySQL 8) tells them apart"
            ))),
            None => Ok(()),
        }
    }

    /// Transactions that are new, and what they take; what does not add up.
    async fn sell(
        &mut self,
        sold: &[Sold],
        known: &HashMap<String, i64>,
    ) -> Result<(Vec<plan::Log>, Vec<Alert>), Fault> {
        let tongue = self.database.tongue();
        let mut new = Vec::with_capacity(sold.len());
        for part in parts(sold) {
            match self.insert(part, known).await {
                Ok(()) => new.extend_from_slice(part),
                // The statement alone was undone: some are there already.
                Err(Fault::Conflict(_)) => {
                    let others = self.not_there(part, known).await?;
                    for part in parts(&others) {
                        self.insert(part, known).await?;
                    }
                    new.extend(others);
                }
                Err(fault) => return Err(fault),
            }
        }
        let (places, wanted): (Vec<usize>, Vec<Wanted>) = plan::wanted(&new, known).into_iter().unzip();
        let slots: BTreeSet<Slot> = wanted.iter().map(|wanted| wanted.slot).collect();
        let mut held = BTreeMap::new();
        for statement in sales::stock(tongue, &slots) {
            for row in self.session.rows(&statement).await? {
                held.insert((row.must_int(0)?, row.must_int(1)?), row.int(2)?.unwrap_or_default());
            }
        }
        let taken = stock::take(&wanted, &held);
        self.execute(sales::take(tongue, &taken.slots, self.now)).await?;
        Ok(plan::discrepancies(&taken, &places, &new))
    }

    async fn insert(&mut self, sold: &[Sold], known: &HashMap<String, i64>) -> Result<(), Fault> {
        match sales::sales(self.database.tongue(), self.database.zone(), sold, known, self.now) {
            Some(statement) => self.session.execute(&statement).await.map(drop),
            None => Ok(()),
        }
    }

    /// Those that have no row yet.
    async fn not_there(&mut self, sold: &[Sold], known: &HashMap<String, i64>) -> Result<Vec<Sold>, Fault> {
        let mut there = HashSet::new();
        for statement in sales::known(self.database.tongue(), sold, known) {
            for row in self.session.rows(&statement).await? {
                there.insert((row.must_int(0)?, row.must_text(1)?));
            }
        }
        let is_there = |sold: &Sold| {
            known.get(&sold.serial_no).is_some_and(|id| there.contains(&(*id, sold.sale.transaction_id.clone())))
        };
        Ok(sold.iter().filter(|sold| !is_there(sold)).cloned().collect())
    }

    async fn rows(&mut self, plan: &Plan, known: &HashMap<String, i64>) -> Result<(), Fault> {
        let (tongue, zone) = (self.database.tongue(), self.database.zone());
        self.execute(machines::logs(tongue, zone, &plan.logs, known, self.now)).await?;
        for step in &plan.commands {
            self.session.execute(&commands::step(tongue, zone, step, self.now)).await?;
        }
        // Last, so that what other transactions wait for is held the shortest.
        self.execute(machines::beats(tongue, zone, &plan.beats, known, self.now)).await?;
        Ok(())
    }

    /// Gives back those that will be told.
    async fn alert(
        &mut self,
        alerts: Vec<Alert>,
        window: Duration,
        now: Timestamp,
        untold: Untold,
    ) -> Result<HashSet<Key>, Fault> {
        let gathered = alert::gather(alerts);
        let tongue = self.database.tongue();
        let keys: Vec<&Key> = gathered.keys().collect();
        let mut known: HashMap<Key, Known> = HashMap::new();
        for part in keys.chunks(MOST) {
            for row in self.session.rows(&alerts::find(tongue, part.iter().copied())).await? {
                let (serial_no, kind, code) = (row.must_text(1)?, row.must_text(2)?, row.must_text(3)?);
                let Some(kind) = part.iter().map(|key| key.kind).find(|known| *known == kind) else { continue };
                let time = |column| Ok::<_, Fault>(row.text(column)?.and_then(|text| self.database.zone().read(&text)));
                let (raised_at, told_at) = (time(5)?.unwrap_or_default(), time(6)?);
                let pending = row.must_text(4)? == alerts::PENDING;
                known
                    .insert(Key { serial_no, kind, code }, Known { id: row.must_int(0)?, pending, raised_at, told_at });
            }
        }
        let (mut new, mut raised) = (Vec::new(), HashSet::new());
        for (key, (alert, times)) in gathered {
            let statement = match alert::decide(known.get(&key).copied(), now, window) {
                Decision::Raise => {
                    raised.insert(key);
                    new.push((alert, times));
                    continue;
                }
                Decision::Again(id) => {
                    raised.insert(key);
                    alerts::again(tongue, id, &alert, times, self.now)
                }
                Decision::Count(_) if untold == Untold::Waits => continue,
                Decision::Count(id) => alerts::count(tongue, id, times, self.now),
            };
            self.session.execute(&statement).await?;
        }
        for part in parts(&new) {
            self.session.execute(&alerts::raise(tongue, part, self.now)).await?;
        }
        Ok(raised)
    }
}
