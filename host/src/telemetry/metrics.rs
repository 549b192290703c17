//! Every metric, in one place: names, what they count, and handles that are registered once, so that the way of a message
//! does no look-up. Labels come from the settings, never from topics or serial numbers.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

const RECEIVED: &str = "sluicegate_uplink_received_total";
const PUSHED: &str = "sluicegate_uplink_pushed_total";
const HANDLED: &str = "sluicegate_uplink_handled_total";
const REJECTED: &str = "sluicegate_uplink_rejected_total";
const DEAD: &str = "sluicegate_uplink_dead_total";
const DROPPED: &str = "sluicegate_uplink_dropped_total";
const UNROUTED: &str = "sluicegate_uplink_unrouted_total";
const ABANDONED: &str = "sluicegate_uplink_abandoned_total";
const BATCH: &str = "sluicegate_sink_batch_messages";
const COMMANDS: &str = "sluicegate_downlink_commands_total";
const CALL: &str = "sluicegate_plugin_call_seconds";
const FAULTS: &str = "sluicegate_plugin_faults_total";
const RELOADS: &str = "sluicegate_plugin_reloads_total";
const CONNECTED: &str = "sluicegate_connection_up";
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
    describe_counter!(RECEIVED, "Publishes that a route took.");
    describe_counter!(PUSHED, "Jobs that Redis confirmed.");
    describe_counter!(HANDLED, "Messages whose jobs Redis confirmed.");
    describe_counter!(REJECTED, "Messages that a handler did not take, by kind of reason.");
    describe_counter!(DEAD, "Messages in the dead letters.");
    describe_counter!(DROPPED, "Messages that a handler dropped on purpose, or QoS 0 messages that found no room.");
    describe_counter!(UNROUTED, "Publishes that no route took.");
    describe_counter!(ABANDONED, "Deliveries without a verdict: their acknowledgement is withheld.");
    describe_histogram!(BATCH, "Messages in one push.");
    describe_counter!(COMMANDS, "Commands by what became of them.");
    describe_histogram!(CALL, Unit::Seconds, "Duration of a plugin's calls.");
    describe_counter!(FAULTS, "Calls that gave no answer, by kind.");
    describe_counter!(RELOADS, "New builds of a plugin, by result.");
    describe_gauge!(CONNECTED, "1 while the connection stands.");
    describe_gauge!(QUEUE, "Entries of a list in Redis.");
    // A counter that may never be needed is shown all the same: its absence would look like a fault of the scrape.
    counter!(UNROUTED).absolute(0);
    counter!(ABANDONED).absolute(0);
}

/// What one route counts.
#[derive(Clone)]
pub struct RouteMetrics {
    route: String,
    received: Counter,
    pushed: Counter,
    handled: Counter,
    dead: Counter,
    dropped: Counter,
}

impl RouteMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(route: &str) -> Self {
        let named = |name: &'static str| counter!(name, "route" => route.to_owned());
        Self {
            route: route.to_owned(),
            received: named(RECEIVED),
            pushed: named(PUSHED),
            handled: named(HANDLED),
            dead: named(DEAD),
            dropped: named(DROPPED),
        }
    }

    /// A publish came.
    pub fn received(&self) {
        self.received.increment(1);
    }

    /// Redis confirmed the jobs of one message.
    pub fn pushed(&self, jobs: usize) {
        self.handled.increment(1);
        self.pushed.increment(jobs as u64);
    }

    /// A message is in the dead letters.
    pub fn dead(&self) {
        self.dead.increment(1);
    }

    /// A message was dropped.
    pub fn dropped(&self) {
        self.dropped.increment(1);
    }

    /// A handler did not take a message.
    pub fn rejected(&self, kind: &'static str) {
        counter!(REJECTED, "route" => self.route.clone(), "reason" => kind).increment(1);
    }
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

/// A new build of a plugin went `live` or was `refused`.
pub fn reload(plugin: &str, result: &'static str) {
    counter!(RELOADS, "plugin" => plugin.to_owned(), "result" => result).increment(1);
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
