//! Tenant's limits, each with its reason. Budgets by plan come on top, never beyond these.

/// Compiled statements that a connection keeps for reuse. Drivers repeat a few dozen texts; each
/// keeps 2-10 KB of the tenant's own heap.
pub const STATEMENTS_CACHED_MAX: usize = 32;

/// SQL texts longer than this are compiled anew each time: they are imports, not queries.
pub const STATEMENT_CACHED_BYTES_MAX: usize = 4096;

/// SQL texts that a stream may keep by id; @libsql/client uses up to 100.
pub const STORED_SQL_MAX: usize = 150;

/// Bytes of one stored SQL text; @libsql/client stores texts below 5,000 characters.
pub const STORED_SQL_BYTES_MAX: usize = 64 * 1024;

/// Open streams of one tenant: each may hold a connection of some 50 KB.
pub const STREAMS_MAX: usize = 128;

/// Idle connections that a tenant keeps for its next requests.
pub const IDLE_CONNECTIONS_MAX: usize = 4;

/// How long a request waits for a connection that another one of its tenant uses, before it opens
/// one more. Most statements take less, and the connection that just ran has the pages that the
/// next one needs: with a connection each, 30 writers of one database made batches of one commit.
pub const CONNECTION_WAIT_NS: u64 = 2_000_000;

/// Requests of one tenant that wait or run.
pub const REQUESTS_MAX: usize = 1024;

/// Nanoseconds of a second, for the times below.
pub const SECOND_NS: u64 = 1_000_000_000;

/// A stream without a request is closed after this; libSQL servers use the same.
pub const STREAM_IDLE_NS: u64 = 10 * SECOND_NS;

/// A transaction whose stream sits idle loses the writer lock after this, if somebody waits for it;
/// libSQL servers use the same.
pub const TRANSACTION_IDLE_NS: u64 = 5 * SECOND_NS;

/// How long a writer waits for the lock before it is told that the database is busy. Longer than
/// [`TRANSACTION_IDLE_NS`], so an idle holder yields first.
pub const WRITER_WAIT_NS: u64 = 15 * SECOND_NS;

/// How long a commit waits for space in the log before it is refused.
pub const LOG_WAIT_NS: u64 = 5 * SECOND_NS;

/// Pages that the catalogue's transaction about one checkpoint may change: the leaf with the row,
/// and one more when it splits.
pub const CHECKPOINT_ROW_PAGES: u32 = 2;

/// Pages that a checkpoint itself may bring into the log: page 1, to be stamped.
pub const CHECKPOINT_STAMP_PAGES: u32 = 1;

/// Pages that a transaction of creates and drops may change beside those of each call: the roots of
/// table and index, and page 1.
pub const GROWTH_PAGES: u32 = 4;

/// Creates and drops that go into one transaction where the log has no room for all that wait: few
/// enough for a small log, enough to share a write.
pub const GROWTH_CALLS: usize = 32;

/// Pages that each create or drop may change: a leaf of the table and one of the names' index.
pub const GROWTH_PAGES_EACH: u32 = 2;

/// Tries, a second apart, to write the end of the log or a database's file to a full or broken disk
/// when the server stops: as long as the server waits for its clients then. What is not in its file by
/// then stays in the log.
pub const STOP_RETRIES_MAX: u32 = 10;

/// How long one request may run, the time that its client takes to read the response not counted.
pub const REQUEST_NS: u64 = 30 * SECOND_NS;

/// A tenant without requests and streams is closed after this.
pub const TENANT_IDLE_NS: u64 = 60 * SECOND_NS;

/// VM steps of a turn: about 0.1 ms of simple steps.
pub const QUANTUM_STEPS: u64 = 10_000;

/// Fibers resumed in one turn of the loop, so that completions are never far away.
pub const RESUMES_PER_TURN: usize = 256;

/// Fibers at a time: 64 MiB of stacks if all were used to the end.
pub const FIBERS_MAX: usize = 1024;

/// Checkpoints at a time: their syncs share journal commits of the file system.
pub const CHECKPOINTS_MAX: usize = 16;

/// Bytes of WAL after which a tenant is checkpointed: about 500 pages.
pub const CHECKPOINT_WAL_BYTES: u64 = 2 * 1024 * 1024;

/// After a failed or incomplete checkpoint the next try waits this long.
pub const CHECKPOINT_RETRY_NS: u64 = SECOND_NS;

/// Share of the log in percent above which the oldest tenants are checkpointed.
pub const LOG_PRESSURE_PERCENT: u64 = 50;

/// Bytes of a database's file unless its budget says otherwise: SQLite's own limit with our pages.
pub const STORAGE_BYTES_MAX: u64 = 1 << 40;

/// Weight of a database unless its budget says otherwise: leaves room for smaller ones.
pub const WEIGHT: u64 = 100;

/// Operations of the catalogue in one transaction.
pub const CATALOGUE_BATCH: usize = 256;

/// Databases in one page of a list.
pub const LIST_PAGE_MAX: usize = 1000;

/// What the parts of a cost are priced at, in the order of [`storage::meter::PART_NAMES`], in parts of
/// a million of a request unit: VM step, page read, page written, log byte, result byte.
pub const PRICES: storage::meter::Prices = [10, 100, 10_000, 1, 1];

/// The price of a cost in parts of a million of a request unit (RU).
#[must_use]
pub fn request_units_micro(cost: &storage::meter::Cost) -> u64 {
    storage::meter::price(cost, &PRICES)
}

const _: () = assert!(WRITER_WAIT_NS > TRANSACTION_IDLE_NS);
const _: () = assert!(STREAM_IDLE_NS > TRANSACTION_IDLE_NS);
const _: () = assert!(RESUMES_PER_TURN <= FIBERS_MAX);
const _: () = assert!(CHECKPOINT_WAL_BYTES * 2 <= storage::limits::WAL_MEMORY_BYTES_MAX);
