//! The commit log that all tenants share, as a state machine without I/O.
//!
//! Owns the log's bytes and every decision about them: batches, header copies, segments and their
//! reuse, log space, and what a start finds after a crash. It asks for reads and writes as values
//! ([`LogRequest`]) and is told the results ([`LogReply`]); who carries them out is the caller's
//! business, and so are tenant files, checkpoints, and fencing tenants. Time, threads and
//! randomness do not occur.
//!
//! A start makes a [`Scan`], carries out its requests until [`Scan::outcome`] has one, and goes on
//! with the [`Log`] in it. A commit reserves space ([`Log::reserve`]), begins a transaction, pushes
//! its pages and finishes it; it is durable once [`Log::durable_sequence`] has reached its last
//! batch. The byte layout stands in `header` and `ring`, the decisions of recovery in `decide`.
//!
//! Invariants:
//! - One batch in flight: batch n + 1 is written only after batch n is durable. A batch lies in one
//!   segment, at a block boundary, and is one write.
//! - A header copy is written only after its batch is durable (never before: a crash between the
//!   two would make healthy tenants look rotten), and at most one copy is behind.
//! - A segment is used again only when a durable header *copy* says that all its batches are
//!   superseded. A `redo_from` in memory is not enough, nor one in a batch without a copy: a torn
//!   write over the segment's old batches would leave a start that is still sent there by the
//!   newest header it can find without reading the log from its oldest batch on.
//! - The next batch's place follows from the one before: right behind it, or the next segment's
//!   start if fewer than two blocks are left.
//! - What was reserved can always be appended.
//! - After a failed write nothing becomes durable any more.

mod append;
mod batch;
mod decide;
mod header;
pub mod limits;
mod located;
mod prepare;
mod reader;
mod recovered;
mod replay;
mod ring;
mod scan;
mod space;
mod transfer;

#[cfg(test)]
mod tests;

pub use append::{BatchFull, Committed, Log, Transaction};
pub use decide::{Action, BatchState, CopyState, SuccessorState, decide};
pub use header::{
    FORMAT_VERSION, Header, HeaderFields, PageCheck, PageEntry, Record, describe_batch,
    encode as encode_header, page_check,
};
pub use recovered::{
    Damage, PageLocation, ReadPlan, Recovered, RecoveredTenant, RecoveryError, Torn,
};
pub use scan::Scan;
pub use space::{Class, LogFull, transaction_cost_bytes};

use crate::io::{BLOCK_BYTES, Buffer};
use limits::{
    BATCH_BLOCKS_LEAST, BATCH_BYTES_LIMIT, SEGMENT_BLOCKS_LEAST, SEGMENT_COUNT_LEAST,
    SEGMENT_COUNT_MOST,
};
use std::io;

/// Number of a batch, from 1; 0 stands for "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The batch after this one.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// Where a batch starts: a segment's number (from 0, growing for ever) and the offset in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Segment number; its file is slot `segment % segment_count`.
    pub segment: u64,
    /// Offset in bytes, a multiple of [`BLOCK_BYTES`].
    pub offset: u64,
}

impl Place {
    /// The place of the batch after one of `batch_bytes` here: the rule that needs no memory.
    #[must_use]
    pub(crate) fn after(self, batch_bytes: u64, segment_bytes: u64) -> Place {
        let offset = self.offset + batch_bytes;
        assert!(offset <= segment_bytes);
        if segment_bytes - offset < 2 * BLOCK_BYTES as u64 {
            return Place { segment: self.segment + 1, offset: 0 };
        }
        Place { segment: self.segment, offset }
    }
}

/// The log's shape and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of each segment file. A log that exists keeps the shape it was created with.
    pub segment_bytes: u64,
    /// Number of segment files. A log that exists keeps the shape it was created with.
    pub segment_count: u32,
    /// Longest batch in bytes, header included. The log holds two buffers of it.
    pub batch_bytes_max: usize,
    /// Bytes of log space that only [`Class::System`] may reserve: one maximal catalogue record
    /// and one maximal checkpoint step, so that a full log always drains.
    pub system_reserve_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 16 * 1024 * 1024,
            segment_count: 16,
            batch_bytes_max: 1024 * 1024,
            system_reserve_bytes: 2 * 1024 * 1024,
        }
    }
}

impl LogOptions {
    /// Check the relations between the numbers.
    ///
    /// # Panics
    /// If the options are no multiples of a block, out of their bounds, or at odds.
    pub fn check(&self) {
        let block = BLOCK_BYTES as u64;
        assert!(self.segment_bytes.is_multiple_of(block));
        assert!(self.segment_bytes >= SEGMENT_BLOCKS_LEAST * block);
        assert!(self.segment_count >= SEGMENT_COUNT_LEAST);
        assert!(self.segment_count <= SEGMENT_COUNT_MOST);
        assert!(self.batch_bytes_max.is_multiple_of(BLOCK_BYTES));
        assert!(self.batch_bytes_max >= BATCH_BLOCKS_LEAST * BLOCK_BYTES);
        assert!(self.batch_bytes_max <= BATCH_BYTES_LIMIT);
        assert!(self.batch_bytes_max as u64 <= self.segment_bytes);
        assert!(self.system_reserve_bytes <= space::usable_bytes(self) / 2);
    }

    /// The segment file in which segment number `segment` lies.
    pub(crate) fn slot(&self, segment: u64) -> u32 {
        (segment % u64::from(self.segment_count)) as u32
    }
}

/// A file of the log. All are opened for writing with direct I/O, data-sync and a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogFile {
    /// Superblock and header copies.
    Ring,
    /// One segment slot.
    Segment(u32),
}

impl LogFile {
    /// The file's name in the log's folder.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            LogFile::Ring => String::from("ring"),
            LogFile::Segment(slot) => format!("segment-{slot:03}"),
        }
    }
}

/// Names one request; each is completed exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogRequestId(pub u64);

/// One thing to do.
#[derive(Debug)]
pub struct LogRequest {
    /// Handed back to `complete`.
    pub id: LogRequestId,
    /// What to do.
    pub operation: LogOperation,
}

/// What the log may ask for. Offsets and lengths are multiples of a block.
#[derive(Debug)]
pub enum LogOperation {
    /// Open a file; a refused lock is tried again by the caller and not reported.
    Open {
        /// Which file.
        file: LogFile,
        /// Create it if it is missing; without this, a missing file is `NotFound`.
        create: bool,
    },
    /// Reserve disk space for the file and set its size.
    Allocate {
        /// Which file.
        file: LogFile,
        /// Its size in bytes.
        bytes: u64,
    },
    /// Write the whole buffer.
    Write {
        /// Which file.
        file: LogFile,
        /// Where the buffer's first byte goes.
        offset: u64,
        /// What to write.
        buffer: Buffer,
    },
    /// Read as many bytes as the buffer is long.
    Read {
        /// Which file.
        file: LogFile,
        /// Where the buffer's first byte comes from.
        offset: u64,
        /// Where to put it.
        buffer: Buffer,
    },
    /// Make the file's bytes and size durable.
    Sync {
        /// Which file.
        file: LogFile,
    },
    /// Make the names in the log's folder durable, and the folder's own name.
    SyncDirectory,
}

/// The result of a request, by its kind.
#[derive(Debug)]
pub enum LogReply {
    /// The file's size in bytes.
    Opened(io::Result<u64>),
    /// Whether the space was reserved.
    Allocated(io::Result<()>),
    /// The buffer, and the bytes written from its start.
    Written(Buffer, io::Result<usize>),
    /// The buffer, and the bytes read to its start; 0 is the end of the file.
    Read(Buffer, io::Result<usize>),
    /// Whether the file is durable.
    Synced(io::Result<()>),
    /// Whether the names are durable.
    DirectorySynced(io::Result<()>),
}

/// A reply that does not belong to the request it answers: a bug of the caller.
pub(crate) fn mismatched(reply: &LogReply) -> ! {
    panic!("the reply {reply:?} does not answer the log's request");
}

/// Whether an error of a read or write says "try again" rather than "failed".
pub(crate) fn is_interruption(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// Whether an error says that the disk has no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
