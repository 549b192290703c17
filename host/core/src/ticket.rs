//! What stands for a publish that was taken from the broker and not acknowledged yet, and every way that it ends.

/// One connection to the broker, counted from 1. An acknowledgement of an older one is never sent on a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A publish's place in the order of arrival on its connection.
///
/// Invariant: whoever holds it settles it; one that is never settled withholds every acknowledgement behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The connection that it came in on.
    pub epoch: Epoch,
    /// 0, 1, 2, … on that connection.
    pub arrival: u64,
}

/// Every way that a message ends. Each of them may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Redis confirmed its jobs.
    Pushed,
    /// Redis knew all of its jobs already.
    Suppressed,
    /// It is in the dead letters.
    Dead,
    /// It was dropped on purpose.
    Dropped,
}
