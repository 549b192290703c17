//! What the gateway knows of itself: connections, routes, plugins. Its parts write here, `/api/status` and `/readyz` read.

mod builds;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::tally::{Counts, Tally};
use super::usage::{Usage, Used};
use super::{clock, metrics};

pub use builds::{CanaryBuild, Candidate, Compared, Kept, LiveBuild, Refused};

/// A connection of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// The uplink's, to the broker.
    Mqtt,
    /// The downlink's, to the broker.
    MqttCommands,
    /// Redis.
    Redis,
}

impl Connection {
    const ALL: [Self; 3] = [Self::Mqtt, Self::MqttCommands, Self::Redis];

    fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttCommands => "mqtt-commands",
            Self::Redis => "redis",
        }
    }
}

/// How a connection is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ConnectionState {
    /// Not made yet.
    Connecting,
    /// It stands.
    Connected {
        /// What is worth knowing of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// It could not be made, or broke.
    Down {
        /// Why.
        reason: String,
    },
}

#[derive(Debug, Clone, Serialize)]
struct ConnectionStatus {
    name: &'static str,
    #[serde(flatten)]
    state: ConnectionState,
    since: Timestamp,
}

#[derive(Debug, Clone, Default, Serialize)]
struct PluginStatus {
    path: String,
    live: Option<LiveBuild>,
    candidate: Option<Candidate>,
    canary: Option<CanaryBuild>,
    last_refusal: Option<Refused>,
    #[serde(skip)]
    counted: Option<Arc<Usage>>,
    fallback: Option<Kept>,
    /// Rolled back or withdrawn: not tried again until the file holds another build.
    rejected: Vec<String>,
    /// Until when the live build is judged against the one before.
    probation_until: Option<Timestamp>,
    /// What a build made of the last real messages; asked for by itself.
    #[serde(skip)]
    rehearsed: Option<Arc<Value>>,
}

/// A route, as the settings have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// Its topic.
    pub topic: String,
    /// The envelope's `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its handlers.
    pub handlers: Vec<String>,
    /// Its queue.
    pub queue: String,
}

/// The settings in force, and what became of the last edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingsStatus {
    /// 1 for those of the start, and one more with each change.
    pub number: u64,
    /// Since when they are in force.
    pub since: Timestamp,
    /// The file that they are from; none: there is none.
    pub file: Option<String>,
    /// Routes that they do not name any more, and of which something is left to be handled.
    pub leaving: Vec<String>,
    /// The edit that was refused last, until it is mended.
    pub refused: Option<RefusedEdit>,
}

/// An edit of the settings that is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedEdit {
    /// When it was refused first.
    pub at: Timestamp,
    /// Each reason, in one sentence.
    pub reasons: Vec<String>,
    /// The keys that need a restart.
    pub restart: Vec<String>,
}

#[derive(Debug)]
struct State {
    settings: SettingsStatus,
    connections: Vec<ConnectionStatus>,
    /// Why connections to Redis do not stand, by what they are for.
    redis_down: IndexMap<&'static str, String>,
    plugins: IndexMap<String, PluginStatus>,
    routes: Vec<RouteStatus>,
    queues: IndexMap<String, u64>,
    alarms: IndexMap<String, Alarm>,
    /// None: it is not open yet.
    spool: Option<SpoolStatus>,
    access: Option<AccessStatus>,
    stopping: bool,
}

/// Where the broker asks who may log in and who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessStatus {
    /// Where that is listened for.
    pub listen: SocketAddr,
    /// Whether Redis tells of every change of a token, so that tokens are kept in memory.
    pub told_of_changes: bool,
}

/// What stands in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SpoolStatus {
    /// Jobs that Redis has not taken yet.
    pub jobs: usize,
    /// Messages that are to be handled again.
    pub parked: usize,
    /// Size of its files.
    pub bytes: u64,
    /// Its bound (`spool.max_size`).
    pub max_bytes: u64,
    /// When the oldest message arrived.
    pub oldest: Option<Timestamp>,
}

/// What a person has to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Alarm {
    /// What is wrong, and what the gateway does about it.
    text: String,
    since: Timestamp,
    /// While it stands the gateway is not ready.
    blocks: bool,
}

/// `/api/status`
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    instance: String,
    started: Timestamp,
    settings: SettingsStatus,
    ready: bool,
    not_ready: Vec<String>,
    connections: Vec<ConnectionStatus>,
    routes: Vec<RouteStatus>,
    plugins: Vec<NamedPlugin>,
    queues: IndexMap<String, u64>,
    spool: Option<SpoolStatus>,
    messages: Counts,
    alarms: IndexMap<String, Alarm>,
    access: Option<AccessStatus>,
}

/// A plugin, and what is known of its builds.
#[derive(Debug, Clone, Serialize)]
pub struct NamedPlugin {
    /// The settings' name for it.
    pub name: String,
    #[serde(flatten)]
    status: PluginStatus,
    /// None: no build was ever live.
    usage: Option<Used>,
}

/// Where the gateway's parts write what they know.
///
/// The lock is held for a copy only, never across a wait.
#[derive(Debug)]
pub struct Board {
    instance: String,
    started: Timestamp,
    tally: Arc<Tally>,
    state: Mutex<State>,
}

impl Board {
    /// Nothing is connected yet, and these plugins are missing.
    #[must_use]
    pub fn new(instance: &str, plugins: impl IntoIterator<Item = String>, routes: Vec<RouteStatus>) -> Self {
        let now = clock::now();
        let connections = Connection::ALL
            .into_iter()
            .map(|connection| {
                metrics::connected(connection.name(), false);
                ConnectionStatus { name: connection.name(), state: ConnectionState::Connecting, since: now }
            })
            .collect();
        let plugins = plugins.into_iter().map(|name| (name, PluginStatus::default())).collect();
        let tally = Arc::new(Tally::new(routes.iter().map(|route| route.name.clone())));
        let settings = SettingsStatus { number: 1, since: now, file: None, leaving: Vec::new(), refused: None };
        let state = State {
            settings,
            connections,
            redis_down: IndexMap::new(),
            plugins,
            routes,
            queues: IndexMap::new(),
            alarms: IndexMap::new(),
            spool: None,
            access: None,
            stopping: false,
        };
        Self { instance: instance.to_owned(), started: now, tally, state: Mutex::new(state) }
    }

    /// Where every message is.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Raises an alarm, or with no text takes it back: while it stands the gateway is not ready. True: that
    /// changes something: it was not raised before, or it was.
    pub fn alarm(&self, name: &str, text: Option<&str>) -> bool {
        self.set_alarm(name, text, true)
    }

    /// The same for what a person has to look at although all that comes is taken.
    pub fn notice(&self, name: &str, text: Option<&str>) -> bool {
        self.set_alarm(name, text, false)
    }

    fn set_alarm(&self, name: &str, text: Option<&str>, blocks: bool) -> bool {
        let mut state = self.state();
        let Some(text) = text else {
            let was_raised = state.alarms.shift_remove(name).is_some();
            if was_raised {
                metrics::alarm(name, false);
            }
            return was_raised;
        };
        let since = state.alarms.get(name).map(|alarm| alarm.since);
        let alarm = Alarm { text: text.to_owned(), since: since.unwrap_or_else(clock::now), blocks };
        state.alarms.insert(name.to_owned(), alarm);
        metrics::alarm(name, true);
        since.is_none()
    }

    /// What stands in the spool.
    pub fn set_spool(&self, spool: SpoolStatus) {
        let age =
            spool.oldest.map_or(0, |oldest| u64::try_from(clock::now().as_second() - oldest.as_second()).unwrap_or(0));
        metrics::spool(spool.jobs, spool.parked, spool.bytes, age);
        self.state().spool = Some(spool);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was made or lost.
    pub fn set_connection(&self, connection: Connection, state: ConnectionState) {
        self.state().set_connection(connection, state);
    }

    /// A connection to Redis stands, or why not; there are several, and they are shown as one: it stands where all do.
    pub fn set_redis(&self, purpose: &'static str, down: Option<String>) {
        let mut state = self.state();
        match down {
            Some(reason) => drop(state.redis_down.insert(purpose, reason)),
            None => drop(state.redis_down.shift_remove(purpose)),
        }
        let reason = state.redis_down.values().next().cloned();
        let shown =
            reason.map_or(ConnectionState::Connected { detail: None }, |reason| ConnectionState::Down { reason });
        state.set_connection(Connection::Redis, shown);
    }

    /// Other settings are in force, or an edit was refused.
    pub fn set_settings(&self, settings: SettingsStatus) {
        metrics::settings(settings.number, settings.refused.is_none());
        let text = settings.refused.as_ref().map(|refused| {
            let reasons = refused.reasons.join("; ");
            format!("the settings file is refused, and the settings of before stay in force: {reasons}")
        });
        self.state().settings = settings;
        self.notice("the settings file is refused", text.as_deref());
    }

    /// These are the routes and plugins of the settings now.
    pub fn set_routes(&self, routes: Vec<RouteStatus>, plugins: impl IntoIterator<Item = String>) {
        for route in &routes {
            self.tally.enter(&route.name);
        }
        let mut state = self.state();
        state.routes = routes;
        let mut before = std::mem::take(&mut state.plugins);
        state.plugins =
            plugins.into_iter().map(|name| (name.clone(), before.swap_remove(&name).unwrap_or_default())).collect();
    }

    /// Where a plugin's file is looked for.
    pub fn plugin_path(&self, name: &str, path: String) {
        self.plugin(name, |plugin| plugin.path = path);
    }

    /// A build is at this step; none: none is under way.
    pub fn plugin_candidate(&self, name: &str, candidate: Option<Candidate>) {
        self.plugin(name, |plugin| plugin.candidate = candidate);
    }

    /// A build serves some machines before it serves all; none: none does.
    pub fn plugin_canary(&self, name: &str, canary: Option<CanaryBuild>) {
        self.plugin(name, |plugin| plugin.canary = canary);
    }

    /// How the canary of this number does beside the live build.
    pub fn plugin_compared(&self, name: &str, generation: u64, compared: Compared) {
        self.plugin(name, |plugin| {
            if let Some(canary) = plugin.canary.as_mut().filter(|canary| canary.generation == generation) {
                canary.compared = Some(compared);
            }
        });
    }

    /// A build went live, after this step. Where its file had been refused before, that is over.
    pub fn plugin_live(&self, name: &str, step: &'static str, build: LiveBuild) {
        metrics::reload(name, step, "live");
        self.plugin(name, |plugin| {
            plugin
                .last_refusal
                .take_if(|refused| build.source == "file" && refused.digest.as_ref() == Some(&build.digest));
            plugin.live = Some(build);
        });
    }

    /// Where what a plugin uses is counted.
    pub fn plugin_usage(&self, name: &str, usage: Arc<Usage>) {
        self.plugin(name, |plugin| plugin.counted = Some(usage));
    }

    /// Shows what the plugins used so far as metrics.
    pub fn measure_usage(&self) {
        for (name, plugin) in &self.state().plugins {
            if let Some(usage) = &plugin.counted {
                metrics::usage(name, &usage.now());
            }
        }
    }

    /// A build was refused.
    pub fn plugin_refused(&self, name: &str, refused: Refused) {
        metrics::reload(name, refused.step, "refused");
        self.plugin(name, |plugin| plugin.last_refusal = Some(refused));
    }

    /// What a rollback would go back to, and what is not tried again.
    pub fn plugin_builds(&self, name: &str, fallback: Option<Kept>, rejected: Vec<String>) {
        self.plugin(name, |plugin| (plugin.fallback, plugin.rejected) = (fallback, rejected));
    }

    /// A build was tried on the last real messages.
    pub fn plugin_rehearsed(&self, name: &str, report: Value) {
        self.plugin(name, |plugin| plugin.rehearsed = Some(Arc::new(report)));
    }

    /// What the last build that was tried on real messages made of them.
    #[must_use]
    pub fn rehearsed(&self, name: &str) -> Option<Arc<Value>> {
        self.state().plugins.get(name)?.rehearsed.clone()
    }

    /// Until when a plugin's live build is on probation.
    pub fn plugin_probation(&self, name: &str, until: Option<Timestamp>) {
        self.plugin(name, |plugin| plugin.probation_until = until);
    }

    /// Why a plugin's file was refused last.
    #[must_use]
    pub fn last_refusal(&self, name: &str) -> Option<String> {
        Some(self.state().plugins.get(name)?.last_refusal.as_ref()?.reason.clone())
    }

    fn plugin(&self, name: &str, change: impl FnOnce(&mut PluginStatus)) {
        // One that the settings do not name any more is not shown.
        if let Some(plugin) = self.state().plugins.get_mut(name) {
            change(plugin);
        }
    }

    /// Every plugin.
    #[must_use]
    pub fn plugins(&self) -> Vec<NamedPlugin> {
        self.state().plugins()
    }

    /// How many entries a list has.
    pub fn set_queue_length(&self, list: &str, entries: u64) {
        metrics::queue_length(list, entries);
        self.state().queues.insert(list.to_owned(), entries);
    }

    /// The broker's questions are listened for.
    pub fn set_access(&self, listen: SocketAddr) {
        let mut state = self.state();
        let told_of_changes = state.access.as_ref().is_some_and(|access| access.told_of_changes);
        state.access = Some(AccessStatus { listen, told_of_changes });
    }

    /// Redis tells of every change of a token, or does not.
    pub fn set_access_told(&self, told: bool) {
        if let Some(access) = &mut self.state().access {
            access.told_of_changes = told;
        }
    }

    /// The gateway is on its way out.
    pub fn stopping(&self) {
        self.state().stopping = true;
    }

    /// Why the gateway is not ready, one sentence each; empty: it is.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        reasons(&self.state())
    }

    /// What a person has to look at although the gateway is ready, one sentence each.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        self.state().alarms.values().filter(|alarm| !alarm.blocks).map(|alarm| alarm.text.clone()).collect()
    }

    /// Everything.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.state();
        let not_ready = reasons(&state);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            instance: self.instance.clone(),
            started: self.started,
            settings: state.settings.clone(),
            ready: not_ready.is_empty(),
            not_ready,
            connections: state.connections.clone(),
            routes: state.routes.clone(),
            plugins: state.plugins(),
            queues: state.queues.clone(),
            spool: state.spool.clone(),
            messages: self.tally.total(),
            alarms: state.alarms.clone(),
            access: state.access.clone(),
        }
    }
}

impl State {
    fn plugins(&self) -> Vec<NamedPlugin> {
        let named = |(name, status): (&String, &PluginStatus)| NamedPlugin {
            name: name.clone(),
            status: status.clone(),
            usage: status.counted.as_ref().map(|usage| usage.now()),
        };
        self.plugins.iter().map(named).collect()
    }

    fn set_connection(&mut self, connection: Connection, state: ConnectionState) {
        let up = matches!(state, ConnectionState::Connected { .. });
        metrics::connected(connection.name(), up);
        if let Some(status) = self.connections.iter_mut().find(|status| status.name == connection.name()) {
            if std::mem::discriminant(&status.state) != std::mem::discriminant(&state) {
                status.since = clock::now();
            }
            status.state = state;
        }
    }
}

fn reasons(state: &State) -> Vec<String> {
    let mut reasons = Vec::new();
    if state.stopping {
        reasons.push("the gateway is shutting down".to_owned());
    }
    for ConnectionStatus { name, state, .. } in &state.connections {
        match state {
            ConnectionState::Connected { .. } => {}
            ConnectionState::Connecting => reasons.push(format!("{name}: not connected yet")),
            ConnectionState::Down { reason } => reasons.push(format!("{name}: {reason}; trying again")),
        }
    }
    reasons.extend(state.alarms.values().filter(|alarm| alarm.blocks).map(|alarm| alarm.text.clone()));
    for (name, plugin) in state.plugins.iter().filter(|(_, plugin)| plugin.live.is_none()) {
        reasons.push(match &plugin.last_refusal {
            Some(refused) => format!("plugin {name} is missing: {} ({})", refused.reason, refused.step),
            None => format!("plugin {name} is not loaded yet"),
        });
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_it_is_not_ready() {
        let board = Board::new("gateway-1", ["heartbeat".to_owned()], Vec::new());
        board.set_connection(Connection::Mqtt, ConnectionState::Connected { detail: None });
        board.set_connection(Connection::MqttCommands, ConnectionState::Connected { detail: None });
        board.set_connection(Connection::Redis, ConnectionState::Down { reason: "connection refused".to_owned() });
        assert_eq!(
            board.not_ready(),
            ["redis: connection refused; trying again", "plugin heartbeat is not loaded yet"]
        );
        let refused = Refused { digest: None, step: "found", reason: "no such file".into(), at: clock::now() };
        board.plugin_refused("heartbeat", refused);
        assert_eq!(board.not_ready()[1], "plugin heartbeat is missing: no such file (found)");
    }
}
