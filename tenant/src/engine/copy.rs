//! A copy's job on its fiber: pages of one database, as they are at one moment, into the file of another.
//!
//! The fiber is the original's, and is lent the copy's volume in between ([`Ask::Switch`]): it reads a run
//! of pages under a snapshot, switches, sets their tails and writes them, and switches back. So one buffer
//! is all that it holds, each of the two pays for what is done on it, and writers of the original go on.
//! What they write meanwhile stays in the write-ahead log until the snapshot is let go: that is bounded
//! ([`limits::SNAPSHOT_WAL_BYTES_MAX`]), and they are delayed before it is reached (`pace`).
//!
//! A small database is read at once and becomes one transaction of the commit log (`logged`), unless the log
//! has no room for it just now: then it is made as a large one, and costs the log nothing.

use storage::fiber::{self, Handle, with_volume};
use storage::ledger::Booking;
use storage::page::PAGE_BYTES;
use storage::sometimes;
use storage::sqlite::{SQLITE_BUSY, SQLITE_CORRUPT, SQLITE_NOMEM, SqliteError, codes};
use storage::vfs::{self, Snapshot};

use super::context::{Ask, Reply};
use super::pace::Pace;
use crate::limits;
use crate::session::PooledConnection;

/// What is to be copied how.
pub(super) struct CopyOrder {
    /// Bytes that the copy's budget allows.
    pub storage_bytes: u64,
    /// Pages of the largest that goes into the log.
    pub logged_pages: u32,
    /// It seems to be as small: it does not come last.
    pub is_small: bool,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Seconds since it was asked for.
    pub age_s: u64,
    /// Pages copied.
    pub pages: u32,
    /// Pages of its original; 0 while it waits for its turn.
    pub pages_total: u32,
}

/// Why a copy was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyFailure {
    /// Its time was over, or one of the two is to end.
    Interrupted,
    /// So many bytes were written to the original meanwhile that its snapshot cannot be kept.
    Overtaken,
    /// The copy's budget does not allow so many bytes.
    TooLarge(u64),
    /// The original could not be read: SQLite's result code, and what it says.
    Read(i32, String),
    /// The copy could not be written: SQLite's result code.
    Write(i32),
}

impl CopyFailure {
    /// Whose limit ever it was.
    pub fn is_out_of_memory(&self) -> bool {
        let (CopyFailure::Read(code, _) | CopyFailure::Write(code)) = self else { return false };
        code & 0xff == SQLITE_NOMEM || *code == codes::SQLITE_IOERR_NOMEM
    }
}

impl From<SqliteError> for CopyFailure {
    fn from(error: SqliteError) -> CopyFailure {
        CopyFailure::Read(error.code, error.message)
    }
}

pub(crate) fn unreadable(code: i32) -> CopyFailure {
    CopyFailure::Read(code, "a page cannot be read".to_owned())
}

/// Copy the database whose fiber this is.
pub(super) fn run_copy(
    handle: &Handle<'_, Ask, Reply>,
    order: CopyOrder,
    pooled: Option<PooledConnection>,
) -> (Result<(), CopyFailure>, Option<PooledConnection>) {
    let mut pooled = match pooled.map_or_else(PooledConnection::open, Ok) {
        Ok(pooled) => pooled,
        Err(error) => return (Err(error.into()), None),
    };
    let mut result = copy(handle, &mut pooled, &order);
    pooled.roll_back();
    if fiber::is_interrupted() && result.is_err() {
        result = Err(CopyFailure::Interrupted);
    }
    (result, pooled.is_clean().then_some(pooled))
}

fn copy(
    handle: &Handle<'_, Ask, Reply>,
    pooled: &mut PooledConnection,
    order: &CopyOrder,
) -> Result<(), CopyFailure> {
    // What is in the write-ahead log now would stay there for as long as this takes.
    handle.ask(Ask::Pause);
    let snapshot = begin_snapshot(pooled)?;
    let bytes = u64::from(snapshot.pages()) * PAGE_BYTES as u64;
    if bytes > order.storage_bytes {
        sometimes!("a copy would be larger than it may be");
        return Err(CopyFailure::TooLarge(bytes));
    }
    if snapshot.pages() <= order.logged_pages && copy_into_log(handle, &snapshot)? {
        return Ok(());
    }
    copy_into_file(handle, &snapshot)
}

/// Copy a small database; `false` if the log has no room for it, and nothing was done.
fn copy_into_log(
    handle: &Handle<'_, Ask, Reply>,
    snapshot: &Snapshot,
) -> Result<bool, CopyFailure> {
    let bytes = snapshot.pages() as usize * PAGE_BYTES;
    let mut booking = Booking::on(fiber::account());
    // The pages, and the buffer in which they are read.
    if !booking.grow_to(2 * bytes as u64) {
        return Err(unreadable(SQLITE_NOMEM));
    }
    let mut image = vec![0; bytes];
    snapshot.read(1, &mut image).map_err(unreadable)?;
    may_go_on()?;
    handle.ask(Ask::Switch);
    let built = vfs::build_in_log(&image);
    handle.ask(Ask::Switch);
    match built.map_err(CopyFailure::Write)? {
        true => sometimes!("a small copy goes into the log"),
        false => sometimes!("a small copy goes into a file because the log has no room"),
    }
    Ok(built == Ok(true))
}

fn copy_into_file(handle: &Handle<'_, Ask, Reply>, snapshot: &Snapshot) -> Result<(), CopyFailure> {
    sometimes!("a copy goes into a file");
    let bytes = u64::from(snapshot.pages()) * PAGE_BYTES as u64;
    let run_pages = storage::limits::CHECKPOINT_RUN_PAGES as u32;
    let mut booking = Booking::on(fiber::account());
    // The run, and the buffer in which it is written.
    if !booking.grow_to(2 * u64::from(run_pages) * PAGE_BYTES as u64) {
        return Err(unreadable(SQLITE_NOMEM));
    }
    let mut run = vec![0; run_pages as usize * PAGE_BYTES];
    let switched = |act: &mut dyn FnMut() -> Result<(), i32>| {
        handle.ask(Ask::Switch);
        let result = act();
        handle.ask(Ask::Switch);
        result.map_err(CopyFailure::Write)
    };
    let mut pace = Pace::new(bytes, with_volume(|volume| volume.wal_bytes()));
    switched(&mut vfs::begin_build)?;
    let copied = (|| {
        let mut first = 1;
        while first <= snapshot.pages() {
            let count = run_pages.min(snapshot.pages() - first + 1);
            let bytes = &mut run[..count as usize * PAGE_BYTES];
            snapshot.read(first, bytes).map_err(unreadable)?;
            may_go_on()?;
            pace.at(u64::from(first - 1 + count) * PAGE_BYTES as u64);
            switched(&mut || vfs::build_pages(first, bytes))?;
            first += count;
            handle.ask(Ask::Copied(first - 1, snapshot.pages()));
        }
        switched(&mut vfs::end_build)
    })();
    pace.let_go();
    if copied.is_err() {
        switched(&mut || {
            vfs::abandon_checkpoint();
            Ok(())
        })?;
    }
    copied
}

/// How often is tried for a snapshot of this moment where readers use all of SQLite's marks.
const SNAPSHOT_TRIES: u32 = 100;

/// What the database is at this moment, kept so by the connection until its transaction ends.
pub(crate) fn begin_snapshot(pooled: &mut PooledConnection) -> Result<Snapshot, CopyFailure> {
    for _ in 0..SNAPSHOT_TRIES {
        let (life, last) = with_volume(|volume| volume.wal_position());
        pooled.for_each_row("BEGIN", &[], |_| ())?;
        let pages = pooled.query_integer("PRAGMA page_count")?;
        let pages = u32::try_from(pages).map_err(|_| unreadable(SQLITE_CORRUPT))?;
        let snapshot = pooled.connection().snapshot(pages.max(1)).map_err(unreadable)?;
        let same_life = with_volume(|volume| volume.wal_position()).0 == life;
        // What was committed before is in it: else who asks for a copy would miss what it has written.
        if snapshot.mark() > 0 && same_life && snapshot.mark() < last {
            sometimes!("a snapshot is older than it should be");
            pooled.roll_back();
            if !matches!(fiber::suspend(fiber::Wait::Turn), fiber::Answer::Ready) {
                return Err(CopyFailure::Interrupted);
            }
            continue;
        }
        // A commit can be seen before the log has it: it must not be lost, and the copy of it stay.
        return match fiber::suspend(fiber::Wait::Durable) {
            fiber::Answer::Ready => Ok(snapshot),
            _ => Err(CopyFailure::Interrupted),
        };
    }
    Err(CopyFailure::Read(SQLITE_BUSY, "too many readers hold old snapshots of it".to_owned()))
}

/// Between two runs, on the original's volume.
pub(crate) fn may_go_on() -> Result<(), CopyFailure> {
    if fiber::is_interrupted() {
        return Err(CopyFailure::Interrupted);
    }
    if with_volume(|volume| volume.wal_bytes()) > limits::SNAPSHOT_WAL_BYTES_MAX {
        sometimes!("a copy is given up because its original is written to too fast");
        return Err(CopyFailure::Overtaken);
    }
    Ok(())
}
