//! The spool: an embedded durable queue on the local disk, for what Redis does not take and for what needs another attempt.
//!
//! - [`segment`]: one file.
//! - [`store`]: the files, and which record waits where.
//! - [`writer`]: the thread that owns them; it syncs once for many.
//!
//! Invariant: an append is answered only after the disk has it; after a failed sync nothing is written any more, since nobody
//! knows what the disk has.

use std::io;
use std::path::PathBuf;

use sluicegate_core::settings::ByteSize;
use sluicegate_core::spooled::SpooledError;

mod segment;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use store::{Depth, Recovered, Waiting, look, usable};
pub use writer::{Spool, Watch, Writer};

/// Why the spool does not take or give a record.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It is at its bound.
    #[error("the spool is full ({0}, spool.max_size); the broker keeps what comes until there is room")]
    Full(ByteSize),
    /// The disk is full, or a quota is used up.
    #[error("no room on the disk for the spool in {}: {source}; make room, and the gateway goes on by itself", folder.display())]
    DiskFull {
        /// Where it is.
        folder: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The folder cannot be used now.
    #[error("cannot use the spool's folder {}: {source}; check spool.path and its permissions", folder.display())]
    Unusable {
        /// Where it is.
        folder: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error("another gateway uses the spool in {}; give each its own spool.path", .0.display())]
    InUse(PathBuf),
    /// A file of it cannot be read at all.
    #[error("cannot read {}: {source}; it holds messages that were acknowledged, so nothing is started without it", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A file holds records of another version.
    #[error("{}: {source}", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What it is.
        #[source]
        source: SpooledError,
    },
    /// The disk failed: what it has is not known, so nothing more is acknowledged.
    #[error(
        "the disk failed to {what} the spool in {}: {source}; nothing was acknowledged after that; check the disk, then start again",
        folder.display()
    )]
    Disk {
        /// What it was to do.
        what: &'static str,
        /// Where it is.
        folder: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Its thread has ended.
    #[error("the spool is closed")]
    Closed,
}

impl SpoolError {
    /// Whether another try may go well.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Full(_) | Self::DiskFull { .. } | Self::Unusable { .. })
    }
}
