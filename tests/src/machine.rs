//! A machine: publishes, remembers what was acknowledged to it, and collects what reaches it.

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::Packet;
use rumqttc::{AsyncClient, Broker, Event, MqttOptions, PublishOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Topic, payload, and the rest of its life in seconds, where it has an end.
type Received = (String, Vec<u8>, Option<u32>);

/// A connected machine.
pub struct Machine {
    client: AsyncClient,
    received: mpsc::Receiver<Received>,
    expiry: Option<u32>,
    /// Ends when this is dropped.
    _events: JoinSet<()>,
}

impl Machine {
    /// Connects, and subscribes where a filter is given.
    ///
    /// # Panics
    /// Where the broker does not take it.
    pub async fn connect(port: u16, name: &str, filter: Option<&str>) -> Self {
        let mut options = MqttOptions::new(name, Broker::tcp("127.0.0.1", port));
        options.set_keep_alive(30).set_outgoing_inflight_upper_limit(100).set_max_packet_size(Some(4 << 20));
        let (client, mut events) = AsyncClient::builder(options).capacity(256).build();
        // Holds what a test sends to one machine at the most.
        let (sender, received) = mpsc::channel(10_000);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    let expiry = publish.properties.and_then(|properties| properties.message_expiry_interval);
                    let _ = sender.try_send((topic, publish.payload.to_vec(), expiry));
                }
            }
        });
        if let Some(filter) = filter {
            let subscribed = client.subscribe_tracked(filter, QoS::AtLeastOnce).await.expect("queued");
            subscribed.wait_async().await.expect("subscribed");
        }
        Self { client, received, expiry: None, _events: tasks }
    }

    /// Publishes at QoS 1 and waits for the broker's PUBACK.
    ///
    /// # Panics
    /// Where the broker does not acknowledge it.
    pub async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.publish_with(topic, payload, PublishOptions::new(QoS::AtLeastOnce)).await;
    }

    /// Publishes at any quality of service, and waits for its end.
    ///
    /// # Panics
    /// Where the broker does not acknowledge it.
    pub async fn publish_with(&self, topic: &str, payload: impl Into<Vec<u8>>, options: PublishOptions) {
        let published = self.client.publish_tracked(topic, payload.into(), options).await.expect("queued");
        published.wait_async().await.expect("acknowledged");
    }

    /// The next message that reaches it.
    ///
    /// # Panics
    /// After 30 seconds without one.
    pub async fn next(&mut self) -> (String, String) {
        let limit = std::time::Duration::from_secs(30);
        let (topic, payload, expiry) =
            tokio::time::timeout(limit, self.received.recv()).await.expect("a message in time").expect("a connection");
        self.expiry = expiry;
        (topic, String::from_utf8(payload).expect("UTF-8"))
    }

    /// The rest of the last message's life, in seconds, where it has an end [MQTT 5, 3.3.2.3.3].
    #[must_use]
    pub fn expiry(&self) -> Option<u32> {
        self.expiry
    }
}
