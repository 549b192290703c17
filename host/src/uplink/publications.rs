//! What handlers publish, on its way to the broker. One task does it for all lanes: what was handed to the connection keeps its place in the
//! broker's window until the PUBACK, whatever becomes of the attempt that asked for it.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sluicegate_core::message::Publication;
use tokio::sync::{mpsc, oneshot};

use crate::mqtt::publish::{Answer, Publish, Publisher};

/// Messages whose publications are under way at once, and as many that wait; beyond it lanes wait, and their machines.
const UNDER_WAY: usize = 256;

/// How often the connection may break while one publication is on its way, before that counts as a refusal.
const BREAKS: u32 = 1;

/// The way there. Cheap to clone.
#[derive(Clone)]
pub struct Publications {
    orders: mpsc::Sender<Order>,
    publisher: Publisher,
}

/// What one message's handlers publish, in order.
struct Order {
    publications: Vec<Publication>,
    /// Dropped by whoever asked, what was not handed over yet is not published.
    told: oneshot::Sender<Result<(), Refused>>,
}

/// The broker does not take one of them.
#[derive(Debug)]
pub(super) struct Refused {
    /// Which; those before it are published.
    pub(super) place: usize,
    /// Where to.
    pub(super) topic: String,
    /// In the broker's words.
    pub(super) reason: String,
}

/// Publishes what is ordered.
pub struct Orders {
    orders: mpsc::Receiver<Order>,
    publisher: Publisher,
}

/// Both ends.
#[must_use]
pub fn prepare(publisher: Publisher) -> (Publications, Orders) {
    let (sender, orders) = mpsc::channel(UNDER_WAY);
    (Publications { orders: sender, publisher: publisher.clone() }, Orders { orders, publisher })
}

impl Publications {
    /// Whether a connection to the broker stands.
    pub(super) fn stands(&self) -> bool {
        self.publisher.stands()
    }

    /// Publishes one after another, and waits for each PUBACK. While the broker is away this waits for it.
    ///
    /// # Errors
    /// [`Refused`], where the broker does not take one of them.
    ///
    /// # Cancel safety
    /// Dropped, any of them may be published.
    pub(super) async fn publish(&self, publications: Vec<Publication>) -> Result<(), Refused> {
        let (told, answer) = oneshot::channel();
        // The task ends after every lane.
        let _ = self.orders.send(Order { publications, told }).await;
        match answer.await {
            Ok(answer) => answer,
            // There is no connection any more, and never will be: the gateway ends.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Orders {
    /// Works until every lane is gone and what was handed over is answered.
    pub async fn run(mut self) {
        let mut under_way = FuturesUnordered::new();
        let mut open = true;
        loop {
            tokio::select! {
                Some(()) = under_way.next() => {}
                order = self.orders.recv(), if open && under_way.len() < UNDER_WAY => match order {
                    Some(order) => under_way.push(carry_out(&self.publisher, order)),
                    None => open = false,
                },
                else => return,
            }
        }
    }
}

async fn carry_out(publisher: &Publisher, Order { publications, mut told }: Order) {
    for (place, Publication { topic, payload, retain }) in publications.into_iter().enumerate() {
        let mut broke = 0;
        loop {
            let free = tokio::select! {
                biased;
                // Whoever asked gave up, and asks again.
                () = told.closed() => return,
                free = publisher.place_for_plugins() => free,
            };
            let Some(free) = free else { return };
            let publish = Publish { topic: topic.clone(), body: payload.clone(), retain, expiry: None };
            match free.publish(publish).await {
                Answer::Delivered | Answer::NoSubscriber => break,
                // The broker may or may not have it: it is published again (at least once).
                Answer::Unknown if broke < BREAKS => broke += 1,
                // A broker may close the connection on what it denies [MQTT-4.13.1-1], and commands go over it, too.
                Answer::Unknown => {
                    let reason = "the connection broke each time that it was sent".to_owned();
                    let _ = told.send(Err(Refused { place, topic, reason }));
                    return;
                }
                Answer::Refused(reason) | Answer::Busy(reason) => {
                    // Whoever asked may have given up.
                    let _ = told.send(Err(Refused { place, topic, reason }));
                    return;
                }
            }
        }
    }
    let _ = told.send(Ok(()));
}
