//! Named limits of the simulated world, each with its reason.

/// Callbacks that one `run` may deliver. Small enough that a turn stays short, large enough that a
/// full submission queue of a ring fits in one turn.
pub const CALLBACKS_PER_RUN_MAX: usize = 256;

/// Events a doomed world may still cause before it counts as never ending: an error path that
/// retries for ever would otherwise hang the simulator (MEM-5 in the list of properties).
pub const DOOMED_EVENTS_MAX: u64 = 10_000;

/// Events between two checkpoints of the trace hash: 1,024 keeps the list at 16 bytes per thousand
/// events, and a divergence within a screen or two of readable trace.
pub const CHECKPOINT_EVENTS: u64 = 1_024;

/// Last events kept in memory, for the report of a failure.
pub const RECENT_EVENTS_MAX: usize = 50;

/// Connections that may wait for an accept; the kernel's `SOMAXCONN` was 128 for twenty years.
pub const BACKLOG_MAX: usize = 128;

/// Segments into which one send is cut at most; the rest travels whole. Without it a response of a
/// megabyte in one-byte segments would be a million events.
pub const SEGMENTS_PER_SEND_MAX: usize = 24;

/// Longest time after a kill at which an in-flight direct write may still land.
pub const LATE_LANDING_MAX_NS: u64 = 1_000_000_000;

/// Longest delay of an operation of a doomed world.
pub const DOOMED_DELAY_MAX_NS: u64 = 1_000;

/// Largest file of the simulated disk: 1 TiB, far over any test and far from overflow.
pub const FILE_BYTES_MAX: u64 = 1 << 40;

/// Longest file or directory name in bytes (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;

const _: () = assert!(CALLBACKS_PER_RUN_MAX as u64 <= CHECKPOINT_EVENTS);
const _: () = assert!(DOOMED_EVENTS_MAX > CHECKPOINT_EVENTS);
