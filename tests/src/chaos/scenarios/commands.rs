//! What happens to those who send commands. A command is sent at least once, each target's in order.

use super::{Scenario, scenario};
use crate::chaos::listener::{Listener, Pushed};
use crate::chaos::outcome::{Outcome, Promise};
use crate::chaos::seed::Chance;
use crate::chaos::stage::Trial;
use crate::{Broker, Gateway, Proxy, RedisServer, eventually};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("commands-broker-away", broker_away, quick),
        scenario!("commands-gateway-kill-9", kill_9),
        scenario!("commands-instance-dies", instance_dies),
        scenario!("commands-paused-past-lease", paused_past_lease),
    ]
}

const COMMANDS: &str = "mqtt_outgoing_commands";
/// How many targets take turns.
const TARGETS: u64 = 7;

/// What the back end pushed.
#[derive(Default)]
struct Backend {
    pushed: Vec<Pushed>,
    phase: u64,
}

impl Backend {
    async fn push(&mut self, redis: &RedisServer, count: u64, chance: &mut Chance) {
        let mut entries = Vec::new();
        for _ in 0..count {
            let (target, id) = (format!("M-{}", chance.number(0..TARGETS)), format!("C-{}", self.pushed.len()));
            entries.push(format!(
                r#"{{"target":"{target}","command":"reboot","payload":[],"message_id":"{id}","expires_in":600}}"#
            ));
            self.pushed.push(Pushed { target, id, phase: self.phase });
        }
        redis.push(COMMANDS, &entries).await;
    }

    /// Waits until each came, and nothing stands anywhere; then judges.
    async fn settle(&self, redis: &RedisServer, listener: &Listener, instances: &[&str], promise: &Promise) -> Outcome {
        listener.hears(self.pushed.len()).await;
        eventually("no command stands anywhere", async || {
            let mut lists: Vec<String> = instances.iter().map(|instance| processing(instance)).collect();
            lists.push(COMMANDS.to_owned());
            for list in lists {
                if !redis.list(&list).await.is_empty() {
                    return None;
                }
            }
            Some(())
        })
        .await;
        let mut outcome = Outcome::judge(&listener.compare(&self.pushed), promise, listener.stall());
        let dead = redis.list("mqtt_dead_letters").await;
        if let Some(letter) = dead.first() {
            outcome.wrong.push(format!("{} dead letters, the first: {letter}", dead.len()));
        }
        outcome
    }
}

fn processing(instance: &str) -> String {
    format!("{{{COMMANDS}}}:processing:{instance}")
}

fn instance(trial: &Trial, broker: u16, redis: u16, name: &str) -> Gateway {
    let settings = Gateway::settings(broker, redis, &format!("[gateway]\ninstance = \"{name}\"\n"))
        .replace("[redis]", &format!("client_id = \"{name}\"\n[redis]"));
    trial.gateway(&settings, name)
}

/// Commands pile up while nothing gets to the broker.
async fn broker_away(trial: Trial) -> Outcome {
    let mut chance = trial.chance();
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let to_broker = Proxy::to(broker.port).await;
    let listener = Listener::start(broker.port).await;
    let mut gateway = instance(&trial, to_broker.port, redis.port, "one");
    gateway.run().await;
    let mut backend = Backend::default();
    // To a port where nobody listens.
    to_broker.lead_to(crate::servers::free_port());
    to_broker.cut();
    gateway.says("mqtt-commands: ").await;
    for _ in 0..10 {
        backend.push(&redis, trial.times(100, 1_000), &mut chance).await;
        chance.pause(0..100).await;
    }
    to_broker.lead_to(broker.port);
    for _ in 0..trial.times(2, 5) {
        chance.pause(100..500).await;
        to_broker.cut();
    }
    backend.settle(&redis, &listener, &["one"], &Promise::ALWAYS).await
}

/// The one that sends them is killed at random moments.
async fn kill_9(trial: Trial) -> Outcome {
    let mut chance = trial.chance();
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let listener = Listener::start(broker.port).await;
    let mut gateway = instance(&trial, broker.port, redis.port, "one");
    gateway.run().await;
    let mut backend = Backend::default();
    for _ in 0..trial.times(2, 10) {
        backend.push(&redis, 300, &mut chance).await;
        chance.pause(0..300).await;
        gateway.kill();
        gateway.run().await;
    }
    backend.settle(&redis, &listener, &["one"], &Promise::ALWAYS).await
}

/// One dies with commands in its processing list; the other takes them over, in order, once the lease has run out. Meanwhile it sends
/// what comes: what the dead one holds does not hold that up.
async fn instance_dies(trial: Trial) -> Outcome {
    let mut chance = trial.chance();
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let to_broker = Proxy::to(broker.port).await;
    let listener = Listener::start(broker.port).await;
    let mut dying = instance(&trial, to_broker.port, redis.port, "dying");
    dying.run().await;
    let mut backend = Backend::default();
    to_broker.hold();
    backend.push(&redis, 200, &mut chance).await;
    eventually("the one that will die took them", async || {
        (redis.list(&processing("dying")).await.len() == 200).then_some(())
    })
    .await;
    let mut living = instance(&trial, broker.port, redis.port, "living");
    living.run().await;
    chance.pause(0..500).await;
    dying.kill();
    backend.phase += 1;
    backend.push(&redis, 100, &mut chance).await;
    backend.settle(&redis, &listener, &["dying", "living"], &Promise { once: true, ..Promise::ALWAYS }).await
}

/// One is stopped for longer than its lease, with commands in its processing list, and goes on when the other has sent them.
async fn paused_past_lease(trial: Trial) -> Outcome {
    let mut chance = trial.chance();
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let to_broker = Proxy::to(broker.port).await;
    let listener = Listener::start(broker.port).await;
    let mut paused = instance(&trial, to_broker.port, redis.port, "paused");
    paused.run().await;
    let mut backend = Backend::default();
    to_broker.lead_to(crate::servers::free_port());
    to_broker.cut();
    paused.says("mqtt-commands: ").await;
    backend.push(&redis, 200, &mut chance).await;
    eventually("the one that will be stopped took them", async || {
        (redis.list(&processing("paused")).await.len() == 200).then_some(())
    })
    .await;
    paused.signal("STOP");
    let mut other = instance(&trial, broker.port, redis.port, "other");
    other.run().await;
    listener.hears(200).await;
    to_broker.lead_to(broker.port);
    paused.signal("CONT");
    for _ in 0..40 {
        chance.pause(0..50).await;
        // Two instances take turns with these: their order is nobody's.
        backend.phase += 1;
        backend.push(&redis, 1, &mut chance).await;
    }
    backend.settle(&redis, &listener, &["paused", "other"], &Promise { once: true, ..Promise::ALWAYS }).await
}
