//! Every bound of the commit log, with its reason.

use crate::io::BLOCK_BYTES;

/// Bytes of a header before its tables.
pub const HEADER_FIXED_BYTES: usize = 128;

/// Bytes of one record's entry in a header's first table.
pub const RECORD_ENTRY_BYTES: usize = 32;

/// Bytes of one page's entry in a header's second table.
pub const PAGE_ENTRY_BYTES: usize = 20;

/// Blocks of the longest header. It holds every batch of [`BATCH_BYTES_LIMIT`], also one whose
/// every page is a record of its own.
pub const HEADER_BLOCKS_MAX: usize = 8;

/// Bytes of the longest header.
pub const HEADER_BYTES_MAX: usize = HEADER_BLOCKS_MAX * BLOCK_BYTES;

/// Longest batch that any version of the options may ask for. A longer write does not make a disk
/// faster, and recovery keeps one batch in memory.
pub const BATCH_BYTES_LIMIT: usize = 2 * 1024 * 1024;

/// Shortest batch limit: a header and three pages, so that the header's share per page is bounded.
pub const BATCH_BLOCKS_LEAST: usize = 4;

/// Shortest segment: the overhead that the accounting keeps per segment stays under a quarter.
pub const SEGMENT_BLOCKS_LEAST: u64 = 16;

/// Fewest segments: one filling, one being freed, one ahead, and one that makes progress.
pub const SEGMENT_COUNT_LEAST: u32 = 4;

/// Most segments: each is an open file, and a name has three digits.
pub const SEGMENT_COUNT_MOST: u32 = 1000;

/// Header copies kept. Only the last batch needs its copy for a decision; the others are a second
/// chance for recent headers. 16 slots make a ring of 1 MiB, read at every start.
pub const RING_SLOTS: usize = 16;

/// Blocks of a ring slot: the longest header, twice.
pub const SLOT_BLOCKS: usize = 2 * HEADER_BLOCKS_MAX;

/// Bytes of a ring slot.
pub const SLOT_BYTES: usize = SLOT_BLOCKS * BLOCK_BYTES;

/// Bytes before the first ring slot: the superblock, twice.
pub const RING_SLOTS_OFFSET: usize = 2 * BLOCK_BYTES;

/// Bytes of the ring file.
pub const RING_BYTES: usize = RING_SLOTS_OFFSET + RING_SLOTS * SLOT_BYTES;

/// Memory for log bytes while scanning: two of the longest batches, so that windows rarely overlap.
pub const SCAN_WINDOW_BYTES: usize = 2 * BATCH_BYTES_LIMIT;

/// Bytes of one read while scanning.
pub const READ_PIECE_BYTES: usize = 1024 * 1024;

/// Tries of one read before its bytes count as unreadable. Transient errors last 1 to 3 tries.
pub const READ_ATTEMPTS: u32 = 4;

/// Times a write may make no progress in a row (interrupted, or less than a block) before it counts
/// as failed. A working disk interrupts a write rarely and never for ever.
pub const STALLS_MAX: u32 = 16;

/// Bytes of one write while a new file is filled with zeros: short, because commits wait behind it.
pub const ZERO_STEP_BYTES: usize = 512 * 1024;

/// Bytes charged for one header, over and above its table entries: a block, and the fixed part
/// once more for rounding the tables up to whole blocks.
pub const HEADER_CHARGE_BYTES: u64 = (BLOCK_BYTES + HEADER_FIXED_BYTES) as u64;

/// Bytes a segment may lose: one block at its end, the header of the batch that its end cuts short,
/// and one batch that only makes a new `redo_from` durable: less than four blocks together.
pub const SEGMENT_OVERHEAD_BYTES: u64 = 4 * BLOCK_BYTES as u64;

/// Bytes nobody may reserve: the header of the batch being filled, which its transactions pay only
/// when they end, and the batch that frees a segment of a full log.
pub const LAST_BYTES: u64 = 4 * BLOCK_BYTES as u64;

const PAGES_LIMIT: usize = BATCH_BYTES_LIMIT / BLOCK_BYTES - HEADER_BLOCKS_MAX;
const _: () = assert!(
    HEADER_FIXED_BYTES + PAGES_LIMIT * (RECORD_ENTRY_BYTES + PAGE_ENTRY_BYTES) <= HEADER_BYTES_MAX
);
const _: () = assert!(SCAN_WINDOW_BYTES >= BATCH_BYTES_LIMIT);
const _: () = assert!(READ_PIECE_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(ZERO_STEP_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(SEGMENT_OVERHEAD_BYTES >= BLOCK_BYTES as u64 + 2 * HEADER_CHARGE_BYTES);
const _: () = assert!(SEGMENT_OVERHEAD_BYTES * 4 <= SEGMENT_BLOCKS_LEAST * BLOCK_BYTES as u64);
