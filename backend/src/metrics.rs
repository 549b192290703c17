//! Every metric, in one place: names and what they count. Labels come from the settings and from this program's own words, never from what a
//! machine sent. Where no exporter is installed nothing is counted.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

const TAKEN: &str = "sluicegate_backend_jobs_taken_total";
const DONE: &str = "sluicegate_backend_jobs_done_total";
const DEAD: &str = "sluicegate_backend_jobs_dead_total";
const BATCH_JOBS: &str = "sluicegate_backend_batch_jobs";
const BATCH_SECONDS: &str = "sluicegate_backend_batch_seconds";
const CONNECTED: &str = "sluicegate_backend_connection_up";
const QUEUE: &str = "sluicegate_backend_queue_length";
const PROCESSING: &str = "sluicegate_backend_processing_jobs";
const ALERTS: &str = "sluicegate_backend_alerts_total";
const COMMANDS: &str = "sluicegate_backend_commands";
const TROUBLES: &str = "sluicegate_backend_troubles";

/// What `/metrics` shows.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// Installs the recorder, once per process.
    ///
    /// # Errors
    /// Where another recorder is installed.
    pub fn install() -> Result<Self, BuildError> {
        let jobs = [1.0, 5.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
        let seconds = [1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 5.0, 30.0];
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(BATCH_JOBS.to_owned()), &jobs)?
            .set_buckets_for_metric(Matcher::Full(BATCH_SECONDS.to_owned()), &seconds)?
            .install_recorder()?;
        describe();
        Ok(Self(handle))
    }

    /// The text that Prometheus reads (exposition format 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what histograms gathered; to be called every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn describe() {
    describe_counter!(TAKEN, "Jobs taken from Redis, by type; once more where a batch is begun anew.");
    describe_counter!(DONE, "Jobs that the database has, by type.");
    describe_counter!(DEAD, "Jobs that are dead letters, by type.");
    describe_histogram!(BATCH_JOBS, "Jobs in one batch.");
    describe_histogram!(
        BATCH_SECONDS,
        Unit::Seconds,
        "From the beginning of a batch until it is committed and off the list."
    );
    describe_gauge!(CONNECTED, "1 while the server answers: redis or database.");
    describe_gauge!(QUEUE, "Entries of a list in Redis.");
    describe_gauge!(PROCESSING, "Entries that this instance has taken from a list and not finished.");
    describe_counter!(ALERTS, "Alerts by what became of an attempt: told, retried, given-up.");
    describe_gauge!(COMMANDS, "Commands in the database, by state.");
    describe_gauge!(TROUBLES, "How much does not work; /api/status says what.");
}

/// Jobs of one type were taken.
pub fn taken(kind: &'static str, jobs: u64) {
    counter!(TAKEN, "type" => kind).increment(jobs);
}

/// Jobs of one type are in the database.
pub fn done(kind: &'static str, jobs: u64) {
    counter!(DONE, "type" => kind).increment(jobs);
}

/// Jobs of one type are dead letters.
pub fn dead(kind: &'static str, jobs: u64) {
    counter!(DEAD, "type" => kind).increment(jobs);
}

/// A batch of so many jobs is through.
pub fn batch(list: &str, jobs: usize, took: Duration) {
    histogram!(BATCH_JOBS, "list" => list.to_owned()).record(jobs as f64);
    histogram!(BATCH_SECONDS, "list" => list.to_owned()).record(took.as_secs_f64());
}

/// Whether a server answers.
pub fn connected(server: &'static str, up: bool) {
    gauge!(CONNECTED, "connection" => server).set(if up { 1.0 } else { 0.0 });
}

/// How many entries a list has.
pub fn queue_length(list: &str, entries: u64) {
    gauge!(QUEUE, "list" => list.to_owned()).set(entries as f64);
}

/// How many this instance has under way.
pub fn processing(list: &str, entries: u64) {
    gauge!(PROCESSING, "list" => list.to_owned()).set(entries as f64);
}

/// What became of an attempt to tell an alert.
pub fn alert(outcome: &'static str) {
    counter!(ALERTS, "outcome" => outcome).increment(1);
}

/// How many commands are in a state.
pub fn commands(state: &'static str, commands: u64) {
    gauge!(COMMANDS, "state" => state).set(commands as f64);
}

/// How much does not work.
pub fn troubles(count: usize) {
    gauge!(TROUBLES).set(count as f64);
}
