//! A checkpoint's job on its fiber: what there is, then the rest with the writer lock held; written again
//! where the disk failed. When one begins, and what follows, stands in `life`.

use storage::fiber::{self, with_volume};
use storage::ledger;
use storage::sometimes;
use storage::sqlite::codes::{SQLITE_IOERR, SQLITE_IOERR_NOMEM, SQLITE_IOERR_READ};
use storage::sqlite::{CheckpointMode, SQLITE_BUSY, SQLITE_FULL, SqliteError};
use storage::vfs;

use super::tasks::Ended;
use crate::session::PooledConnection;

/// What a checkpoint achieved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checkpointed {
    /// Everything that was in the log before is in the file.
    pub complete: bool,
    /// The last transaction in the file.
    pub txid: u64,
    /// The stamp in its pages.
    pub stamp: u64,
}

/// How often a checkpoint is written again after a write or sync failed. One bad sync can fail it
/// twice: where the kernel reports late, the read-back finds what is missing, and only the next
/// sync says why (CuttleFS). One more for another fault meanwhile.
const CHECKPOINT_WRITES_AGAIN: u32 = 3;

/// How often one is tried again after a read failed: transient errors last up to three tries, and
/// several pages may meet one.
const CHECKPOINT_READS_AGAIN: u32 = 12;

pub(super) fn run_checkpoint<R>(pooled: Option<PooledConnection>) -> Ended<R> {
    let mut pooled = match pooled.map_or_else(PooledConnection::open, Ok) {
        Ok(pooled) => pooled,
        Err(error) => return Ended::Checkpoint(Err(error.code), None),
    };
    // A failed sync may have dropped pages that the kernel calls clean (F4): all pages are written
    // again from WAL and log, a few times; then it is damage. A read that fails has dropped
    // nothing, and may work the next time.
    let mut result = try_checkpoint(&mut pooled);
    let (mut writes_failed, mut reads_failed) = (0, 0);
    while let Err(code) = result
        && is_storage_error(code)
    {
        match code {
            SQLITE_IOERR_READ => reads_failed += 1,
            _ => writes_failed += 1,
        }
        if writes_failed > CHECKPOINT_WRITES_AGAIN || reads_failed > CHECKPOINT_READS_AGAIN {
            break;
        }
        result = try_checkpoint(&mut pooled);
        if result.is_ok() {
            sometimes!("a checkpoint that failed is written again");
        }
    }
    if let Err(code) = result
        && is_storage_error(code)
    {
        sometimes!("a checkpoint fails twice");
        let what = match code {
            SQLITE_IOERR_READ => "what is to be checkpointed cannot be read",
            _ => "its file cannot be written",
        };
        let text = format!("{what} (SQLite result {code})");
        with_volume(|volume| volume.set_damage(text));
    }
    // A transaction that could not be rolled back for lack of memory ends with its connection, and what
    // only a checkpoint may hold with the checkpoint.
    let is_kept = pooled.is_clean() && ledger::is_within(fiber::account());
    Ended::Checkpoint(result, is_kept.then_some(pooled))
}

fn is_storage_error(code: i32) -> bool {
    code & 0xff == SQLITE_IOERR && code != SQLITE_IOERR_NOMEM
}

/// First what there is, while writers go on; then, with the writer lock held, what came since, so
/// that the WAL can start anew: a tenant that never stops writing would fill it otherwise.
fn try_checkpoint(pooled: &mut PooledConnection) -> Result<Checkpointed, i32> {
    let (complete, mut covered) = checkpoint_pass(pooled, CheckpointMode::Passive)?;
    if complete {
        match checkpoint_pass(pooled, CheckpointMode::Truncate) {
            Ok((_, all)) => covered = covered.max(all),
            // Readers hold the WAL, or the tenant is busy: the next writer will start it anew.
            Err(SQLITE_BUSY) => {}
            Err(code) => return Err(code),
        }
    }
    Ok(with_volume(|volume| Checkpointed {
        complete,
        txid: covered.unwrap_or(0),
        stamp: volume.main.stamp,
    }))
}

/// Write page 1 as it is. Reading and writing are one transaction: a client that holds the writer
/// lock may be about to commit another `user_version`.
fn touch_page_one(pooled: &mut PooledConnection) -> Result<(), SqliteError> {
    pooled.for_each_row("BEGIN IMMEDIATE", &[], |_| ())?;
    let version = pooled.query_integer("PRAGMA user_version");
    let touched = version.and_then(|version| {
        pooled.for_each_row(&format!("PRAGMA user_version = {version}"), &[], |_| ())?;
        pooled.for_each_row("COMMIT", &[], |_| ())
    });
    pooled.roll_back();
    touched
}

/// One checkpoint by SQLite, between its begin and its end in the volume: whether it reached the end
/// of the WAL, and the last transaction that is in the file now, if any that the log still keeps.
fn checkpoint_pass(
    pooled: &mut PooledConnection,
    mode: CheckpointMode,
) -> Result<(bool, Option<u64>), i32> {
    // SQLite checkpoints only what a connection has looked at.
    pooled.query_integer("PRAGMA user_version").map_err(|error| error.code)?;
    if with_volume(|volume| volume.has_pending_pages() && !volume.page_one_pending()) {
        // Page 1 carries the checkpoint's stamp, and what a checkpoint writes must be in the log.
        match touch_page_one(pooled) {
            Ok(()) => {}
            // A writer has the lock, and may wait for the log space that this checkpoint makes: for
            // once the file keeps its older stamp.
            Err(error) if matches!(error.primary(), SQLITE_BUSY | SQLITE_FULL) => {}
            Err(error) => return Err(error.code),
        }
    }
    vfs::begin_checkpoint().inspect_err(|_| vfs::abandon_checkpoint())?;
    let result = pooled.connection().checkpoint(mode);
    if let Some(code) = vfs::checkpoint_failure() {
        vfs::abandon_checkpoint();
        return Err(code);
    }
    let (frames, written) = result.map_err(|error| {
        vfs::abandon_checkpoint();
        if error.primary() == storage::sqlite::SQLITE_BUSY { error.primary() } else { error.code }
    })?;
    // Frames are counted in the WAL as it is at this moment: nothing has run since SQLite's return. A
    // WAL that was cut has none, and its commits are all in the file.
    let cut = mode == CheckpointMode::Truncate;
    let covered = with_volume(|volume| volume.covered_txid(if cut { 0 } else { written }));
    vfs::end_checkpoint((!cut).then_some(written)).inspect_err(|_| vfs::abandon_checkpoint())?;
    Ok((frames == written, covered))
}
