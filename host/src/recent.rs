//! The last messages of each route and the last commands, for a new build to be tried on before it is live. They are in memory alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sluicegate_core::message::{Field, GuestCommand, Message};

/// Messages of one route, or commands.
pub const MAX_MESSAGES: usize = 256;
/// Bytes of one route's messages, or of the commands, all together.
const MAX_BYTES: usize = 4 << 20;
/// Of one route, or of the commands, in a second: a rush is represented, not followed, so noting costs next to nothing under load.
const MAX_A_SECOND: usize = 256;

/// Where they are kept.
///
/// The locks are held for a copy of one small message, or of a list of references; never across a wait.
#[derive(Debug, Default)]
pub struct Recent {
    rings: Mutex<HashMap<Arc<str>, Ring<Message>>>,
    commands: Mutex<Ring<GuestCommand>>,
}

#[derive(Debug)]
struct Ring<T> {
    /// Each with its size.
    items: VecDeque<(usize, Arc<T>)>,
    bytes: usize,
    /// The second that is counted, since the gateway started, and what was noted in it.
    second: u64,
    noted: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), bytes: 0, second: 0, noted: 0 }
    }
}

impl<T> Ring<T> {
    /// Notes what `copy` gives, where there is room for it.
    fn note(&mut self, size: usize, now: Duration, copy: impl FnOnce() -> T) {
        if self.second != now.as_secs() {
            (self.second, self.noted) = (now.as_secs(), 0);
        }
        if self.noted >= MAX_A_SECOND || size > MAX_BYTES {
            return;
        }
        self.noted += 1;
        self.bytes += size;
        self.items.push_back((size, Arc::new(copy())));
        while self.items.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let Some((size, _)) = self.items.pop_front() else { break };
            self.bytes -= size;
        }
    }

    fn newest(&self, most: usize) -> Vec<Arc<T>> {
        let skip = self.items.len().saturating_sub(most);
        self.items.iter().skip(skip).map(|(_, item)| item.clone()).collect()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recent {
    /// Notes a message of a route as the first handler is given it; `now` is since the gateway started.
    pub fn note(&self, route: &Arc<str>, message: &Message, now: Duration) {
        let mut rings = held(&self.rings);
        let ring = match rings.get_mut(route) {
            Some(ring) => ring,
            None => rings.entry(route.clone()).or_default(),
        };
        // A copy: the payload is a part of what was read from the broker, and would keep all of that in memory.
        let copy = || Message { payload: Bytes::copy_from_slice(&message.payload), ..message.clone() };
        ring.note(size(message), now, copy);
    }

    /// Notes a command as the validator is given it.
    pub fn note_command(&self, command: &GuestCommand, now: Duration) {
        let size = command.payload.len() + command.target.len() + command.name.len() + command.message_id.len();
        let copy = || GuestCommand { payload: Bytes::copy_from_slice(&command.payload), ..command.clone() };
        held(&self.commands).note(size, now, copy);
    }

    /// The newest messages of a route, oldest first, at most so many.
    #[must_use]
    pub fn of(&self, route: &str, most: usize) -> Vec<Arc<Message>> {
        held(&self.rings).get(route).map_or_else(Vec::new, |ring| ring.newest(most))
    }

    /// The newest commands, oldest first, at most so many.
    #[must_use]
    pub fn commands(&self, most: usize) -> Vec<Arc<GuestCommand>> {
        held(&self.commands).newest(most)
    }

    /// Forgets routes that are not kept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        held(&self.rings).retain(|route, _| keep(route));
    }
}

fn size(message: &Message) -> usize {
    let fields = |fields: &[Field]| fields.iter().map(|field| field.name.len() + field.value.len()).sum::<usize>();
    message.payload.len() + message.topic.len() + fields(&message.captures) + fields(&message.properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: usize, size: usize) -> Message {
        Message {
            topic: "t".to_owned(),
            captures: Vec::new(),
            payload: vec![b'x'; size].into(),
            properties: Vec::new(),
            received_at: String::new(),
            id: number.to_string(),
            attempt: 1,
        }
    }

    fn ids(recent: &Recent, most: usize) -> Vec<usize> {
        recent.of("a", most).iter().map(|message| message.id.parse().expect("a number")).collect()
    }

    #[test]
    fn the_newest_are_kept_within_bounds() {
        let recent = Recent::default();
        let route: Arc<str> = "a".into();
        for number in 0..1_000 {
            recent.note(&route, &message(number, 10), Duration::from_millis(number as u64 * 10));
        }
        assert_eq!(ids(&recent, usize::MAX), (744..1_000).collect::<Vec<_>>());
        assert_eq!(ids(&recent, 3), [997, 998, 999]);
        for number in 0..5 {
            recent.note(&route, &message(number, 1 << 20), Duration::from_secs(100));
        }
        assert_eq!(ids(&recent, usize::MAX), [2, 3, 4], "with its topic, a fourth one is too much");
        recent.note(&route, &message(9, 5 << 20), Duration::from_secs(101));
        assert_eq!(ids(&recent, usize::MAX), [2, 3, 4]);
        assert_eq!(recent.of("b", 9), Vec::<Arc<Message>>::new());
        recent.retain(|route| route != "a");
        assert_eq!(ids(&recent, usize::MAX), Vec::<usize>::new());
    }

    #[test]
    fn a_rush_is_represented_by_its_beginning() {
        let recent = Recent::default();
        let route: Arc<str> = "a".into();
        for number in 0..10_000 {
            recent.note(&route, &message(number, 10), Duration::from_secs(1));
        }
        assert_eq!(ids(&recent, usize::MAX), (0..256).collect::<Vec<_>>());
    }
}
