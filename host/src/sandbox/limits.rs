//! How much one instance may have: the engine asks per memory and per table, so this sums them.

use sluicegate_core::settings::Limits;
use wasmtime::ResourceLimiter;

/// Sums what an instance asked for.
#[derive(Debug)]
pub(super) struct Allowance {
    memory: usize,
    /// What its memories have: they never shrink.
    pub(super) memory_used: usize,
    tables: usize,
    table_used: usize,
    /// Whether memory was refused: a guest that does not survive it shows as a trap, and this says why.
    pub(super) refused: bool,
}

impl Allowance {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            memory: usize::try_from(limits.memory.0).unwrap_or(usize::MAX),
            memory_used: 0,
            tables: limits.table_elements,
            table_used: 0,
            refused: false,
        }
    }
}

impl ResourceLimiter for Allowance {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.memory_used.saturating_add(desired.saturating_sub(current));
        let granted = sum <= self.memory;
        if granted {
            self.memory_used = sum;
        } else {
            self.refused = true;
        }
        Ok(granted)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.table_used.saturating_add(desired.saturating_sub(current));
        let granted = sum <= self.tables;
        if granted {
            self.table_used = sum;
        }
        Ok(granted)
    }

    fn instances(&self) -> usize {
        16
    }

    fn tables(&self) -> usize {
        8
    }

    fn memories(&self) -> usize {
        4
    }
}
