//! Storage's limits, each with its reason.

use crate::extent::CHUNK_BYTES;
use crate::io::BLOCK_BYTES;
use crate::volume::FRAME_BYTES;

/// Bytes of a tenant's WAL image in memory; what comes after spills to an unnamed temporary file,
/// where each frame costs system calls. Twice what starts a checkpoint, so that a tenant that goes
/// on writing while it is checkpointed stays in memory: with 1 MiB and a checkpoint at 4 MiB one
/// busy tenant read and wrote its spill file five times a commit.
pub const WAL_MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bytes of a tenant's WAL, memory and spill together. Beyond it a transaction gets `SQLITE_FULL`.
pub const WAL_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Bytes in memory of one of SQLite's temporary objects (a sort run, a statement journal).
pub const SCRATCH_MEMORY_BYTES_MAX: u64 = 256 * 1024;

/// Bytes of a tenant's temporary files, WAL spill included; then `SQLITE_FULL`.
pub const TEMPORARY_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Temporary objects of one tenant at a time: SQLite makes one per sorter, journal and index of a
/// statement.
pub const SCRATCH_MAX: usize = 256;

/// Bytes of a quarantine that are freed at once: less than 4 ms of the kernel's work.
pub const QUARANTINE_STEP_BYTES: u64 = 16 * 1024 * 1024;

/// Pages that a checkpoint or a copy gathers into one write, and reads back in one read. The kernel copies
/// them in one step of the loop, 20 us; and a buffer of so many is not a mapping of its own.
pub const CHECKPOINT_RUN_PAGES: usize = 16;

/// Bytes of heap that a tenant may hold unless its budget says otherwise: the allocator attacks of
/// the confinement battery peak just below it.
pub const TENANT_MEMORY_BYTES: u64 = 16 * 1024 * 1024;

/// A database that holds no more than this is small: the last of the machine's memory is kept for
/// such. One with a few connections, some cached pages and a WAL of some commits holds 150 to 700 KiB.
pub const SMALL_MEMORY_BYTES: u64 = 1024 * 1024;

const _: () = assert!(SMALL_MEMORY_BYTES < TENANT_MEMORY_BYTES);
const _: () = assert!(WAL_MEMORY_BYTES_MAX.is_multiple_of(CHUNK_BYTES as u64));
const _: () = assert!(SCRATCH_MEMORY_BYTES_MAX.is_multiple_of(CHUNK_BYTES as u64));
const _: () = assert!(CHUNK_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(WAL_MEMORY_BYTES_MAX + SCRATCH_MEMORY_BYTES_MAX < TENANT_MEMORY_BYTES);
const _: () = assert!(WAL_BYTES_MAX < TEMPORARY_BYTES_MAX);
const _: () = assert!(WAL_BYTES_MAX / FRAME_BYTES < u32::MAX as u64);
