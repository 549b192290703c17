//! What is read each second, and how it is shown.

use std::time::{Duration, Instant};

use super::load::Load;
use super::stage::Stage;

/// How long the back end may take to answer: one that is paused must not hold up the figures.
const ANSWER: Duration = Duration::from_millis(500);

/// One reading. What nobody answered is missing.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// Seconds since the first.
    pub(super) at: f64,
    /// Jobs in the list, and those that the back end has under way.
    pub(super) queue: Option<(u64, u64)>,
    /// Jobs a second since the reading before.
    pub(super) rate: Option<f64>,
    /// Messages that the broker has acknowledged to the machines.
    pub(super) acknowledged: u64,
    /// In `transactions`, in `machine_logs`.
    pub(super) rows: Option<(u64, u64)>,
}

/// Reads, one reading after another.
pub(super) struct Meter {
    began: Instant,
    connection: redis::aio::MultiplexedConnection,
    /// Jobs in the database, and when.
    before: Option<(Instant, u64)>,
}

impl Meter {
    pub(super) async fn new(stage: &Stage) -> Self {
        Self { began: Instant::now(), connection: stage.redis.connect().await, before: None }
    }

    pub(super) async fn read(&mut self, stage: &Stage, load: &Load) -> Reading {
        let acknowledged = load.acknowledged();
        let status = tokio::time::timeout(ANSWER, stage.backend.status()).await.ok().flatten();
        let committed = status.and_then(|status| status["committed"].as_u64());
        let now = Instant::now();
        let rate = match (self.before, committed) {
            (Some((then, before)), Some(committed)) => {
                Some(committed.saturating_sub(before) as f64 / (now - then).as_secs_f64())
            }
            _ => None,
        };
        self.before = committed.map(|committed| (now, committed));
        let rows = match (stage.rows.count("transactions").await, stage.rows.count("machine_logs").await) {
            (Ok(transactions), Ok(logs)) => Some((transactions, logs)),
            _ => None,
        };
        let queue = stage.queue(&mut self.connection).await;
        Reading { at: (now - self.began).as_secs_f64(), queue, rate, acknowledged, rows }
    }
}

impl Reading {
    /// Nothing waits, and nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.queue == Some((0, 0))
    }

    /// Whether work was done since the reading before.
    pub(super) fn has_moved(&self, before: &Self) -> bool {
        (self.queue, self.rows) != (before.queue, before.rows)
    }

    /// As a line for people.
    pub(super) fn line(&self) -> String {
        let queue = self.queue.map_or_else(|| "?".to_owned(), |(waiting, under_way)| format!("{waiting}+{under_way}"));
        let rate = self.rate.map_or_else(|| "?".to_owned(), |rate| format!("{rate:.0}"));
        let (transactions, logs) = self
            .rows
            .map_or_else(|| ("?".to_owned(), "?".to_owned()), |(sold, logs)| (sold.to_string(), logs.to_string()));
        format!(
            "{:>6.0} s   queue {queue:>9}   worker {rate:>6} jobs/s   published {:>8}   rows: {transactions:>7} transactions {logs:>7} logs",
            self.at, self.acknowledged
        )
    }
}
