//! Every metric, in one place: names, what they count, and handles that are registered once, so that the way of a message
//! does no look-up. Labels come from the settings, never from topics or serial numbers.
#![expect(clippy::disallowed_macros, reason = "metrics are named here alone")]

use std::time::Duration;

use metrics::{
    Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::tally::Counts;
use super::usage::Used;

const RECEIVED: &str = "sluicegate_uplink_received_total";
const PUSHED: &str = "sluicegate_uplink_pushed_total";
const SUPPRESSED: &str = "sluicegate_uplink_suppressed_total";
const RETURNED: &str = "sluicegate_uplink_returned_total";
const SPOOLED: &str = "sluicegate_uplink_spooled_messages";
const IN_FLIGHT: &str = "sluicegate_uplink_in_flight_messages";
const JOBS: &str = "sluicegate_uplink_jobs_total";
const JOBS_SUPPRESSED: &str = "sluicegate_uplink_jobs_suppressed_total";
const ATTEMPTS: &str = "sluicegate_uplink_attempts_failed_total";
const PARKED: &str = "sluicegate_uplink_parked_total";
const SPOOL_RECORDS: &str = "sluicegate_spool_records";
const SPOOL_BYTES: &str = "sluicegate_spool_bytes";
const SPOOL_OLDEST: &str = "sluicegate_spool_oldest_seconds";
const SUPERSEDED: &str = "sluicegate_uplink_superseded_total";
const ALARM: &str = "sluicegate_alarm";
const TRIMMED: &str = "sluicegate_dead_letters_trimmed_total";
const BROKER_DROPPED: &str = "sluicegate_broker_dropped_messages";
const REJECTED: &str = "sluicegate_uplink_rejected_total";
const DEAD: &str = "sluicegate_uplink_dead_total";
const DROPPED: &str = "sluicegate_uplink_dropped_total";
const UNROUTED: &str = "sluicegate_uplink_unrouted_total";
const ABANDONED: &str = "sluicegate_uplink_abandoned_total";
const BATCH: &str = "sluicegate_sink_batch_messages";
const COMMANDS: &str = "sluicegate_downlink_commands_total";
const CALL: &str = "sluicegate_plugin_call_seconds";
const FAULTS: &str = "sluicegate_plugin_faults_total";
const STATE_RERUNS: &str = "sluicegate_plugin_state_reruns_total";
const PUBLICATIONS: &str = "sluicegate_plugin_publications_total";
const HTTP: &str = "sluicegate_plugin_http_requests_total";
const BUSY: &str = "sluicegate_plugin_busy_seconds";
const MEMORY_PEAK: &str = "sluicegate_plugin_memory_peak_bytes";
const INSTANCES: &str = "sluicegate_plugin_instances";
const RELOADS: &str = "sluicegate_plugin_reloads_total";
const LAST_RELOAD: &str = "sluicegate_plugin_last_reload_seconds";
const LAST_RELOAD_GOOD: &str = "sluicegate_plugin_last_reload_successful";
const SETTINGS: &str = "sluicegate_settings_number";
const SETTINGS_GOOD: &str = "sluicegate_settings_last_edit_applied";
const CONNECTED: &str = "sluicegate_connection_up";
const ACCESS: &str = "sluicegate_access_decisions_total";
const ACCESS_LOOKUPS: &str = "sluicegate_access_token_lookups_total";
const QUEUE: &str = "sluicegate_queue_length";

/// What `/metrics` shows.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// Installs the recorder, once per process.
    ///
    /// # Errors
    /// Where another recorder is installed.
    pub fn install() -> Result<Self, BuildError> {
        let seconds = [5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1, 1.0];
        let messages = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(CALL.to_owned()), &seconds)?
            .set_buckets_for_metric(Matcher::Full(BATCH.to_owned()), &messages)?
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
    describe_counter!(RECEIVED, "Messages taken from the broker, found in the spool at the start, or replayed.");
    describe_counter!(PUSHED, "Messages whose jobs Redis confirmed.");
    describe_counter!(SUPPRESSED, "Messages whose jobs Redis knew already.");
    describe_counter!(RETURNED, "Messages left to the broker, which sends them again.");
    describe_gauge!(SPOOLED, "Messages on the disk.");
    describe_gauge!(IN_FLIGHT, "Messages in memory.");
    describe_counter!(JOBS, "Jobs that Redis confirmed.");
    describe_counter!(JOBS_SUPPRESSED, "Jobs that Redis knew already.");
    describe_counter!(ATTEMPTS, "Attempts of a handler that failed and may pass, by kind.");
    describe_counter!(PARKED, "Messages put into the spool as they came.");
    describe_counter!(SUPERSEDED, "Messages that gave way to newer ones of their machines (when_behind = \"latest\").");
    describe_gauge!(ALARM, "1 while it is raised; /api/status says what it means.");
    describe_gauge!(SPOOL_RECORDS, "Records in the spool, by kind.");
    describe_gauge!(SPOOL_BYTES, Unit::Bytes, "Size of the spool's files.");
    describe_gauge!(SPOOL_OLDEST, Unit::Seconds, "Age of the oldest message in the spool; 0: it is empty.");
    describe_counter!(TRIMMED, "Dead letters that went because there were newer ones (queues.dead_letters_max).");
    describe_gauge!(BROKER_DROPPED, "Messages that the broker says it dropped, of all its clients.");
    describe_counter!(REJECTED, "Messages that a handler did not take, by kind of reason.");
    describe_counter!(DEAD, "Messages in the dead letters.");
    describe_counter!(
        DROPPED,
        "Messages of which no job was made: a handler dropped them on purpose or only published, or QoS 0 messages that found no room."
    );
    describe_counter!(UNROUTED, "Publishes that no route took.");
    describe_counter!(ABANDONED, "Deliveries without a verdict: their acknowledgement is withheld.");
    describe_histogram!(BATCH, "Messages in one push.");
    describe_counter!(COMMANDS, "Commands by what became of them.");
    describe_histogram!(CALL, Unit::Seconds, "Duration of a plugin's calls.");
    describe_counter!(FAULTS, "Calls that gave no answer, by kind.");
    describe_counter!(
        STATE_RERUNS,
        "Calls that were run again, since others had changed what they had read of the state."
    );
    describe_counter!(PUBLICATIONS, "What plugins published, by what the broker made of it: published or refused.");
    describe_counter!(
        HTTP,
        "HTTP requests of a plugin, by the server that was granted (none: no server was) and what became of them."
    );
    describe_gauge!(BUSY, Unit::Seconds, "Time that lanes spent in a plugin's code since the start.");
    describe_gauge!(MEMORY_PEAK, Unit::Bytes, "The most memory that one instance of a plugin had.");
    describe_gauge!(INSTANCES, "Instances of a plugin.");
    describe_counter!(RELOADS, "New builds of a plugin, by the step that they came to and the result.");
    describe_gauge!(LAST_RELOAD, Unit::Seconds, "When a build of a plugin went live or was refused last, since 1970.");
    describe_gauge!(LAST_RELOAD_GOOD, "1 where that build went live.");
    describe_gauge!(SETTINGS, "Number of the settings in force: 1 for those of the start.");
    describe_gauge!(SETTINGS_GOOD, "0 while the settings file is refused.");
    describe_gauge!(CONNECTED, "1 while the connection stands.");
    describe_counter!(ACCESS, "Answers to the broker's questions, by endpoint, result and reason.");
    describe_counter!(
        ACCESS_LOOKUPS,
        "Tokens that were looked up for them: hit (in memory), read (from Redis), fault."
    );
    describe_gauge!(QUEUE, "Entries of a list in Redis.");
    // A counter that may never be needed is shown all the same: its absence would look like a fault of the scrape.
    counter!(UNROUTED).absolute(0);
    counter!(ABANDONED).absolute(0);
}

/// What one plugin counts.
#[derive(Clone)]
pub struct PluginMetrics {
    plugin: String,
    call: Histogram,
}

impl PluginMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(plugin: &str) -> Self {
        Self { plugin: plugin.to_owned(), call: histogram!(CALL, "plugin" => plugin.to_owned()) }
    }

    /// A call took so long.
    pub fn called(&self, took: Duration) {
        self.call.record(took.as_secs_f64());
    }

    /// A call gave no answer.
    pub fn fault(&self, kind: &'static str) {
        counter!(FAULTS, "plugin" => self.plugin.clone(), "kind" => kind).increment(1);
    }

    /// A call is run again, since others changed what it had read of the state.
    pub fn state_rerun(&self) {
        counter!(STATE_RERUNS, "plugin" => self.plugin.clone()).increment(1);
    }

    /// The broker has what it published, or refused it.
    pub fn publication(&self, outcome: &'static str) {
        counter!(PUBLICATIONS, "plugin" => self.plugin.clone(), "outcome" => outcome).increment(1);
    }
}

/// A plugin's HTTP request is over. The server is as the settings have it, or empty.
pub fn http_request(plugin: &str, server: &str, outcome: &'static str) {
    counter!(HTTP, "plugin" => plugin.to_owned(), "server" => server.to_owned(), "outcome" => outcome).increment(1);
}

/// What a plugin used so far.
pub fn usage(plugin: &str, used: &Used) {
    let set = |name: &'static str, value: f64| gauge!(name, "plugin" => plugin.to_owned()).set(value);
    set(BUSY, used.busy_ms as f64 / 1e3);
    set(MEMORY_PEAK, used.memory_peak_bytes as f64);
    set(INSTANCES, used.instances as f64);
}

/// Where a route's messages are.
pub fn messages(route: &str, counts: &Counts) {
    let total = |name: &'static str, value| counter!(name, "route" => route.to_owned()).absolute(value);
    let now = |name: &'static str, value: u64| gauge!(name, "route" => route.to_owned()).set(value as f64);
    total(RECEIVED, counts.received);
    total(PUSHED, counts.pushed);
    total(SUPPRESSED, counts.suppressed);
    total(DEAD, counts.dead);
    total(DROPPED, counts.dropped);
    total(RETURNED, counts.returned);
    now(SPOOLED, counts.spooled);
    now(IN_FLIGHT, counts.in_flight);
}

/// So many jobs were pushed, so many were known already.
pub fn jobs(pushed: usize, suppressed: usize) {
    counter!(JOBS).increment(pushed as u64);
    counter!(JOBS_SUPPRESSED).increment(suppressed as u64);
}

/// An attempt failed that may pass.
pub fn attempt_failed(route: &str, kind: &'static str) {
    counter!(ATTEMPTS, "route" => route.to_owned(), "reason" => kind).increment(1);
}

/// A handler did not take a message.
pub fn rejected(route: &str, kind: &'static str) {
    counter!(REJECTED, "route" => route.to_owned(), "reason" => kind).increment(1);
}

/// Messages were parked.
pub fn parked(messages: usize) {
    counter!(PARKED).increment(messages as u64);
}

/// Messages of a route gave way to newer ones of their machines while the back end was behind.
pub fn superseded(route: &str, messages: usize) {
    counter!(SUPERSEDED, "route" => route.to_owned()).increment(messages as u64);
}

/// Whether something is wrong that a person has to look at.
pub fn alarm(name: &str, raised: bool) {
    gauge!(ALARM, "alarm" => name.to_owned()).set(if raised { 1.0 } else { 0.0 });
}

/// How much stands in the spool; the age of the oldest in seconds.
pub fn spool(jobs: usize, parked: usize, bytes: u64, oldest: u64) {
    gauge!(SPOOL_RECORDS, "kind" => "job").set(jobs as f64);
    gauge!(SPOOL_RECORDS, "kind" => "parked").set(parked as f64);
    gauge!(SPOOL_BYTES).set(bytes as f64);
    gauge!(SPOOL_OLDEST).set(oldest as f64);
}

/// Dead letters that went.
pub fn trimmed(letters: u64) {
    counter!(TRIMMED).increment(letters);
}

/// What the broker's own drop counter says.
pub fn broker_dropped(messages: u64) {
    gauge!(BROKER_DROPPED).set(messages as f64);
}

/// A publish that no route took.
pub fn unrouted() {
    counter!(UNROUTED).increment(1);
}

/// A delivery without a verdict.
pub fn delivery_abandoned() {
    counter!(ABANDONED).increment(1);
}

/// A push of so many messages.
pub fn batch(messages: usize) {
    histogram!(BATCH).record(messages as f64);
}

/// What became of a command.
pub fn command(outcome: &'static str) {
    counter!(COMMANDS, "outcome" => outcome).increment(1);
}

/// A new build of a plugin went `live` or was `refused` at this step, or what a step that takes its time came to. The last reload went well or not
/// once it is at its end: neither while a step is `begun`, nor where its build was `replaced` before anything was known.
pub fn reload(plugin: &str, step: &'static str, result: &'static str) {
    counter!(RELOADS, "plugin" => plugin.to_owned(), "step" => step, "result" => result).increment(1);
    if matches!(result, "begun" | "replaced") {
        return;
    }
    gauge!(LAST_RELOAD, "plugin" => plugin.to_owned()).set(super::clock::now().as_second() as f64);
    gauge!(LAST_RELOAD_GOOD, "plugin" => plugin.to_owned()).set(if result == "refused" { 0.0 } else { 1.0 });
}

/// The number of the settings in force, and whether the file says them.
pub fn settings(number: u64, good: bool) {
    gauge!(SETTINGS).set(number as f64);
    gauge!(SETTINGS_GOOD).set(if good { 1.0 } else { 0.0 });
}

/// Whether a connection stands.
pub fn connected(connection: &'static str, up: bool) {
    connection_gauge(connection).set(if up { 1.0 } else { 0.0 });
}

fn connection_gauge(connection: &'static str) -> Gauge {
    gauge!(CONNECTED, "connection" => connection)
}

/// How many entries a list has.
pub fn queue_length(list: &str, entries: u64) {
    gauge!(QUEUE, "list" => list.to_owned()).set(entries as f64);
}

/// The broker was answered.
pub fn access(endpoint: &'static str, result: &'static str, reason: &'static str) {
    counter!(ACCESS, "endpoint" => endpoint, "result" => result, "reason" => reason).increment(1);
}

/// A token was looked up for that.
pub fn access_lookup(result: &'static str) {
    counter!(ACCESS_LOOKUPS, "result" => result).increment(1);
}
