//! A database as a file of SQLite's, or as SQL text, written to a client from a snapshot.
//!
//! Runs as a job on a fiber of the database, in the lowest class: what leaves is handed on part by part, and
//! the fiber waits until each has left, so a slow reader costs one part and a snapshot. Writers go on,
//! delayed where they are much faster (`engine/pace.rs`); what the snapshot may keep of the logs is bounded
//! as for copies (`engine/fork.rs`, `end_snapshots`).
//!
//! - `file`: pages, as they are. `dump`: statements that make an equal database.

mod dump;
mod file;

use storage::fiber;
use storage::ledger::Booking;
use storage::page::PAGE_BYTES;

use crate::access::Denials;
use crate::engine::{CopyFailure, Pace};
use crate::session::PooledConnection;
use crate::statement::{Gone, StreamError};

/// Bytes after which a part leaves.
const PART_BYTES: usize = 32 * 1024;

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A database file that any SQLite opens.
    File,
    /// Statements, as `.dump` of SQLite's shell writes them.
    Sql,
}

/// Why an export ends before it is whole. If a part has left, only a broken end can say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportError {
    /// Somebody has blocked reading; the reason.
    Blocked(Box<str>),
    /// It has no connection to the database.
    Stream(StreamError),
    /// Nobody reads any more.
    Gone,
    /// It was told to end: its time is over, or the database ends.
    Interrupted,
    /// So much is written meanwhile that its snapshot cannot be kept.
    Overtaken,
    /// Memory was used up.
    NoMemory,
    /// The database could not be read.
    Failed(String),
}

impl From<Gone> for ExportError {
    fn from(Gone: Gone) -> ExportError {
        ExportError::Gone
    }
}

impl From<CopyFailure> for ExportError {
    fn from(failure: CopyFailure) -> ExportError {
        match failure {
            CopyFailure::Interrupted => ExportError::Interrupted,
            CopyFailure::Overtaken => ExportError::Overtaken,
            CopyFailure::TooLarge(_) => unreachable!("nothing is stored"),
            failure if failure.is_out_of_memory() => ExportError::NoMemory,
            CopyFailure::Read(_, text) => ExportError::Failed(text),
            CopyFailure::Write(code) => ExportError::Failed(format!("SQLite result {code}")),
        }
    }
}

impl From<storage::sqlite::SqliteError> for ExportError {
    fn from(error: storage::sqlite::SqliteError) -> ExportError {
        CopyFailure::from(error).into()
    }
}

/// Where parts go: gives an empty buffer for the next one.
pub(crate) type Flush<'a> = dyn FnMut(Vec<u8>) -> Result<Vec<u8>, Gone> + 'a;

/// What is written and has not left.
struct Parts<'a> {
    out: Vec<u8>,
    flush: &'a mut Flush<'a>,
    /// What has left.
    left_bytes: u64,
    pace: Pace,
    /// One part, on the database's account.
    _booking: Booking,
}

impl Parts<'_> {
    fn push(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Of how many pages the snapshot is. Text is taken to be as long as its database is: it is about so.
    fn set_pages(&mut self, pages: u32) {
        let wal_bytes = fiber::with_volume(|volume| volume.wal_bytes());
        self.pace = Pace::new(u64::from(pages) * PAGE_BYTES as u64, wal_bytes);
    }

    /// Let a part leave if there is enough for one.
    fn flush_if_full(&mut self) -> Result<(), ExportError> {
        if self.out.len() < PART_BYTES {
            return Ok(());
        }
        self.left_bytes += self.out.len() as u64;
        self.pace.let_go();
        self.out = (self.flush)(std::mem::take(&mut self.out))?;
        crate::engine::may_go_on()?;
        self.pace.at(self.left_bytes);
        Ok(())
    }
}

/// Write the database that `pooled` is connected to: what has not been handed to `flush` at the end.
///
/// # Errors
/// Why it ends before it is whole.
pub(crate) fn export<'a>(
    pooled: &mut PooledConnection,
    format: ExportFormat,
    denials: Option<&Denials>,
    out: Vec<u8>,
    flush: &'a mut Flush<'a>,
) -> Result<Vec<u8>, ExportError> {
    if let Some(denials) = denials.filter(|denials| denials.block_reads) {
        return Err(ExportError::Blocked(denials.reason.clone()));
    }
    let mut booking = Booking::on(fiber::account());
    if !booking.grow_to(2 * PART_BYTES as u64) {
        return Err(ExportError::NoMemory);
    }
    let mut parts = Parts { out, flush, left_bytes: 0, pace: Pace::new(0, 0), _booking: booking };
    let written = match format {
        ExportFormat::File => file::write(pooled, &mut parts),
        ExportFormat::Sql => dump::write(pooled, &mut parts),
    };
    parts.pace.let_go();
    pooled.roll_back();
    match written {
        Ok(()) => Ok(parts.out),
        // SQLite's word for it.
        Err(ExportError::Failed(_)) if fiber::is_interrupted() => Err(ExportError::Interrupted),
        Err(error) => Err(error),
    }
}
