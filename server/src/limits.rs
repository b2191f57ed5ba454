//! Every limit of the server crate, with its reason, and how they hang together.
//!
//! Owns numbers only. What is refused at a limit, and with which words, stands where it is checked.

/// Spare bytes of a receive buffer while a head is awaited: most requests fit whole.
pub const RECEIVE_BYTES: usize = 4 * 1024;
/// A receive buffer that grew past this for one request is given back after it.
pub const RECEIVE_BYTES_KEPT: usize = 64 * 1024;
/// Longest request head: request line, headers and the empty line. Common servers take 8 KiB; 16
/// leaves room for a long token and a browser's cookies, which we never read.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields of one request. Browsers send about 20.
pub const HEADERS_MAX: usize = 64;
/// Longest request target. Ours are below 100 bytes; a longer one is a mistake or an attack.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Empty lines forgiven before a request line: some old clients end a body with an extra one
/// (RFC 9112 section 2.2).
pub const LEADING_EMPTY_LINES_MAX: u32 = 2;
/// Digits of a Content-Length: 19 always fit into 64 bits.
pub const CONTENT_LENGTH_DIGITS_MAX: usize = 19;
/// Longest request body unless the route says otherwise. A text of the largest size that SQLite
/// is allowed here (4 MiB) fits even when every second byte of it is escaped.
pub const BODY_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Hex digits of a chunk size, leading zeros counted: 16 always fit into 64 bits.
pub const CHUNK_SIZE_DIGITS_MAX: usize = 16;
/// Longest extension of one chunk. Nobody uses them.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 256;
/// A chunked body's framing may take this part of the body's limit: one-byte chunks cost us about
/// six bytes each, and a sender of many of them wants to keep us busy, not to send a body.
pub const CHUNK_FRAMING_SHARE: u64 = 4;
/// Longest trailer section of a chunked body; it is checked and dropped.
pub const TRAILER_BYTES_MAX: usize = 4 * 1024;
/// Longest list of header names that a preflight answer gives back.
pub const REQUESTED_HEADERS_BYTES_MAX: usize = 1024;
/// Longest database name. One DNS label holds 63 bytes; the path and the header take one more so
/// that the limit is a round number for people.
pub const TENANT_NAME_BYTES_MAX: usize = 64;

/// A response part is handed to the client when it is this long: large enough that a system call
/// and a chunk header per part do not count, small enough to stay in the first-level cache.
pub const OUTPUT_FLUSH_BYTES: usize = 32 * 1024;
/// Longest response of a pipeline and of the v1 calls, as sqld's. It bounds the memory of one
/// result, which must be held whole: a statement that fails at its last row takes back the others.
/// Cursors have no such limit, except for a single row.
pub const RESPONSE_BYTES_MAX: usize = 10 * 1024 * 1024;
/// A response's first bytes that are not booked on its database: its connection's buffer has them.
pub const RESPONSE_UNBOOKED_BYTES: usize = 4 * 1024;
/// A cursor's first part leaves at the first row or step end after this long: a short batch leaves
/// in one piece, a long one does not keep its baton from the client.
pub const CURSOR_FIRST_PART_NS: u64 = 20_000_000;
/// Requests, batch steps and condition nodes of one request body, together. Each takes at most
/// `DECODED_ITEM_BYTES_MAX` decoded, so a body of many tiny ones (`{"type":"close"}`) cannot grow
/// past 8 MiB here (twice that while a list of them grows).
pub const DECODED_ITEMS_MAX: u32 = 32_768;
/// Memory of one decoded request, step or condition, without its texts and arguments.
pub const DECODED_ITEM_BYTES_MAX: usize = 256;
/// Each so many items are booked on the database together: 16 KiB. Fewer are nobody's while they run.
pub const DECODED_ITEMS_BOOKED: u32 = 64;
/// Arguments of one statement: SQLite's own limit on parameters. More cannot be bound anyway.
pub const ARGUMENTS_MAX: usize = 32_766;
/// How deep conditions nest. Clients use 2. Decoding recurses on a fiber's stack of 256 KiB.
pub const CONDITION_DEPTH_MAX: u32 = 16;
/// Longest error message in an answer. SQLite quotes the SQL text in some of its messages.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Error messages of one batch, together: they are held until the step results are out. After
/// that, errors carry only their code.
pub const BATCH_ERROR_BYTES_MAX: usize = 1024 * 1024;
/// How long a parked stream waits for its next request, as sqld's.
pub const STREAM_IDLE_NS: u64 = 10_000_000_000;
/// Longest baton that is looked at; ours are 64 bytes.
pub const BATON_BYTES_MAX: usize = 256;

/// Connections at a time, both addresses together. Each holds a descriptor and about 10 KiB.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections that the admin address may have beyond that.
pub const ADMIN_CONNECTIONS_KEPT: usize = 16;
/// Bytes that a connection holds at most: a request being read, and the next one's first bytes; a
/// response being sent, of which the last row or error may pass its limit. Buffers double.
pub const CONNECTION_BYTES_MAX: usize = 2
    * (RECEIVE_BYTES_KEPT
        + BODY_BYTES_MAX as usize
        + RESPONSE_BYTES_MAX
        + BATCH_ERROR_BYTES_MAX
        + OUTPUT_FLUSH_BYTES);
/// Bytes of requests and responses of all connections together, at most; then bodies and requests are
/// refused until some are answered. Twenty-five of the largest requests, with as large answers.
pub const BUFFERS_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// The least that they may be given: the largest request and answer fit.
pub const BUFFERS_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Their part of `--memory` between these two: one in so many bytes.
pub const BUFFERS_SHARE: u64 = 8;
/// Empty buffers kept for the next requests: 64 KiB each at most, so 8 MiB that are nobody's.
pub const SPARE_BUFFERS_MAX: usize = 128;
/// Time for a request's whole head, from its first byte.
pub const HEAD_NS: u64 = 10_000_000_000;
/// Time for a request's whole body.
pub const BODY_NS: u64 = 60_000_000_000;
/// After so long of it the body must have come at [`BODY_BYTES_PER_S`], on the average since then: a
/// telephone's rate. A body that comes a byte a second holds its connection for less than a head's time.
pub const BODY_PATIENCE_NS: u64 = 5_000_000_000;
/// See [`BODY_PATIENCE_NS`].
pub const BODY_BYTES_PER_S: u64 = 1024;
/// Connections of one peer address on which no good key was shown yet, where one is asked for. A browser
/// opens six; a company behind one address a few hundred, most of which have shown one.
pub const STRANGERS_MAX: u32 = 512;
/// Keys and tokens from one peer address that may be wrong at once, and how many a second are forgotten.
/// Each costs up to five signatures, 0.3 ms: one address takes less than a hundredth of the core.
pub const FAILURES_BURST: u64 = 100;
/// See [`FAILURES_BURST`].
pub const FAILURES_PER_S: u64 = 10;
/// Peers without a connection of which failures are remembered: half a MiB.
pub const PEERS_REMEMBERED: usize = 8192;
/// Rows of the table of peers that are looked at for each new connection: it shrinks faster than it grows.
pub const PEERS_PER_SWEEP: usize = 4;
/// Time in which at least one byte of an upload must come, once it is asked for.
pub const UPLOAD_STALL_NS: u64 = 30_000_000_000;
/// Time that may be waited for an upload before its rate is looked at, and the least rate from then on:
/// a telephone's in a train.
pub const UPLOAD_PATIENCE_NS: u64 = 60_000_000_000;
/// See [`UPLOAD_PATIENCE_NS`].
pub const UPLOAD_BYTES_PER_S: u64 = 4 * 1024;
/// Time in which something must come for a database that is sent in several requests: the `turso` CLI waits
/// for a minute at most before it tries again.
pub const DRAFT_STALL_NS: u64 = 120_000_000_000;
/// Bytes of one of its requests. A chunk that breaks off is sent again as a whole; 1,024 of them are an upload.
pub const DRAFT_CHUNK_BYTES: u64 = 16 * 1024 * 1024;
/// How long a dump is kept that no database was made of, in seconds: an hour for who sends it, and an hour
/// to use it.
pub const DUMP_TTL_S: u64 = 2 * 3_600;
/// Time between two lines about how far an upload is.
pub const UPLOAD_LINE_NS: u64 = 1_000_000_000;
/// As [`DRAIN_BYTES_MAX`], for an upload that is refused while its client still sends: many clients read
/// no answer before.
pub const UPLOAD_DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time that a connection may wait for its next request.
pub const KEEP_ALIVE_NS: u64 = 60_000_000_000;
/// Time for which a connection is not read after its request was refused for a budget or an overload:
/// who asks again at once does not cost its neighbours the work of refusing. Far below `Retry-After`.
pub const REFUSED_PAUSE_NS: u64 = 5_000_000;
/// Time in which at least one byte of a response must leave.
pub const SEND_STALL_NS: u64 = 30_000_000_000;
/// Bytes thrown away after a protocol error, so that the peer can read the answer before a reset.
pub const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// Time for that.
pub const DRAIN_NS: u64 = 1_000_000_000;
/// After a failed accept the next one waits this long.
pub const ACCEPT_RETRY_NS: u64 = 100_000_000;
/// Time for running requests to end when the server stops.
pub const STOP_GRACE_NS: u64 = 10_000_000_000;

const _: () = assert!(CONNECTION_BYTES_MAX as u64 <= BUFFERS_BYTES_MIN);
const _: () = assert!(BUFFERS_BYTES_MIN <= BUFFERS_BYTES_MAX);
const _: () = assert!(RECEIVE_BYTES <= RECEIVE_BYTES_KEPT);
const _: () = assert!(BODY_PATIENCE_NS < HEAD_NS && HEAD_NS < BODY_NS);
const _: () =
    assert!((STRANGERS_MAX as usize) < CONNECTIONS_MAX && FAILURES_PER_S <= FAILURES_BURST);
const _: () = assert!(HEAD_BYTES_MAX <= RECEIVE_BYTES_KEPT);
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);
// Positions in a head are kept in 16 bits.
const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(REQUESTED_HEADERS_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(TENANT_NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(OUTPUT_FLUSH_BYTES < RESPONSE_BYTES_MAX);
const _: () = assert!(BATCH_ERROR_BYTES_MAX < RESPONSE_BYTES_MAX);
const _: () = assert!(ERROR_MESSAGE_BYTES_MAX < OUTPUT_FLUSH_BYTES);

/// Longest token. Those of libSQL servers have some 200 bytes; one with a hundred names has 2 KiB.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Databases that one token may name.
pub const CLAIMED_NAMES_MAX: usize = 100;
/// Public keys of the platform: each token is tried with all.
pub const PLATFORM_KEYS_MAX: usize = 4;
/// Tokens and keys whose form and signature were found good and are not looked at again, and for how
/// long: a signature takes some 50 us, finding it here one hash.
pub const PROOFS_MAX: usize = 4096;
/// See [`PROOFS_MAX`].
pub const PROOF_NS: u64 = 60_000_000_000;
/// Who has no right to a database is told so this long after the request was complete, whether it is there or
/// not. Finding that out takes 0.1 ms, with a dozen keys to try 1 ms, and more where the catalogue is read from
/// a disk; a person does not notice.
pub const REFUSAL_NS: u64 = 10_000_000;
/// Shortest root key that an operator may choose: 24 characters at random cannot be guessed.
pub const ROOT_KEY_BYTES_MIN: usize = 24;

/// Bytes of a job's statements, as JSON: they are kept with the job, and in memory while it is open.
pub const JOB_SCRIPT_BYTES_MAX: usize = 128 * 1024;
/// Statements with arguments in a job.
pub const JOB_STATEMENTS_MAX: usize = 1000;
/// Databases that a job may list by name: as many as are made in one call.
pub const JOB_NAMES_MAX: usize = 10_000;
/// Databases of a job at a time, unless it says otherwise: enough for their commits to share a sync.
pub const JOB_CONCURRENCY: usize = 8;
/// Databases of a job at a time: each has a fiber and a connection meanwhile.
pub const JOB_CONCURRENCY_MAX: usize = 32;
/// Databases of all jobs at a time: a small part of all fibers.
pub const JOB_RUNS_MAX: usize = 64;
/// Seconds that a job may take on one database, unless it says otherwise.
pub const JOB_TIMEOUT_S: u64 = 60;
/// An hour, as for a request: tables are rebuilt.
pub const JOB_TIMEOUT_S_MAX: u64 = 3600;
/// Results of a job that are kept in one transaction when there are so many, and how long the first of
/// them waits for others.
pub const JOB_NOTE_RESULTS: usize = 128;
/// See [`JOB_NOTE_RESULTS`].
pub const JOB_NOTE_NS: u64 = 200_000_000;
/// Tries on a database that is busy or has no room, each later than the last, before it counts as
/// failed: some three minutes, and the waits for its writer lock.
pub const JOB_TRIES_MAX: u32 = 9;
/// The longest time between two of them.
pub const JOB_RETRY_NS_MAX: u64 = 30_000_000_000;
/// Bytes of an error's message that a result keeps.
pub const JOB_MESSAGE_BYTES_MAX: usize = 300;

const _: () =
    assert!(JOB_CONCURRENCY <= JOB_CONCURRENCY_MAX && JOB_CONCURRENCY_MAX <= JOB_RUNS_MAX);
const _: () = assert!(JOB_RUNS_MAX * 8 <= tenant::limits::FIBERS_CLIENTS_MAX);
const _: () = assert!(JOB_TIMEOUT_S_MAX * 1_000_000_000 <= tenant::limits::REQUEST_NS_MAX);
