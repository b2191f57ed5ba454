//! What a start finds in the log: pages to write to tenant files, damage, or a reason to stop.

use super::header::page_check;
use super::limits::RING_BYTES;
use super::{Log, LogFile, Place, Sequence};
use crate::identity::TenantId;
use crate::io::BLOCK_BYTES;
use std::collections::BTreeMap;
use std::fmt;

/// Where a page image lies in the log. Stays true until `redo_from` has passed its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLocation {
    /// Segment slot: the file is `LogFile::Segment(slot)`.
    pub slot: u32,
    /// Offset of the image in the file.
    pub offset: u64,
    /// First 16 bytes of the image's blake3.
    pub check: [u8; 16],
}

/// An aligned read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    /// Which file.
    pub file: LogFile,
    /// Where to begin, a multiple of a block.
    pub offset: u64,
    /// How many bytes, a multiple of a block.
    pub bytes: usize,
    /// Bytes to skip in what was read: 0, since images lie at block boundaries.
    pub skip: usize,
}

impl PageLocation {
    /// The direct read that brings the page image.
    #[must_use]
    pub fn read_plan(&self) -> ReadPlan {
        ReadPlan {
            file: LogFile::Segment(self.slot),
            offset: self.offset,
            bytes: BLOCK_BYTES,
            skip: 0,
        }
    }

    /// Whether these bytes are the page image that was logged.
    #[must_use]
    pub fn verify(&self, image: &[u8]) -> bool {
        page_check(image) == self.check
    }
}

/// What the log holds of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredTenant {
    /// Its oldest transaction that may not be in its file.
    pub first_txid: u64,
    /// Its newest committed transaction.
    pub last_txid: u64,
    /// Pages of its database after that.
    pub database_pages: u32,
    /// The batch from which on the tenant needs the log.
    pub first_sequence: Sequence,
    /// Newest committed image of each page number. A damaged tenant has none.
    pub pages: BTreeMap<u32, PageLocation>,
}

/// A tenant that lost a page it still needs. Fence it; the others are whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Who.
    pub tenant: TenantId,
    /// Which page of which batch, for the operator.
    pub reason: String,
}

/// A batch at the log's end that was never durable, and was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Its number; the next batch gets the same.
    pub sequence: Sequence,
    /// Where it began.
    pub place: Place,
}

/// The outcome of a scan.
pub struct Recovered {
    /// The log, ready to append after the last good batch.
    pub log: Log,
    /// What to write to tenant files, by tenant; damaged tenants are in here too, without pages.
    pub tenants: BTreeMap<TenantId, RecoveredTenant>,
    /// Tenants to fence, each once.
    pub damaged: Vec<Damage>,
    /// The torn tail, if one was found.
    pub torn: Option<Torn>,
    /// Batches read.
    pub batches: u64,
    /// Bytes of those batches.
    pub bytes: u64,
    /// Headers and copies that were rewritten because their twin was better.
    pub repaired: u64,
    /// Blocks that the disk could not read at all.
    pub unreadable_blocks: u64,
}

impl fmt::Debug for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovered")
            .field("next", &self.log.filling_sequence())
            .field("tenants", &self.tenants)
            .field("damaged", &self.damaged)
            .field("torn", &self.torn)
            .field("batches", &self.batches)
            .field("bytes", &self.bytes)
            .field("repaired", &self.repaired)
            .finish_non_exhaustive()
    }
}

/// The log cannot be trusted and nobody can say who is hurt: do not start, change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// A file could not be opened or written.
    Io {
        /// Which file.
        file: LogFile,
        /// What was tried, and what the kernel said.
        reason: String,
    },
    /// The log was written by another version of this program.
    Version {
        /// The ring's format version.
        found: u32,
    },
    /// The ring says a shape that this program does not accept.
    Shape {
        /// Bytes of a segment.
        segment_bytes: u64,
        /// Number of segments.
        segment_count: u32,
    },
    /// There are segments, but no ring.
    RingMissing,
    /// There are segments, but neither superblock of the ring can be read.
    RingDamaged,
    /// A segment file that batches were written to is gone.
    SegmentMissing {
        /// Its slot.
        slot: u32,
    },
    /// A batch that was durable cannot be read, and nothing says whose transactions were in it.
    Unreadable {
        /// Its slot.
        slot: u32,
        /// Where it began.
        place: Place,
        /// Its number, if that is known.
        sequence: Option<Sequence>,
        /// How it is known that it was durable.
        reason: String,
    },
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryError::Io { file, reason } => {
                write!(f, "commit log file {}: {reason}", file.name())
            }
            RecoveryError::Version { found } => {
                write!(f, "the commit log has format version {found}; this program reads version 1")
            }
            RecoveryError::Shape { segment_bytes, segment_count } => write!(
                f,
                "the commit log says {segment_count} segments of {segment_bytes} bytes: not \
                 a shape of this program"
            ),
            RecoveryError::RingMissing => {
                write!(f, "commit log file {} is missing", LogFile::Ring.name())
            }
            RecoveryError::RingDamaged => write!(
                f,
                "commit log file {}: both superblocks are damaged ({RING_BYTES} bytes expected)",
                LogFile::Ring.name()
            ),
            RecoveryError::SegmentMissing { slot } => write!(
                f,
                "commit log file {} is missing, and batches were written to it",
                LogFile::Segment(*slot).name()
            ),
            RecoveryError::Unreadable { slot, place, sequence, reason } => {
                let file = LogFile::Segment(*slot).name();
                write!(f, "commit log file {file}: the batch ")?;
                if let Some(sequence) = sequence {
                    write!(f, "{} ", sequence.0)?;
                }
                write!(
                    f,
                    "at offset {} (segment {}) cannot be read, it was durable ({reason}), and \
                     nothing says whose transactions it held",
                    place.offset, place.segment
                )
            }
        }
    }
}

impl std::error::Error for RecoveryError {}
