//! What the uplink connection is subscribed to, what is wanted, and what the broker has confirmed of it. What is wanted may change
//! while the connection stands, or while there is none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::AsyncClient;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{RetainForwardRule, SubscribeFilter, SubscribeReasonCode};
use sluicegate_core::settings::{Mqtt, Route};
use tokio::sync::watch;
use tokio::time::Instant;

use super::drops::Drops;

/// How long to wait before subscribing again where the broker refused: its rules may still be loading.
const REFUSED: Duration = Duration::from_secs(5);
/// How long where the connection has no place for a request.
const FULL: Duration = Duration::from_millis(100);

/// A topic filter to subscribe to, and its quality of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The filter.
    pub filter: String,
    /// 0, 1 or 2.
    pub qos: u8,
}

impl Subscription {
    /// That of a route.
    #[must_use]
    pub fn of(route: &Route) -> Self {
        Self { filter: route.topic.filter(), qos: route.qos }
    }
}

/// What is wanted of the broker. Only the last counts.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Grows with each change.
    pub number: u64,
    /// How a connection is made.
    pub mqtt: Arc<Mqtt>,
    /// What is subscribed to.
    pub subscriptions: Arc<[Subscription]>,
}

/// What the broker has answered to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// The [`Wanted`] whose subscriptions it has, and none that is not wanted any more.
    pub number: u64,
    /// What it refused of them.
    pub refused: Option<String>,
}

/// What a SUBSCRIBE was for.
enum Asked {
    /// The routes' filters, of this [`Wanted`].
    Routes(u64, Arc<[Subscription]>),
    /// The broker's own drop counter.
    Drops,
}

/// What a SUBACK says.
pub(super) enum Said {
    /// All filters of the routes are subscribed to. True: they were refused before.
    Subscribed(bool),
    /// They are not, and that is tried again. True: they were not refused before.
    Refused(String, bool),
    /// Nothing that anybody has to know.
    Nothing,
}

/// The subscriptions of one connection, and of those after it.
pub(super) struct Subscriptions {
    number: u64,
    wanted: Arc<[Subscription]>,
    /// The broker may have them still, and they are not wanted.
    unwanted: Vec<String>,
    /// What SUBACKs are awaited for, in order.
    asked: VecDeque<Asked>,
    /// What UNSUBACKs are awaited for, in order.
    unasked: VecDeque<Vec<String>>,
    /// When to ask again.
    again: Option<Instant>,
    /// The broker refused, and the log says so.
    refused: bool,
    said: Confirmed,
    confirmed: watch::Sender<Confirmed>,
}

impl Subscriptions {
    pub(super) fn new(wanted: &Wanted, confirmed: watch::Sender<Confirmed>) -> Self {
        Self {
            number: wanted.number,
            wanted: wanted.subscriptions.clone(),
            unwanted: Vec::new(),
            asked: VecDeque::new(),
            unasked: VecDeque::new(),
            again: None,
            refused: false,
            said: Confirmed::default(),
            confirmed,
        }
    }

    /// The highest quality of service that is wanted.
    pub(super) fn qos(&self) -> u8 {
        self.wanted.iter().map(|subscription| subscription.qos).max().unwrap_or(0)
    }

    /// When to ask again.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Whether every SUBSCRIBE was answered.
    pub(super) fn all_answered(&self) -> bool {
        self.asked.is_empty()
    }

    /// Others are wanted from now on.
    pub(super) fn want(&mut self, wanted: &Wanted) {
        let gone = |old: &&Subscription| !wanted.subscriptions.iter().any(|new| new.filter == old.filter);
        self.unwanted.extend(self.wanted.iter().filter(gone).map(|old| old.filter.clone()));
        self.unwanted.retain(|filter| !wanted.subscriptions.iter().any(|new| new.filter == *filter));
        self.wanted = wanted.subscriptions.clone();
        self.number = wanted.number;
    }

    /// The connection is gone, and with it what was asked on it.
    pub(super) fn lost(&mut self) {
        self.asked.clear();
        self.unasked.clear();
        self.again = None;
    }

    /// A connection stands. Without the session of before the broker has no subscription.
    pub(super) fn connected(&mut self, client: &AsyncClient, session_present: bool) {
        if !session_present {
            self.unwanted.clear();
        }
        self.ask(client);
        if client.try_subscribe_many(Drops::filters()).is_ok() {
            self.asked.push_back(Asked::Drops);
        }
    }

    /// Asks for what is wanted, and takes back what is not. First the one, then the other: a message that both take may come twice,
    /// and none is lost between the two. False: not now.
    pub(super) fn ask(&mut self, client: &AsyncClient) -> bool {
        self.again = None;
        let filters = self.wanted.iter().map(|subscription| SubscribeFilter {
            path: subscription.filter.clone(),
            qos: match subscription.qos {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            nolocal: false,
            preserve_retain: false,
            // Retained messages are no news: they would come again with every connection.
            retain_forward_rule: RetainForwardRule::Never,
        });
        if let Err(error) = client.try_subscribe_many(filters) {
            tracing::debug!(%error, "cannot queue the subscription yet");
            self.again = Some(Instant::now() + FULL);
            return false;
        }
        self.asked.push_back(Asked::Routes(self.number, self.wanted.clone()));
        if !self.unwanted.is_empty() {
            match client.try_unsubscribe_many(self.unwanted.iter().cloned()) {
                Ok(()) => self.unasked.push_back(self.unwanted.clone()),
                Err(error) => {
                    tracing::debug!(%error, "cannot queue the end of a subscription yet");
                    self.again = Some(Instant::now() + FULL);
                }
            }
        }
        true
    }

    /// The broker answered to a SUBSCRIBE.
    pub(super) fn on_suback(&mut self, name: &str, codes: &[SubscribeReasonCode]) -> Said {
        let (number, wanted) = match self.asked.pop_front() {
            Some(Asked::Routes(number, wanted)) => (number, wanted),
            Some(Asked::Drops) => {
                Drops::on_granted(name, codes);
                return Said::Nothing;
            }
            None => return Said::Nothing,
        };
        let refused = wanted.iter().zip(codes).find_map(|(wanted, code)| match code {
            SubscribeReasonCode::Success(granted) if (*granted as u8) < wanted.qos => Some(format!(
                "the broker grants QoS {} for {}, where {} was asked for: messages may be lost",
                *granted as u8, wanted.filter, wanted.qos
            )),
            SubscribeReasonCode::Success(_) => None,
            code => Some(format!("the broker refused the subscription to {}: {code:?}", wanted.filter)),
        });
        self.said = Confirmed { number, refused: refused.clone() };
        self.confirm();
        // What was wanted meanwhile was asked for, and is answered next.
        if number != self.number {
            return Said::Nothing;
        }
        match refused {
            Some(reason) => {
                self.again = Some(Instant::now() + REFUSED);
                Said::Refused(reason, !std::mem::replace(&mut self.refused, true))
            }
            None => Said::Subscribed(std::mem::take(&mut self.refused)),
        }
    }

    /// The broker answered to an UNSUBSCRIBE: it has no such subscription any more.
    pub(super) fn on_unsuback(&mut self) {
        let Some(gone) = self.unasked.pop_front() else { return };
        self.unwanted.retain(|filter| !gone.contains(filter));
        self.confirm();
    }

    fn confirm(&self) {
        if self.unwanted.is_empty() {
            self.confirmed.send_replace(self.said.clone());
        }
    }
}
