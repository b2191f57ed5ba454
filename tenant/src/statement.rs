//! What a statement takes and gives: arguments in, rows and an outcome out, or an error.
//!
//! Owns the value types that stand between a protocol (which knows JSON) and a session (which
//! knows SQLite). Knows no protocol and runs nothing.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::budget::Exceeded;

pub use storage::meter::{Ceiling, Cost};
pub use storage::sqlite::ValueRef;

/// One argument value, borrowed from the request where it can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument<'a> {
    /// SQL NULL.
    Null,
    /// 64-bit integer.
    Integer(i64),
    /// 64-bit float; bound as REAL even if integral.
    Real(f64),
    /// UTF-8 text.
    Text(Cow<'a, str>),
    /// Bytes.
    Blob(Cow<'a, [u8]>),
}

/// A statement's arguments: positional ones by parameter number (the first is `?1`), and named
/// ones, with or without their `:`, `@` or `$`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments<'a> {
    /// `?1`, `?2`, …
    pub positional: SmallVec<[Argument<'a>; 2]>,
    /// `:name`, `@name`, `$name`.
    pub named: Vec<(Cow<'a, str>, Argument<'a>)>,
}

/// A result column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// The column's name or alias.
    pub name: &'a str,
    /// The declared type of the table column that it is, if it is one.
    pub declared_type: Option<&'a str>,
}

/// One result row: values are borrowed from SQLite until the next step.
pub trait Row {
    /// Number of columns.
    fn column_count(&self) -> usize;
    /// The value in column `index` (from 0).
    fn value(&self, index: usize) -> ValueRef<'_>;
}

/// Where a statement's result goes. `columns` is called once, before any row, also when there
/// are no columns. Both may suspend the fiber while a slow reader catches up.
pub trait RowSink {
    /// The result's columns.
    ///
    /// # Errors
    /// A reason to stop the statement.
    fn columns(
        &mut self,
        columns: &mut dyn Iterator<Item = Column<'_>>,
    ) -> Result<(), StatementError>;
    /// One row.
    ///
    /// # Errors
    /// A reason to stop the statement: the reader has gone, the response is too large.
    fn row(&mut self, row: &dyn Row) -> Result<(), StatementError>;
}

/// What a statement did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// Rows inserted, updated or deleted by the statement itself; 0 for SELECT and DDL.
    pub affected_rows: u64,
    /// Rowid of the last row inserted, if the statement was an INSERT that inserted one.
    pub last_insert_rowid: Option<i64>,
    /// Rows read: see `session.rs` for what is counted.
    pub rows_read: u64,
    /// Rows written, by triggers and foreign key actions too.
    pub rows_written: u64,
    /// Time from start to end, waits included, in nanoseconds.
    pub duration_ns: u64,
    /// What it cost: the same on every machine, whoever else is there.
    pub cost: Cost,
}

/// A parameter or column of a statement that was described, not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// One entry for each parameter number up to the largest; `None` for `?` and for holes.
    pub parameters: Vec<Option<String>>,
    /// Name and declared type of each result column.
    pub columns: Vec<(String, Option<String>)>,
    /// EXPLAIN or EXPLAIN QUERY PLAN.
    pub is_explain: bool,
    /// The statement does not write to the database.
    pub is_readonly: bool,
}

/// Why a statement failed, in the words of libSQL servers: `code` is one of the names in hrana
/// section 5 (`SQLITE_CONSTRAINT`, `SQL_PARSE_ERROR`, …), `message` is for the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementError {
    /// Stable name for programs.
    pub code: &'static str,
    /// One sentence for people.
    pub message: String,
}

impl StatementError {
    /// An error of this code with this message.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> StatementError {
        StatementError { code, message: message.into() }
    }
}

/// One SQL stream: a connection with its transaction and its stored SQL texts.
/// [`crate::Session`] is the real one; protocol tests bring their own.
pub trait SqlStream {
    /// A request begins on this stream: its costs are counted from here, and its statements are
    /// stopped beyond `ceiling`.
    fn begin_request(&mut self, ceiling: Option<Box<Ceiling>>);
    /// What the statements of the present request have cost so far, failed ones too.
    fn request_cost(&self) -> Cost;
    /// Run one statement (a trailing `;`, white space and comments are allowed). Without
    /// `want_rows` rows are computed but not handed to the sink.
    ///
    /// # Errors
    /// `SQL_*`, `ARGS_*`, `SQLITE_*` and budget codes; the sink's own error if it gave one.
    fn execute(
        &mut self,
        sql: &str,
        arguments: &Arguments<'_>,
        want_rows: bool,
        sink: &mut dyn RowSink,
    ) -> Result<Executed, StatementError>;
    /// Run `;`-separated statements until one fails; rows are dropped.
    ///
    /// # Errors
    /// The first failing statement's.
    fn sequence(&mut self, sql: &str) -> Result<(), StatementError>;
    /// Compile a statement and describe it.
    ///
    /// # Errors
    /// As compiling it for `execute`.
    fn describe(&mut self, sql: &str) -> Result<Description, StatementError>;
    /// No explicit transaction is open.
    fn is_autocommit(&self) -> bool;
    /// Keep a text under `sql_id`. The caller has checked that the id is free.
    ///
    /// # Errors
    /// `SQL_STORE_TOO_MANY`, `SQL_STORE_TOO_LARGE`.
    fn store_sql(&mut self, sql_id: i32, sql: &str) -> Result<(), StatementError>;
    /// Forget the text; an unknown id is fine.
    fn close_sql(&mut self, sql_id: i32);
    /// The text kept under `sql_id`.
    fn stored_sql(&self, sql_id: i32) -> Option<&str>;
}

/// A parked stream's claim check, new at each parking and good for one use. Server code seals it
/// into a baton.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Why a stream could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// No stream waits under this ticket: used before, expired, or of another run.
    Unknown,
    /// A budget does not allow it.
    Exceeded(Exceeded),
    /// All databases together have used up the machine's memory.
    MemoryFull,
    /// The database cannot be opened, or is being dropped, or the server is stopping.
    Unavailable,
}

/// The reader of a response has gone; finish early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// What a job, running on its fiber, may ask of the engine. Every call may suspend the fiber.
pub trait JobHost {
    /// The engine's stream type.
    type Stream: SqlStream;
    /// A fresh stream on this job's tenant.
    ///
    /// # Errors
    /// [`StreamError::Exceeded`], [`StreamError::MemoryFull`], [`StreamError::Unavailable`].
    fn open_stream(&mut self) -> Result<Self::Stream, StreamError>;
    /// The stream parked under `ticket` on this job's tenant; waits if it is still running under
    /// a ticket promised by `promise`.
    ///
    /// # Errors
    /// [`StreamError::Unknown`] if it is not there (or is another tenant's).
    fn resume_stream(&mut self, ticket: Ticket) -> Result<Self::Stream, StreamError>;
    /// A ticket for a stream that is still in use: a cursor's first line needs it early.
    fn promise(&mut self, stream: &mut Self::Stream) -> Ticket;
    /// Park the stream; its ticket is the promised one, or a new one.
    fn park(&mut self, stream: Self::Stream) -> Ticket;
    /// Close the stream: roll back, release.
    fn close(&mut self, stream: Self::Stream);
    /// Hand a part of the response to the client and get an empty buffer back; suspends while the
    /// client reads slowly. The part leaves only when all that it may have seen is durable.
    ///
    /// # Errors
    /// [`Gone`] if nobody reads any more.
    fn flush(&mut self, part: Vec<u8>) -> Result<Vec<u8>, Gone>;
    /// Bytes that a response may have which is held whole, by the tenant's budget.
    fn response_bytes_max(&self) -> u64;
    /// The tenant's id, for binding a baton to it.
    fn tenant_id(&self) -> u64;
    /// Monotonic nanoseconds, for a baton's age.
    fn now_ns(&self) -> u64;
}
