//! How many bytes of payloads are in memory (`mqtt.in_flight_bytes`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What a message costs beside its payload: topic, properties, places in queues.
const OVERHEAD: usize = 512;

/// The bytes that messages may hold.
#[derive(Debug)]
pub struct Room {
    most: AtomicUsize,
    held: AtomicUsize,
    freed: Notify,
}

/// One message's share; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    room: Arc<Room>,
    bytes: usize,
}

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    /// In memory, until it is done.
    Memory,
    /// On the disk, as it came.
    Disk,
    /// Nowhere: the disk does not keep up, or is full.
    Nowhere,
}

impl Room {
    /// So many bytes.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: AtomicUsize::new(most), held: AtomicUsize::new(0), freed: Notify::new() })
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// So many bytes from now on.
    pub fn set(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
        // Who waits looks again.
        self.freed.notify_waiters();
    }

    /// What there is room for now. What is on its way to the disk is in memory too, so beyond twice the bound nothing is taken.
    #[must_use]
    pub fn fits(&self) -> Fits {
        let held = self.held.load(Ordering::Relaxed);
        let most = self.most();
        if held < most {
            Fits::Memory
        } else if held < most.saturating_mul(2) {
            Fits::Disk
        } else {
            Fits::Nowhere
        }
    }

    /// Takes a share, whether or not there is room.
    #[must_use]
    pub fn share(self: &Arc<Self>, payload: usize) -> Share {
        let bytes = payload + OVERHEAD;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Share { room: self.clone(), bytes }
    }

    /// Waits until half of it is free.
    ///
    /// # Cancel safety
    /// Dropped, nothing is lost.
    pub async fn half_free(&self) {
        loop {
            let freed = self.freed.notified();
            if self.held.load(Ordering::Relaxed) <= self.most() / 2 {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let before = self.room.held.fetch_sub(self.bytes, Ordering::Relaxed);
        let half = self.room.most() / 2;
        if before > half && before - self.bytes <= half {
            self.room.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_given_back_can_be_taken_again() {
        let room = Room::new(10 * OVERHEAD);
        let mut shares: Vec<Share> = (0..10).map(|_| room.share(0)).collect();
        assert_eq!(room.fits(), Fits::Disk);
        shares.extend((0..10).map(|_| room.share(0)));
        assert_eq!(room.fits(), Fits::Nowhere);
        let waiting = room.half_free();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        shares.truncate(6);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        shares.truncate(5);
        waiting.await;
        assert_eq!(room.fits(), Fits::Memory);
        room.set(2 * OVERHEAD);
        assert_eq!(room.fits(), Fits::Nowhere);
        let waiting = room.half_free();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        room.set(20 * OVERHEAD);
        waiting.await;
    }
}
