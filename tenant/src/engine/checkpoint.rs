//! A checkpoint: when it begins, its job on its fiber, what follows, and what the log must keep until then.
//!
//! The job writes what there is, then the rest with the writer lock held; again where the disk failed.

use storage::TenantId;
use storage::fiber::{self, with_volume};
use storage::ledger;
use storage::sometimes;
use storage::sqlite::codes::{SQLITE_IOERR, SQLITE_IOERR_NOMEM, SQLITE_IOERR_READ};
use storage::sqlite::{CheckpointMode, SQLITE_BUSY, SQLITE_FULL, SqliteError};
use storage::vfs;
use storage::volume::Volume;

use super::context::Job;
use super::control::Asker;
use super::ephemeral::is_memory;
use super::life::Tenant;
use super::tasks::{Ended, Kind, Work};
use super::{Engine, Phase, Timer};
use crate::catalogue::{Call, DatabaseRow};
use crate::limits;
use crate::pool::Key;
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

impl<J: Job> Engine<J> {
    // ---- what the log must keep ----

    /// Bring `dirty` up to date with what the tenant's volume says.
    pub(super) fn note_redo(&mut self, key: Key) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        // A dropped tenant needs nothing of the log, also while its last tasks end.
        let volume = tenant.volume.as_ref().filter(|_| !tenant.dropped);
        let redo = volume.and_then(Volume::redo_from);
        if redo == tenant.redo {
            return;
        }
        if let Some(old) = std::mem::replace(&mut tenant.redo, redo) {
            self.dirty.remove(&(old, tenant.id));
        }
        if let Some(new) = redo {
            self.dirty.insert((new, tenant.id));
        }
    }

    pub(super) fn trim_log(&mut self) {
        if self.catalogue.has_fences_under_way() {
            // A crash now must find the damage again.
            return;
        }
        let Some(log) = &mut self.log else { return };
        let filling = log.filling_sequence();
        let oldest = self.dirty.first().map_or(filling, |&(sequence, _)| sequence);
        log.set_redo_from(oldest.min(filling));
        self.retry_log_waiters();
    }

    // ---- checkpoints ----

    /// Start checkpoints: of tenants with a large WAL (noted at their tasks' ends), of the oldest
    /// ones while the log is more than half full or holds what recovery found, of all when stopping.
    pub(super) fn pump_checkpoints(&mut self) {
        if !matches!(self.phase, Phase::Serving | Phase::Stopping) {
            return;
        }
        let pressure = limits::LOG_PRESSURE_PERCENT as u32;
        self.count_owed();
        let until = self.log.as_ref().and_then(|log| log.sequence_at_pressure(pressure));
        let all = self.phase == Phase::Stopping;
        let mut chosen = Vec::new();
        for &(sequence, id) in &self.dirty {
            if self.checkpoints_running + chosen.len() >= limits::CHECKPOINTS_MAX {
                break;
            }
            let recovered = self.recovered_rows.contains_key(&id);
            let pressed = until.is_some_and(|until| sequence < until);
            // Others' checkpoints write to the catalogue: it comes last.
            if all && id == TenantId::CATALOGUE && self.tenants.len() > 1 {
                continue;
            }
            match (all, recovered) {
                (true, _) => sometimes!("a checkpoint because the server stops"),
                (_, true) => sometimes!("a checkpoint of what was recovered"),
                _ if pressed => sometimes!("a checkpoint because the log fills"),
                _ => {}
            }
            if all || pressed || recovered {
                chosen.push(id);
            } else if !pressed && self.recovered_rows.is_empty() {
                break;
            }
        }
        for id in chosen {
            self.checkpoint_by_id(id);
        }
    }

    pub(super) fn checkpoint_by_id(&mut self, id: TenantId) {
        let row = self.recovered_rows.remove(&id);
        if let Some(&key) = self.ids.get(&id) {
            return self.start_checkpoint(key);
        }
        let Some(row) = row else { return self.ask_logged(id) };
        let key = match self.names.get(row.name.as_str()) {
            // A request asked for it just now: the catalogue's answer will open it. If that is a
            // failure, the row is needed again.
            Some(_) => {
                self.recovered_rows.insert(id, row);
                return;
            }
            None => self.tenants.insert(Tenant::new(&row.name)),
        };
        self.names.insert(row.name.as_str().into(), key);
        let only_checkpoint = self.was_asked(id);
        self.open_row(key, row);
        if let Some(tenant) = self.tenants.get_mut(key) {
            tenant.only_checkpoint = only_checkpoint;
        }
        self.start_checkpoint(key);
    }

    /// Somebody wants the database's file to have what was committed: begin, unless it has, or one is under
    /// way.
    pub(super) fn checkpoint_now(&mut self, row: &DatabaseRow) {
        if let Some(&key) = self.ids.get(&row.id) {
            self.start_checkpoint(key);
        }
    }

    pub(super) fn start_checkpoint(&mut self, key: Key) {
        let now = self.now;
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let ready = tenant.volume.is_some()
            && !tenant.is_logged()
            && !tenant.checkpointing
            && !tenant.dropped
            && tenant.fenced.is_none()
            && (tenant.redo.is_some() || is_memory(tenant.id))
            && tenant.retry_at <= now;
        if !ready || self.checkpoints_running >= limits::CHECKPOINTS_MAX {
            return;
        }
        tenant.checkpointing = true;
        // Its first step may make a file, however it ends.
        tenant.file = !is_memory(tenant.id);
        let pooled = tenant.idle.pop();
        self.checkpoints_running += 1;
        if self.start_task(key, Kind::Checkpoint, Work::Checkpoint(pooled)).is_none() {
            self.checkpoint_failed(key);
        }
    }

    pub(super) fn checkpoint_done(&mut self, key: Key, result: Result<Checkpointed, i32>) {
        let Some(tenant) = self.tenants.get(key) else { return };
        match result {
            Ok(Checkpointed { complete: true, txid, stamp }) => {
                let id = tenant.id;
                if id == TenantId::CATALOGUE || is_memory(id) {
                    self.checkpoint_settled(key, txid, stamp);
                } else {
                    let (asker, usage) = (Asker::Checkpoint(key, txid, stamp), tenant.usage);
                    let (bytes, used_s) = (tenant.bytes(), self.used_s(tenant));
                    let call = Call::Checkpointed { id, stamp, txid, usage, bytes, used_s };
                    self.call_catalogue(asker, call);
                }
            }
            Ok(_) | Err(_) => self.checkpoint_failed(key),
        }
    }

    pub(super) fn checkpoint_failed(&mut self, key: Key) {
        self.checkpoints_running -= 1;
        self.counters.checkpoint_failures += 1;
        let retry_at = self.now.after(limits::CHECKPOINT_RETRY_NS);
        if let Some(tenant) = self.tenants.get_mut(key) {
            tenant.checkpointing = false;
            tenant.retry_at = retry_at;
            tenant.stop_failures += u32::from(self.phase == Phase::Stopping);
            self.set_timer(limits::CHECKPOINT_RETRY_NS, Timer::CheckpointRetry(key));
        }
        self.checkpoint_over(key);
        self.after_task(key);
    }

    /// The catalogue knows durably that the checkpoint is complete.
    pub(super) fn checkpoint_settled(&mut self, key: Key, txid: u64, stamp: u64) {
        self.checkpoints_running -= 1;
        self.counters.checkpoints += 1;
        if let Some(tenant) = self.tenants.get_mut(key) {
            // A request may have opened it, and something else may have asked for the checkpoint.
            self.recovered_rows.remove(&tenant.id);
            tenant.checkpointing = false;
            if let Some(row) = &mut tenant.row {
                row.file = !is_memory(tenant.id);
                row.stamp = stamp;
                row.txid = row.txid.max(txid);
            }
            if let Some(volume) = &mut tenant.volume {
                volume.forget_commits(txid, stamp);
            }
        }
        if key == self.catalogue_key
            && let Some(log) = &mut self.log
        {
            log.set_catalogue_stamp(stamp);
        }
        self.note_redo(key);
        self.trim_log();
        self.checkpoint_over(key);
        if self.tenants.get(key).is_some_and(|tenant| tenant.only_checkpoint && tenant.is_unused())
        {
            self.begin_closing(key);
        }
        self.after_task(key);
    }

    pub(super) fn checkpoint_retry(&mut self, key: Key) {
        let large = self.tenants.get(key).is_some_and(|tenant| {
            tenant.volume.as_ref().is_some_and(|v| v.wal_bytes() > limits::CHECKPOINT_WAL_BYTES)
        });
        if large {
            self.start_checkpoint(key);
        }
        self.after_task(key);
    }
}
