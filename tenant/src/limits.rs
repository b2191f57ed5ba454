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

/// Open streams of one tenant unless its budget says otherwise: each may hold a connection of some
/// 50 KB.
pub const STREAMS: usize = 128;

/// Open streams that a budget may give one tenant: their connections are booked on it, but each
/// is looked at when the tenant closes.
pub const STREAMS_MAX: usize = 1024;

/// Clients' connections to one tenant, those at rest included, unless its budget says otherwise: each
/// has one request at a time, so as many as [`REQUESTS`].
pub const CONNECTIONS: usize = 1024;

/// Clients' connections that a budget may give one tenant: the server has somewhat more in all.
pub const CONNECTIONS_MAX: usize = 8192;

/// Idle connections that a tenant keeps for its next requests.
pub const IDLE_CONNECTIONS_MAX: usize = 4;

/// How long a request waits for a connection that another one of its tenant uses, before it opens
/// one more. Most statements take less, and the connection that just ran has the pages that the
/// next one needs: with a connection each, 30 writers of one database made batches of one commit.
pub const CONNECTION_WAIT_NS: u64 = 2_000_000;

/// Requests of one tenant that wait or run, unless its budget says otherwise.
pub const REQUESTS: usize = 1024;

/// Requests that a budget may give one tenant: each holds a connection of the server's.
pub const REQUESTS_MAX: usize = 8192;

/// Nanoseconds of a second, for the times below.
pub const SECOND_NS: u64 = 1_000_000_000;

/// A stream without a request is closed after this; libSQL servers use the same.
pub const STREAM_IDLE_NS: u64 = 10 * SECOND_NS;

/// A transaction whose stream sits idle loses the writer lock after this, if somebody waits for it;
/// libSQL servers use the same.
pub const TRANSACTION_IDLE_NS: u64 = 5 * SECOND_NS;

/// The longest that a budget may let one sit idle: its stream is closed then.
pub const TRANSACTION_IDLE_NS_MAX: u64 = STREAM_IDLE_NS;

/// How long a writer waits for the lock before it is told that the database is busy. Longer than
/// [`TRANSACTION_IDLE_NS`], so an idle holder yields first.
pub const WRITER_WAIT_NS: u64 = 15 * SECOND_NS;

/// How long a commit waits for space in the log before it is refused.
pub const LOG_WAIT_NS: u64 = 5 * SECOND_NS;

/// Bytes by which a checkpoint may pass the memory budgets of its database and of those above it: a
/// connection, and the order of a write-ahead log's frames. A budget that is full of frames would keep
/// them for ever otherwise, and the log's room with them.
pub const CHECKPOINT_EXTRA_BYTES: u64 = 128 * 1024;

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

/// Closed databases whose use is written to the catalogue together, and how long that waits for
/// more of them: what a crash can lose of it.
pub const USED_BATCH: usize = 64;

/// See [`USED_BATCH`].
pub const USED_WAIT_NS: u64 = SECOND_NS;

/// Tries, a second apart, to write the end of the log or a database's file to a full or broken disk
/// when the server stops: as long as the server waits for its clients then. What is not in its file by
/// then stays in the log.
pub const STOP_RETRIES_MAX: u32 = 10;

/// How long one request may run unless its database's budget says otherwise, the time that its client
/// takes to read the response not counted.
pub const REQUEST_NS: u64 = 30 * SECOND_NS;

/// The longest time that a budget may give a request: an hour, for imports and rebuilt indexes.
pub const REQUEST_NS_MAX: u64 = 3600 * SECOND_NS;

/// Open databases whose use is noted at a time when an hour is over, and the time between: a hundred
/// thousand take some twenty seconds.
pub const USED_SWEEP: usize = 256;

/// See [`USED_SWEEP`].
pub const USED_SWEEP_NS: u64 = 50_000_000;

/// The shortest: a turn or two of a busy server.
pub const REQUEST_NS_MIN: u64 = 10_000_000;

/// A tenant without requests and streams is closed after this.
pub const TENANT_IDLE_NS: u64 = 60 * SECOND_NS;

/// VM steps of a turn of a fiber: what [`QUANTUM_NS`] is enough for.
pub const QUANTUM_STEPS: u64 = 2_500;

/// Nanoseconds of a turn of a database of weight [`WEIGHT`]: what those steps take.
pub const QUANTUM_NS: u64 = 25_000;

/// Nanoseconds that a VM step counts where the clock stands still during a turn, as in a simulation:
/// simple ones take about as long. Where it moves, what it says counts.
pub const STEP_NS: u64 = 10;

/// Nanoseconds that a resumed fiber counts beside its steps where the clock stands still.
pub const RESUME_NS: u64 = 1_000;

/// Nanoseconds of work in one turn of the loop: what arrives meanwhile waits so long.
pub const TURN_NS: u64 = 100_000;

/// Bytes of a turn at the disk of a database of weight [`WEIGHT`]: some four pages. With sixteen the
/// shares of a second at 16 MiB a second were off by a turn, 3 % of the smallest.
pub const IO_QUANTUM_BYTES: u64 = 16_000;

/// A rate or burst of bytes from which on it is none: more than any disk does.
pub const IO_UNLIMITED: u64 = 1 << 50;

/// Nanoseconds of reserved processor time that may be saved up: a request of several turns.
pub const RESERVATION_BURST_NS: u64 = 50_000_000;

/// Closed databases, groups and organisations of which is known what they had left of their ceilings:
/// some 4 MB if all are kept.
pub const REMAINS_MAX: usize = 8192;

/// Bytes of clients' reads and writes that are with the disk at a time: enough to keep a fast one busy
/// with single pages (1,024), few enough that whoever comes next waits a few milliseconds.
pub const IO_BYTES_IN_FLIGHT: u64 = 4 * 1024 * 1024;

/// How long a writer waits before a checkpoint of its database takes no turns at the disk any more:
/// the checkpoint may have the writer lock.
pub const CHECKPOINT_PATIENCE_NS: u64 = 5 * SECOND_NS;

/// How often is looked for requests whose time is over while their budgets delay them.
pub const OVERDUE_LOOK_NS: u64 = SECOND_NS;

/// Fibers resumed in one turn of the loop, so that completions are never far away.
pub const RESUMES_PER_TURN: usize = 256;

/// Memory that the catalogue may hold: its cache, its WAL, its statements.
pub const CATALOGUE_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// Fibers at a time: 256 MiB of stacks if all were used to the end.
pub const FIBERS_MAX: usize = 1024;

/// Of them, requests of clients may have so many.
pub const FIBERS_CLIENTS_MAX: usize = FIBERS_MAX - 128;

/// Closing connections and idle transactions begins only while fewer run: what is left is enough for
/// checkpoints and the catalogue, which nothing may keep waiting.
pub const FIBERS_CLOSING_MAX: usize = FIBERS_MAX - 2 * CHECKPOINTS_MAX;

/// Checkpoints at a time: their syncs share journal commits of the file system.
pub const CHECKPOINTS_MAX: usize = 16;

/// Bytes of WAL after which a tenant is checkpointed: about 500 pages.
pub const CHECKPOINT_WAL_BYTES: u64 = 2 * 1024 * 1024;

/// Bytes of a database's write-ahead log at which a fork or export of it is given up: half of what it may
/// have, so that its writers never hear of it.
pub const SNAPSHOT_WAL_BYTES_MAX: u64 = storage::limits::WAL_BYTES_MAX / 2;

/// Bytes of it at which a copy does not come last any more, but takes its turns as requests do.
pub const SNAPSHOT_HURRY_BYTES: u64 = SNAPSHOT_WAL_BYTES_MAX / 8;

/// Share of the commit log in percent above which a snapshot is given up that keeps the log from being
/// let go: well above [`LOG_PRESSURE_PERCENT`], where checkpoints begin, and well below full.
pub const SNAPSHOT_LOG_PERCENT: u64 = 75;

/// The longest that a fork or export may take, the time that a client takes to read it included.
pub const SNAPSHOT_NS_MAX: u64 = 3600 * SECOND_NS;

/// Copies of databases at a time: each holds a snapshot and a fiber.
pub const FORKS_MAX: usize = 32;

/// What a large copy holds: a run of pages, and the buffer in which it is written.
pub const FORK_BYTES: u64 =
    2 * (storage::limits::CHECKPOINT_RUN_PAGES * storage::page::PAGE_BYTES) as u64;

/// What all copies hold together: eight large ones. It may be one database that pays for all of them.
pub const FORKS_BYTES_MAX: u64 = 8 * FORK_BYTES;

/// Pages of the largest database that is copied into the log. So much costs a write of the log little more than
/// a commit does (256 KiB: a quarter of a batch), and a file with its folders, syncs and the reading
/// back a lot more; it is brought into a file later, which costs the log its room until then.
pub const LOGGED_COPY_PAGES_MAX: u32 = 64;

/// Steps of forks that follow one another in one turn of the loop: the copy, and its row. Each is no longer
/// than a turn's tasks may take.
pub const FORK_STEPS: usize = 2;

/// Copies that wait for their turn.
pub const FORKS_WAITING_MAX: usize = 1024;

/// After a failed or incomplete checkpoint the next try waits this long.
pub const CHECKPOINT_RETRY_NS: u64 = SECOND_NS;

/// Share of the databases' memory in percent above which idle ones give something back: an eighth is
/// left for what comes in the meantime.
pub const MEMORY_PRESSURE_PERCENT: u64 = 87;

/// Share of it in percent that idle ones give back where somebody needed more than was free.
pub const MEMORY_WANTED_PERCENT: u64 = 12;

/// Share of it that databases may use up which hold much: what is left is for those who need little,
/// so that they are answered while others are refused.
pub const MEMORY_LARGE_PERCENT: u64 = 94;

/// Share of it above which all new requests are refused.
pub const MEMORY_OVERLOAD_PERCENT: u64 = 99;

/// Tenants that a turn looks at when memory is short.
pub const TENANTS_PER_SWEEP: usize = 256;

/// Share of the log in percent above which the oldest tenants are checkpointed.
pub const LOG_PRESSURE_PERCENT: u64 = 50;

/// Pages of a database's file unless its budget says otherwise: SQLite's own limit.
pub const PAGES_MAX: u32 = 0xffff_fffe;

/// The same in bytes.
pub const STORAGE_BYTES_MAX: u64 = PAGES_MAX as u64 * storage::page::PAGE_BYTES as u64;

/// The smallest file that a budget may allow: its schema and a table.
pub const STORAGE_BYTES_MIN: u64 = 2 * storage::page::PAGE_BYTES as u64;

/// The smallest memory that a budget may allow: less serves no statement.
pub const MEMORY_BYTES_MIN: u64 = 256 * 1024;

/// The smallest share of a core that a budget may allow: a hundredth of a per cent still ends.
pub const CPU_PER_MILLION_MIN: u64 = 100;

/// The smallest burst of processor time: some turns.
pub const CPU_BURST_NS_MIN: u64 = 1_000_000;

/// The smallest rate and burst of I/O: a page.
pub const IO_BYTES_MIN: u64 = storage::page::PAGE_BYTES as u64;

/// Weight of a database unless its budget says otherwise: leaves room for smaller ones.
pub const WEIGHT: u64 = 100;

/// The largest weight: ten thousand times the smallest.
pub const WEIGHT_MAX: u64 = 10_000;

/// Plans: all are held in memory, for they are few.
pub const PLANS_MAX: usize = 1000;

/// Public keys that a database, group or organisation may have for tokens: the old one and the new one
/// while they are exchanged, twice.
pub const JWT_KEYS_MAX: usize = 4;

/// Keys of one scope, revoked ones too: they are counted when one is made.
pub const KEYS_MAX: usize = 1000;

/// Longest name of a key, in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 128;

/// Keys that are remembered from the catalogue, unknown ones too: 1 MiB of them.
pub const KEYS_REMEMBERED: usize = 8192;

/// Requests that wait for their key to be looked up: more come from nobody with a key.
pub const KEY_WAITERS_MAX: usize = 1024;

/// Bytes of an upload, whatever its database's budget allows: what a temporary file may take of a disk
/// for hours.
pub const IMPORT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Uploads that are received or made into databases at a time: each has a fiber, and up to
/// [`IMPORT_BYTES_MAX`] of the disk.
pub const IMPORTS_MAX: usize = 16;

/// Those of one organisation: others are to have their place.
pub const IMPORTS_OF_ONE_MAX: usize = IMPORTS_MAX / 4;

/// How long an import may work, the time that its sender takes not counted: some gigabytes.
pub const IMPORT_NS: u64 = 3600 * SECOND_NS;

/// Bytes of rows in one transaction of an import: a quarter of what a checkpoint waits for.
pub const IMPORT_BATCH_BYTES: u64 = 512 * 1024;

/// Rows in one transaction of an import: short ones cost their pages' log too.
pub const IMPORT_BATCH_ROWS: u64 = 10_000;

/// An index larger than this is made before its table's rows: one that is made of all rows is one
/// transaction, and has to fit into the write-ahead log and the commit log.
pub const IMPORT_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// Steps that checking an upload may take at least, and for each KiB: some ten times what tables with
/// short rows and a handful of indexes take.
pub const CHECK_STEPS: u64 = 10_000_000;

/// See [`CHECK_STEPS`].
pub const CHECK_STEPS_PER_KIB: u64 = 20_000;

/// Beside twice the file's bytes (a text in another encoding), what one block may need for reading a sound one.
pub const CHECK_BLOCK_BYTES: u64 = 1 << 20;

/// Bytes of one statement of a dump: SQLite is built for no more.
pub const DUMP_STATEMENT_BYTES_MAX: usize = 1024 * 1024;

/// Databases that one bulk call may be about.
pub const BULK_MAX: usize = 10_000;

/// Of them, so many at most are gone through in one transaction of the catalogue: a few milliseconds. So
/// many, too, that the log has room for them several times: see [`BULK_LOG_PARTS`].
pub const BULK_PART: usize = 128;

/// Parts of a bulk call for which the log has room.
pub const BULK_LOG_PARTS: u64 = 8;

/// Bytes of the log that one database of a bulk call may take: four pages.
pub const BULK_LOG_BYTES: u64 = 4 * (storage::page::PAGE_BYTES as u64 + 64);

/// Bulk calls that run at a time: each holds its names.
pub const BULKS_MAX: usize = 64;

/// Jobs of one organisation, group or the machine, ended ones too until somebody deletes them: they are
/// counted when one is made.
pub const JOBS_MAX: u64 = 100;

/// Jobs at a time that are not at their ends, paused ones not counted: each is in memory.
pub const JOBS_ACTIVE_MAX: u64 = 32;

/// Databases that a job may have ahead of the first one without a result: enough that one which takes
/// its time holds up nobody, few enough that all are looked at after a crash.
pub const JOB_WINDOW: usize = 256;

/// The same after a crash, with room for databases that have come in between meanwhile: so far a job
/// looks, and no further can it have been.
pub const JOB_WINDOW_MAX: usize = 3 * JOB_WINDOW;

/// Results of a job that go in one transaction when it is deleted.
pub const JOB_ERASE_RESULTS: usize = 1000;

/// Operations of the catalogue in one transaction.
pub const CATALOGUE_BATCH: usize = 256;

/// Databases in one page of a list.
pub const LIST_PAGE_MAX: usize = 1000;

const _: () = assert!(WRITER_WAIT_NS > TRANSACTION_IDLE_NS_MAX);
const _: () = assert!(WRITER_WAIT_NS > 2 * CHECKPOINT_PATIENCE_NS);
const _: () = assert!(TRANSACTION_IDLE_NS_MAX >= TRANSACTION_IDLE_NS);
/// What the parts of a cost are priced at, in the order of [`storage::meter::PART_NAMES`], in parts of
/// a million of a request unit: VM step, page read, page written, log byte, result byte.
///
/// One such part stands for about a nanosecond of one core, so a request unit is a millisecond of
/// work, or 800 point selects (11 steps, 4 pages and 31 bytes: 1.2 us, measured 1.0). Measured on two
/// shared cores of a virtual machine, best of five: a step takes 17-19 ns in a recursive CTE, a page
/// 50 ns where the cache has it and 8 us where it has not; a result byte 1.3 ns in long texts and 17
/// in small integers. Prices cannot know the cache, so a page costs what it does if one in forty
/// misses. A written page costs its log write, its write and read-back by the checkpoint, and its
/// share of their syncs: 14 us, so an insert costs 25 point selects. Between TiDB, where 1 KiB
/// written is 64 KiB read, and D1, where a row written is 1,000 rows read.
pub const PRICES: storage::meter::Prices = [20, 200, 10_000, 1, 5];

/// The price of a cost in parts of a million of a request unit (RU).
#[must_use]
pub fn request_units_micro(cost: &storage::meter::Cost) -> u64 {
    storage::meter::price(cost, &PRICES)
}

const _: () = assert!(LOG_PRESSURE_PERCENT < SNAPSHOT_LOG_PERCENT && SNAPSHOT_LOG_PERCENT < 90);
const _: () = assert!(MEMORY_PRESSURE_PERCENT < MEMORY_LARGE_PERCENT);
const _: () = assert!(MEMORY_LARGE_PERCENT < MEMORY_OVERLOAD_PERCENT);
const _: () = assert!(STREAM_IDLE_NS > TRANSACTION_IDLE_NS);
const _: () =
    assert!(STREAMS <= STREAMS_MAX && REQUESTS <= REQUESTS_MAX && CONNECTIONS <= CONNECTIONS_MAX);
const _: () = assert!(REQUEST_NS_MIN < REQUEST_NS && REQUEST_NS < REQUEST_NS_MAX);
const _: () = assert!(RESUMES_PER_TURN <= FIBERS_MAX);
const _: () = assert!(FIBERS_CLIENTS_MAX < FIBERS_CLOSING_MAX && FIBERS_CLOSING_MAX < FIBERS_MAX);
const _: () = assert!(QUANTUM_STEPS * STEP_NS <= QUANTUM_NS && QUANTUM_NS.is_multiple_of(WEIGHT));
const _: () = assert!(QUANTUM_NS < TURN_NS);
const _: () = assert!(IO_QUANTUM_BYTES.is_multiple_of(WEIGHT));
const _: () = assert!(CHECKPOINT_WAL_BYTES * 2 <= storage::limits::WAL_MEMORY_BYTES_MAX);
const _: () = assert!(IMPORT_BATCH_BYTES * 4 <= CHECKPOINT_WAL_BYTES);
const _: () = assert!(IMPORT_INDEX_BYTES * 2 <= storage::limits::WAL_BYTES_MAX);
