//! The hostile corpus: each case by itself, then all of them in one gateway beside traffic that behaves.

mod exact;
mod laws;
mod neighbours;
mod slot;
mod together;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is measured, and has deadlines, runs by itself.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
